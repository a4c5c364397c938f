/** Writes folders that appear completely or not at all, and that may replace folders that we wrote before. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { JSON_BYTES } from "../../ir/limits.js";
import { readFile } from "../../ir/open-file.js";
import { fileExists, notReplaceable } from "../words/index.js";
import { assertWritable, makeFolder, notWritten } from "./disk.js";
import { asideOf, behindLinks, isOneOf, placeBeside, tidy } from "./places.js";
import { strangerIn, SUMS } from "./sums.js";

/** How a folder that we wrote is recognised: its `file` contains `text`, and what it holds is what its SHA256SUMS lists. */
export interface FolderKind {
  readonly called: string;
  readonly file: string;
  readonly text: string;
}

/**
 * Runs `fill` on a new folder beside `folder` and renames it into place, so the folder appears completely or not at all; `fill` ends with
 * `writeSums`. What is there is looked at again in the end, when it has been set aside. Throws what `prepareFolder` throws.
 */
export async function replaceFolder<T>(
  folder: string,
  kind: FolderKind,
  force: boolean,
  fill: (partial: string) => Promise<T>,
): Promise<T> {
  const target = prepareFolder(folder, kind, force);
  const partial = placeBeside(target);
  try {
    await makeFolder(partial);
    const filled = await fill(partial);
    while (!(await hasMoved(partial, target))) await makeWay(folder, target, partial, kind, force);
    await rm(asideOf(partial), { recursive: true, force: true });
    return filled;
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw notWritten(folder, error);
  }
}

/** Renames a folder to a place that is free or an empty folder; returns whether it was. */
async function hasMoved(folder: string, target: string): Promise<boolean> {
  try {
    await rename(folder, target);
    return true;
  } catch (error) {
    if (isOneOf(error, "ENOTEMPTY", "EEXIST", "ENOTDIR")) return false;
    throw error;
  }
}

/** Sets aside what is at the target, and puts it back if it may not be replaced. It may be gone already. */
async function makeWay(folder: string, target: string, partial: string, kind: FolderKind, force: boolean): Promise<void> {
  if (!force) throw fileExists(folder);
  const aside = asideOf(partial);
  await rm(aside, { recursive: true, force: true });
  try {
    await rename(target, aside);
  } catch (error) {
    if (isOneOf(error, "ENOENT")) return;
    throw error;
  }
  const stranger = strangenessOf(aside, kind);
  if (stranger === undefined) return;
  await rename(aside, target);
  throw notReplaceable(folder, stranger);
}

/**
 * Makes a place ready for `replaceFolder`, before any work is done: clears up after killed processes, and throws FILE_EXISTS if something is
 * there and `force` is not set, NOT_REPLACEABLE if it is not of the kind or holds other files too (only what we wrote is ours to delete),
 * FILE_NOT_WRITTEN. Returns what the path leads to.
 */
export function prepareFolder(folder: string, kind: FolderKind, force: boolean): string {
  const target = behindLinks(folder);
  assertWritable(target);
  tidy(target);
  const there = statSync(target, { throwIfNoEntry: false });
  if (!there || (there.isDirectory() && readdirSync(target).length === 0)) return target;
  if (!force) throw fileExists(folder);
  const stranger = strangenessOf(target, kind);
  if (stranger !== undefined) throw notReplaceable(folder, stranger);
  return target;
}

/** Why something is not ours to delete; undefined if it is. */
function strangenessOf(path: string, { called, file, text }: FolderKind): string | undefined {
  if (!statSync(path).isDirectory()) return "it is a file";
  const signed = join(path, file);
  if (!existsSync(signed) || !readFile(signed, JSON_BYTES).includes(text)) return `it is not ${called}`;
  const stranger = strangerIn(path);
  return stranger === undefined ? undefined : `'${stranger}' in it is not of ${called}: ${SUMS} does not name it`;
}
