/** Tells a failure of the runtime on the exported file by itself from one on what was made of it. */
import { CompilerError } from "../../ir/diagnostics.js";
import { openJobSource } from "../job/index.js";
import { reasonOf, type RuntimeOptions, Session, type SessionOptions } from "../runtime/index.js";
import { modelNotLoaded } from "../words/index.js";
import { recipeOverrides, type Options } from "./options.js";

/**
 * MODEL_NOT_LOADED in place of RUNTIME_FAILED, if the runtime does not load the model file that `argument` names by itself either, with
 * its optimiser or without; else the error as it is.
 */
export async function asExported(error: unknown, argument: string, options: Options, runtime: RuntimeOptions): Promise<unknown> {
  if (!(error instanceof CompilerError) || error.code !== "RUNTIME_FAILED") return error;
  const file = await modelFileOf(options.model ?? argument, options);
  if (file === undefined) return error;
  const own = (await failureOf(file, { ...runtime, optimise: "all" })) && (await failureOf(file, { ...runtime, optimise: "disabled" }));
  if (!own) return error;
  const { problem, hint } = reasonOf(own.cause instanceof Error ? own.cause.message : own.message);
  return modelNotLoaded(file, problem, hint);
}

/** Why the runtime does not load a file; undefined if it does. */
async function failureOf(file: string, options: SessionOptions): Promise<Error | undefined> {
  try {
    await (await Session.open(file, options)).close();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

async function modelFileOf(model: string, options: Options): Promise<string | undefined> {
  try {
    return (await openJobSource(model, recipeOverrides(options))).modelFile;
  } catch {
    return undefined;
  }
}
