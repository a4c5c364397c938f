/** The problem that an action ends in. */
import { CompilerError } from "../../ir/diagnostics.js";

/** The CompilerError that an action throws; whatever else it throws comes through. */
export function thrownBy(action: () => unknown): CompilerError | undefined {
  try {
    action();
  } catch (error) {
    if (error instanceof CompilerError) return error;
    throw error;
  }
  return undefined;
}

export function codeOf(action: () => unknown): string | undefined {
  return thrownBy(action)?.code;
}

/** The CompilerError that a promise is rejected with; whatever else it is rejected with comes through. */
export async function rejectionOf(promise: Promise<unknown>): Promise<CompilerError | undefined> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof CompilerError) return error;
    throw error;
  }
  return undefined;
}

export async function rejectedCodeOf(promise: Promise<unknown>): Promise<string | undefined> {
  return (await rejectionOf(promise))?.code;
}
