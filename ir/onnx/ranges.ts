/** Ranges of files: what both the reader and the writer have to say of them. */
export type { ConvertedRange, FileRange } from "../tensor.js";

/** What the system says of a failed file operation; undefined for any other error. */
export function problemOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" && "syscall" in error ? error.message : undefined;
}
