/** Files that are the same: by their bytes, or on disk. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { link } from "node:fs/promises";
import { pipeline } from "node:stream/promises";

/** Gives a file another name, where the system can: not every file system has hard links, and none across disks. */
export async function linked(file: string, name: string): Promise<boolean> {
  try {
    await link(file, name);
    return true;
  } catch {
    return false;
  }
}

/** Of a file's bytes, as `sha256:<hex>`. */
export async function fileDigest(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return `sha256:${hash.digest("hex")}`;
}
