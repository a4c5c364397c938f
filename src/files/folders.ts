/** Writes folders that appear completely or not at all, and that may replace folders that we wrote before. */
import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileExists, notReplaceable } from "../words/index.js";
import { assertWritable, behindLinks, makeFolder, notWritten } from "./disk.js";

/** How a folder that we wrote is recognised: it has no entries but these, and `file` contains `text`. */
export interface FolderKind {
  readonly called: string;
  readonly entries: readonly string[];
  readonly file: string;
  readonly text: string;
}

/**
 * Runs `fill` on a new folder beside `folder` and renames it into place, so the folder appears completely or not at all.
 * Throws what `assertReplaceable` throws.
 */
export async function replaceFolder<T>(
  folder: string,
  kind: FolderKind,
  force: boolean,
  fill: (partial: string) => Promise<T>,
): Promise<T> {
  const target = behindLinks(folder);
  assertReplaceable(target, kind, force);
  const partial = join(dirname(target), `.${basename(target)}.${randomUUID()}.partial`);
  try {
    await makeFolder(partial);
    const filled = await fill(partial);
    await rm(target, { recursive: true, force: true });
    await rename(partial, target);
    return filled;
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw notWritten(folder, error);
  }
}

/**
 * Throws where `replaceFolder` would, before any work is done: FILE_EXISTS if something is there and `force` is not set,
 * NOT_REPLACEABLE if it is not of the kind or holds other files too (only what we wrote is ours to delete), FILE_NOT_WRITTEN.
 */
export function assertReplaceable(folder: string, { called, entries: ours, file, text }: FolderKind, force: boolean): void {
  assertWritable(folder);
  const there = statSync(folder, { throwIfNoEntry: false });
  if (!there) return;
  if (!there.isDirectory()) throw force ? notReplaceable(folder, "it is a file") : fileExists(folder);
  const entries = readdirSync(folder);
  if (entries.length === 0) return;
  if (!force) throw fileExists(folder);
  const foreign = entries.find((entry) => !ours.includes(entry));
  if (foreign !== undefined) throw notReplaceable(folder, `'${foreign}' is not of ${called}`);
  const signed = join(folder, file);
  if (!existsSync(signed) || !readFileSync(signed, "utf8").includes(text)) throw notReplaceable(folder, `it is not ${called}`);
}
