/**
 * The door to files that a user names: opens regular files alone, of a size that is known. A pipe or a device would be waited for, or never
 * end. Opening without blocking returns at once from these, too, and what is asked is the opened file, so that nothing changes between.
 */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { fileMissing, fileTooLarge, notAFile } from "./diagnostics.js";

/** Windows has no such flag. */
const FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK || 0);

/** Node reads no 2 GiB in one call. */
const MOST_AT_ONCE = 2 ** 30;

/** Runs `read` on an open file of at most `limit` bytes. Throws NOT_A_FILE, FILE_TOO_LARGE, and FILE_MISSING for what the system says. */
export function readingFile<T>(file: string, read: (fd: number, size: number) => T, limit = Infinity): T {
  let fd: number | undefined;
  try {
    fd = openSync(file, FLAGS);
    return read(fd, sizeOf(file, fstatSync(fd), limit));
  } catch (error) {
    throw asMissing(file, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** Opens a file to be read piece by piece. The caller closes it. Throws NOT_A_FILE, FILE_MISSING. */
export async function openFile(file: string): Promise<{ readonly handle: FileHandle; readonly size: number }> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(file, FLAGS);
    return { handle, size: sizeOf(file, await handle.stat(), Infinity) };
  } catch (error) {
    await handle?.close();
    throw asMissing(file, error);
  }
}

/** Throws what `readingFile` throws, where another program is to open the file. */
export function assertFile(file: string): void {
  readingFile(file, () => undefined);
}

/** All of a file of at most `limit` bytes. Throws what `readingFile` throws. */
export function readFile(file: string, limit: number): Buffer {
  const read = (fd: number, size: number): Buffer => {
    const bytes = Buffer.allocUnsafeSlow(size);
    return bytes.subarray(0, fill(fd, bytes, 0));
  };
  return readingFile(file, read, limit);
}

/** Fills `bytes` from a position of a file on; returns how many bytes there were. */
export function fill(fd: number, bytes: Uint8Array, position: number): number {
  let done = 0;
  for (let got = -1; got !== 0 && done < bytes.length; done += got)
    got = readSync(fd, bytes, done, Math.min(bytes.length - done, MOST_AT_ONCE), position + done);
  return done;
}

/** A system error about a file as FILE_MISSING; other errors unchanged. */
export function asMissing(file: string, error: unknown): unknown {
  const problem = problemOf(error);
  return problem === undefined ? error : fileMissing(file, problem);
}

/** The system's message about a failed file operation; undefined for any other error. */
export function problemOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string") return undefined;
  // Node itself refuses names that no file can have, such as those with a null byte.
  return "syscall" in error || error.code === "ERR_INVALID_ARG_VALUE" ? error.message : undefined;
}

function sizeOf(file: string, info: Stats, limit: number): number {
  if (!info.isFile()) throw notAFile(file, kindOf(info));
  if (info.size > limit) throw fileTooLarge(file, info.size, limit);
  return info.size;
}

function kindOf(info: Stats): string {
  if (info.isDirectory()) return "a folder";
  if (info.isFIFO()) return "a pipe";
  return info.isSocket() ? "a socket" : "a device";
}
