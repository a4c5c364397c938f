/** Writing files so that a half-written one never appears. */
import { randomUUID } from "node:crypto";
import { accessSync, constants, existsSync, realpathSync, statSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileExists, notReplaceable } from "../words/index.js";
import { fileNotWritten } from "../../ir/diagnostics.js";

/** Throws FILE_EXISTS, NOT_REPLACEABLE or FILE_NOT_WRITTEN where `writeWhole` would, before any work is done. */
export function assertFree(file: string, force: boolean): void {
  assertWritable(file);
  const there = statSync(file, { throwIfNoEntry: false });
  if (!there) return;
  if (!there.isFile()) throw notReplaceable(file, there.isDirectory() ? "it is a folder" : "it is not a file");
  if (!force) throw fileExists(file);
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

/** The target of a path, so that replacing a file keeps the link to it. */
export function behindLinks(path: string): string {
  return existsSync(path) ? realpathSync(path) : resolve(path);
}

/**
 * Writes a file under another name and renames it.
 * Throws FILE_EXISTS if it is there and `force` is not set, NOT_REPLACEABLE, FILE_NOT_WRITTEN.
 */
export async function writeWhole(file: string, content: string | Uint8Array, force: boolean): Promise<void> {
  assertFree(file, force);
  const target = behindLinks(file);
  const partial = join(dirname(target), `.${randomUUID()}.partial`);
  try {
    await makeFolder(dirname(target));
    await writeFile(partial, content);
    await rename(partial, target);
  } catch (error) {
    await rm(partial, { force: true });
    throw notWritten(file, error);
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
  return error instanceof Error && "syscall" in error ? fileNotWritten(path, error.message) : error;
}
