/** SHA256SUMS: the digests of all files of a folder, in one file, as `sha256sum` writes and checks them. */
import { existsSync, readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { SUMS_BYTES } from "../../ir/limits.js";
import { readFile } from "../../ir/open-file.js";
import { fileDigest } from "./digest.js";
import { writeWhole } from "./disk.js";

export const SUMS = "SHA256SUMS";

/** SHA-256 in hexadecimal digits by path, relative to the folder and with `/` between. */
export type Sums = ReadonlyMap<string, string>;

const LINE = /^(?<digest>[0-9a-f]{64}) {2}(?<path>[^\n\\]+)\n/gmy;

/** The digests that a folder says its files have; undefined where it has no such list, or one that is not whole. */
export function readSums(folder: string): Sums | undefined {
  const file = join(folder, SUMS);
  if (!existsSync(file)) return undefined;
  const text = readFile(file, SUMS_BYTES).toString("utf8");
  const lines = Array.from(text.matchAll(LINE), ({ groups }) => [groups?.["path"] ?? "", groups?.["digest"] ?? ""] as const);
  const sums = new Map(lines);
  return sums.size > 0 && textOf(sums) === text ? sums : undefined;
}

/** Writes the digests of all files in a folder. Those in `known` are not computed again. */
export async function writeSums(folder: string, known: Sums = new Map()): Promise<void> {
  const sums = new Map<string, string>();
  for (const path of pathsIn(folder)) sums.set(path, known.get(path) ?? (await fileDigest(join(folder, path))));
  await writeFile(join(folder, SUMS), textOf(sums));
}

/** Writes a file of a folder, and its digest. Throws what `writeWhole` throws. */
export async function writeSummed(folder: string, path: string, content: string | Uint8Array): Promise<void> {
  await writeWhole(join(folder, path), content, true);
  const sums = new Map([...(readSums(folder) ?? []), [path, await fileDigest(join(folder, path))]]);
  await writeWhole(join(folder, SUMS), textOf(sums), true);
}

/** What is wrong with the files of a folder that has digests, all of them or those of some paths: a few words for each. */
export async function damagesIn(folder: string, isAsked: (path: string) => boolean = () => true): Promise<readonly string[]> {
  const sums = readSums(folder);
  if (!sums) return [`${SUMS} is missing or damaged`];
  const problems: string[] = [];
  for (const [path, digest] of sums) {
    const file = join(folder, path);
    if (!isAsked(path)) continue;
    if (!existsSync(file)) problems.push(`${path} is missing`);
    else if ((await fileDigest(file)) !== digest) problems.push(`${path} is cut off or has changed`);
  }
  return problems;
}

/** What is in a folder and not in its list, if anything: files, links, and folders without a file of the list. */
export function strangerIn(folder: string): string | undefined {
  const sums = readSums(folder);
  return pathsIn(folder).find((path) => !sums?.has(path));
}

/** What is in a folder and in those within: all but folders that hold something, and the list itself. Sorted. */
function pathsIn(folder: string): readonly string[] {
  const pathsBelow = (at: string): readonly string[] =>
    readdirSync(at, { withFileTypes: true }).flatMap((entry) => {
      const path = join(at, entry.name);
      const below = entry.isDirectory() ? pathsBelow(path) : [];
      return below.length > 0 ? below : [relative(folder, path).replaceAll(sep, "/")];
    });
  return pathsBelow(folder)
    .filter((path) => path !== SUMS)
    .sort();
}

function textOf(sums: Sums): string {
  return [...sums].map(([path, digest]) => `${digest}  ${path}\n`).join("");
}
