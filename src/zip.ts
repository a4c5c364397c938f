/** ZIP files in memory: the container of numpy's `.npz` and of what torch saves. */
import { unzipSync } from "fflate";

/** The entries of a ZIP file by name; `refuse` makes the error for bytes that are none. */
export function unzipped(bytes: Uint8Array, refuse: (problem: string) => Error): ReadonlyMap<string, Uint8Array> {
  try {
    return new Map(Object.entries(unzipSync(bytes)));
  } catch (error) {
    throw refuse(error instanceof Error ? error.message : String(error));
  }
}
