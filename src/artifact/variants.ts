/** The folder of several artifacts of one build: each is in a folder of its own, and all have one data file. */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { unknownName } from "../../ir/diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { badOption } from "../../schedules/diagnostics.js";
import { notAnArtifact } from "../words/index.js";
import { FILES } from "./manifest.js";
import { variantsIn } from "./variants-file.js";

/** An artifact of a folder. */
export interface Member {
  /** Absent if the folder itself is the artifact. */
  readonly name?: string | undefined;
  readonly folder: string;
}

/**
 * The artifacts of a folder that are named, or all: the folder itself, if it is one. Throws UNKNOWN_NAME for a name that it does not have,
 * NOT_AN_ARTIFACT, and BAD_OPTION where names are given of a folder that is an artifact.
 */
export function membersOf(folder: string, named: readonly string[] = []): readonly Member[] {
  const known = variantsIn(folder);
  if (!known && named.length === 0) return [{ folder }];
  if (!known && existsSync(join(folder, FILES.manifest)))
    throw badOption("--variant", "is for folders of several artifacts: this one is an artifact itself");
  if (!known || known.length === 0) throw notAnArtifact(folder);
  for (const name of named) if (!known.includes(name)) throw unknownName("variant", name, known);
  return (named.length > 0 ? [...new Set(named)] : known).map((name) => ({ name, folder: join(folder, name) }));
}

/** The folder of the one artifact that is named, or the folder as it is. Throws what `membersOf` throws. */
export function artifactOf(folder: string, named: readonly string[]): string {
  return named.length === 0 ? folder : entryAt(membersOf(folder, named), 0).folder;
}

/** The bytes of the weights of several artifacts, those that are one file on disk counted once. */
export function dataBytes(folders: readonly string[]): number {
  const sizes = new Map<bigint, number>();
  for (const folder of folders) {
    const info = statSync(join(folder, FILES.data), { bigint: true, throwIfNoEntry: false });
    if (info) sizes.set(info.ino, Number(info.size));
  }
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
}
