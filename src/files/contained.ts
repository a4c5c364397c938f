/** Files that a file names, which may come from anybody: a recipe's model, scheduler and arrays, a plan's vectors. */
import { existsSync, realpathSync } from "node:fs";
import { resolve } from "node:path";
import { isWithin } from "../../ir/onnx/index.js";
import { fileOutside } from "../words/index.js";

/**
 * The file of this name, relative to the folder of the file that names it. It lies in that folder, or in (or is) one of those that are
 * allowed as well; so does what it leads to, if it is a link. Whether there is such a file is left to who reads it. Throws FILE_OUTSIDE.
 */
export function containedFile(name: string, folder: string, allowed: readonly string[] = []): string {
  const file = resolve(folder, name);
  const real = existsSync(file) ? realpathSync : resolve;
  if (![folder, ...allowed].some((place) => existsSync(place) && isWithin(real(file), real(place)))) throw fileOutside(file, name);
  return file;
}
