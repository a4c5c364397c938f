/** Ranges of files: what both the reader and the writer have to say of them. */
import type { TensorContent } from "../tensor.js";

export type FileRange = Extract<TensorContent, { kind: "file" }>;

/** What the system says of a failed file operation; undefined for any other error. */
export function problemOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" && "syscall" in error ? error.message : undefined;
}
