/** File ranges: what the reader and the writer share. */
export type { ConvertedRange, FileRange } from "../tensor.js";

/** The system's message about a failed file operation; undefined for any other error. */
export function problemOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" && "syscall" in error ? error.message : undefined;
}
