/** Whether files stay as they are while they are read in parts. */
import { statSync } from "node:fs";
import { sourceChanged } from "../words/index.js";

/** By path: size, time of the last change and number of a file. They are other ones where its content is, as far as the system tells. */
export type Stamps = ReadonlyMap<string, string>;

export function stampsOf(files: Iterable<string>): Stamps {
  return new Map(Array.from(files, (file) => [file, stampOf(file)]));
}

/** Throws SOURCE_CHANGED if one of the files is not what it was. */
export function assertUnchanged(stamps: Stamps): void {
  for (const [file, stamp] of stamps) if (stampOf(file) !== stamp) throw sourceChanged(file);
}

function stampOf(file: string): string {
  const info = statSync(file, { throwIfNoEntry: false, bigint: true });
  return info ? [info.size, info.mtimeNs, info.ino].join() : "absent";
}
