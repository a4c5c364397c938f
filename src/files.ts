/** Reading JSON that others wrote, and writing files so that a half-written one never appears. */
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { badJson, fileExists, fileMissing } from "../ir/diagnostics.js";

/**
 * The JSON value in a file. The bare tokens -Infinity, Infinity and NaN, which Python writes, are read as strings.
 * Throws FILE_MISSING, BAD_JSON.
 */
export function readJson(file: string): unknown {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw fileMissing(file, error instanceof Error ? error.message : String(error));
  }
  try {
    const value: unknown = JSON.parse(text.replaceAll(/([:[,]\s*)(-?Infinity|NaN)(?=\s*[,\]}])/g, '$1"$2"'));
    return value;
  } catch (error) {
    throw badJson(file, error instanceof Error ? error.message : String(error));
  }
}

/** JSON with stable formatting and a newline at its end. */
export function jsonText(value: unknown): string {
  return `${JSON.stringify(value, undefined, 1)}\n`;
}

/** Throws FILE_EXISTS where `writeWhole` would, before any work is done. */
export function assertFree(file: string, force: boolean): void {
  if (!force && existsSync(file)) throw fileExists(file);
}

/** Writes a file under another name and renames it. Throws FILE_EXISTS if it is there and `force` is not set. */
export async function writeWhole(file: string, content: string | Uint8Array, force: boolean): Promise<void> {
  assertFree(file, force);
  await mkdir(dirname(file), { recursive: true });
  const partial = join(dirname(file), `.${randomUUID()}.partial`);
  try {
    await writeFile(partial, content);
    await rename(partial, file);
  } finally {
    await rm(partial, { force: true });
  }
}
