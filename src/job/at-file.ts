/** Which of several files an error is about. */
import { CompilerError } from "../../ir/diagnostics.js";

/** What is done for one of several networks, with its file, or where else it stands, as the place of errors that have none. */
export async function atFile<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof CompilerError) || error.where.file !== undefined) throw error;
    throw new CompilerError(error.code, error.exitCode, error.message, error.hint, { ...error.where, file }, { cause: error });
  }
}
