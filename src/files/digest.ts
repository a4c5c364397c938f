/** Hard links and digests of files. */
import { createHash } from "node:crypto";
import { link } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { openFile } from "../../ir/open-file.js";

/**
 * Makes a hard link to a file; returns whether the system could do that.
 * Not every file system has hard links, and none has them across disks.
 */
export async function linked(file: string, name: string): Promise<boolean> {
  try {
    await link(file, name);
    return true;
  } catch {
    return false;
  }
}

/** SHA-256 of a file's bytes, in hexadecimal digits. Throws FILE_MISSING, NOT_A_FILE. */
export async function fileDigest(file: string): Promise<string> {
  const hash = createHash("sha256");
  const { handle } = await openFile(file);
  await pipeline(handle.createReadStream({ highWaterMark: 1 << 18 }), hash);
  return hash.digest("hex");
}
