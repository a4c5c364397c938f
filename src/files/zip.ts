/** ZIP files in memory: the container of numpy's `.npz` and of what torch saves. */
import { unzipSync, zipSync } from "fflate";

/** The entries of a ZIP file by name; `refuse` makes the error for bytes that are none. */
export function unzipped(bytes: Uint8Array, refuse: (problem: string) => Error): ReadonlyMap<string, Uint8Array> {
  try {
    return new Map(Object.entries(unzipSync(bytes)));
  } catch (error) {
    throw refuse(error instanceof Error ? error.message : String(error));
  }
}

/** The entries as a ZIP file, in their order, not compressed; the same bytes everywhere. */
export function zipped(entries: ReadonlyMap<string, Uint8Array>): Uint8Array {
  // ZIP has local times, and begins in 1980.
  return zipSync(Object.fromEntries(entries), { level: 0, mtime: new Date(1980, 0, 1) });
}
