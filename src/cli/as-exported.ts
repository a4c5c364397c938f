/** Tells a failure of the runtime on the exported file by itself from one on what was made of it. */
import { CompilerError } from "../../ir/diagnostics.js";
import { openJobSource } from "../job/index.js";
import { reasonOf, type RuntimeOptions, Session, type SessionOptions } from "../runtime/index.js";
import { modelNotLoaded } from "../words/index.js";
import { recipeOverrides, type Options } from "./options.js";

/**
 * MODEL_NOT_LOADED in place of RUNTIME_FAILED, if there is a model file that `argument` names which the runtime does not load by itself
 * either, with its optimiser or without; else the error as it is.
 */
export async function asExported(error: unknown, argument: string, options: Options, runtime: RuntimeOptions): Promise<unknown> {
  if (!(error instanceof CompilerError) || error.code !== "RUNTIME_FAILED") return error;
  for (const file of await modelFilesOf(options.model ?? argument, options)) {
    const own = (await failureOf(file, { ...runtime, optimise: "all" })) && (await failureOf(file, { ...runtime, optimise: "disabled" }));
    if (!own) continue;
    const { problem, hint } = reasonOf(own.cause instanceof Error ? own.cause.message : own.message);
    return modelNotLoaded(file, problem, hint);
  }
  return error;
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

async function modelFilesOf(model: string, options: Options): Promise<readonly string[]> {
  try {
    const { modelFile, networkFiles = [] } = await openJobSource(model, recipeOverrides(options));
    return [modelFile, ...networkFiles];
  } catch {
    return [];
  }
}
