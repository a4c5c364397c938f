/** Writing files so that a half-written one never appears. */
import { accessSync, constants, existsSync, statSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileExists, notReplaceable } from "../words/index.js";
import { fileNotWritten } from "../../ir/diagnostics.js";
import { problemOf } from "../../ir/open-file.js";
import { linked } from "./digest.js";
import { behindLinks, placeBeside, tidy } from "./places.js";

/**
 * Makes a place ready for `writeWhole`, before any work is done: clears up after killed processes, and throws FILE_EXISTS, NOT_REPLACEABLE
 * or FILE_NOT_WRITTEN where that would. Returns what the path leads to.
 */
export function prepareFile(file: string, force: boolean): string {
  const target = behindLinks(file);
  assertWritable(target);
  tidy(target);
  const there = statSync(target, { throwIfNoEntry: false });
  if (!there) return target;
  if (!there.isFile()) throw notReplaceable(file, there.isDirectory() ? "it is a folder" : "it is not a file");
  if (!force) throw fileExists(file);
  return target;
}

/** Throws FILE_NOT_WRITTEN if the folder of a path, or its nearest existing parent, is not writable. */
export function assertWritable(path: string): void {
  let folder = dirname(resolve(path));
  try {
    while (!existsSync(folder)) folder = dirname(folder);
    if (!statSync(folder).isDirectory()) throw fileNotWritten(path, `${folder} is not a folder.`);
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw notWritten(path, error);
  }
}

/**
 * Writes a file under another name and renames it.
 * Throws FILE_EXISTS if it is there in the end and `force` is not set, NOT_REPLACEABLE, FILE_NOT_WRITTEN.
 */
export async function writeWhole(file: string, content: string | Uint8Array, force: boolean): Promise<void> {
  const target = prepareFile(file, force);
  const partial = placeBeside(target);
  try {
    await makeFolder(dirname(target));
    await writeFile(partial, content);
    // Other than a new name, a new link is refused where a file has appeared.
    if (force || !(await linked(partial, target))) {
      if (!force && existsSync(target)) throw fileExists(file);
      await rename(partial, target);
    }
  } catch (error) {
    throw notWritten(file, error);
  } finally {
    await rm(partial, { force: true });
  }
}

/**
 * Makes a folder and its missing parents. Node's own recursive option never returns where the system refuses the folder, as in /proc.
 */
export async function makeFolder(folder: string): Promise<void> {
  if (existsSync(folder)) return;
  await makeFolder(dirname(folder));
  try {
    await mkdir(folder);
  } catch (error) {
    if (!existsSync(folder)) throw error;
  }
}

/** A system error about a path as FILE_NOT_WRITTEN; other errors unchanged. */
export function notWritten(path: string, error: unknown): unknown {
  const problem = problemOf(error);
  return problem === undefined ? error : fileNotWritten(path, problem);
}
