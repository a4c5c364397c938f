/** Tells a failure of the runtime on the exported file by itself from one on what was made of it. */
import { CompilerError } from "../../ir/diagnostics.js";
import { openJobSource } from "../job/index.js";
import { reasonOf, type RuntimeOptions, Session } from "../runtime/index.js";
import { modelNotLoaded } from "../words/index.js";
import { recipeOverrides, type Options } from "./options.js";

/**
 * MODEL_NOT_LOADED in place of RUNTIME_FAILED, if the runtime does not load the model file that `argument` names either, as it would
 * for anybody; else the error as it is.
 */
export async function asExported(error: unknown, argument: string, options: Options, runtime: RuntimeOptions): Promise<unknown> {
  if (!(error instanceof CompilerError) || error.code !== "RUNTIME_FAILED") return error;
  const file = modelFileOf(options.model ?? argument, options);
  if (file === undefined) return error;
  try {
    await (await Session.open(file, { ...runtime, optimise: "all" })).close();
    return error;
  } catch (own) {
    if (!(own instanceof Error)) return error;
    const { problem, hint } = reasonOf(own.cause instanceof Error ? own.cause.message : own.message);
    return modelNotLoaded(file, problem, hint);
  }
}

function modelFileOf(model: string, options: Options): string | undefined {
  try {
    return openJobSource(model, recipeOverrides(options)).modelFile;
  } catch {
    return undefined;
  }
}
