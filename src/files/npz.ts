/** Reading and writing `.npz` files, numpy's archives of named arrays: a ZIP file with a `.npy` file for each of them. */
import { badNpz } from "../words/index.js";
import { ARRAY_BYTES } from "../../ir/limits.js";
import { readFile } from "../../ir/open-file.js";
import type { TensorData } from "../../ir/tensor.js";
import { npyBytes, parseNpy } from "./npy.js";
import { unzipped, zipped } from "./zip.js";

const SUFFIX = ".npy";

/**
 * The arrays in a file that `numpy.savez` or `numpy.savez_compressed` wrote, by name.
 * Throws FILE_MISSING, NOT_A_FILE, FILE_TOO_LARGE, BAD_NPZ, BAD_NPY.
 */
export function readNpz(file: string): ReadonlyMap<string, TensorData> {
  return parseNpz(readFile(file, ARRAY_BYTES), file);
}

/** The arrays in the bytes of a `.npz` file, by name. Throws BAD_NPZ, BAD_NPY. */
export function parseNpz(bytes: Uint8Array, file: string): ReadonlyMap<string, TensorData> {
  const arrays = new Map<string, TensorData>();
  for (const [entry, content] of unzipped(bytes, (problem) => badNpz(file, problem))) {
    if (!entry.endsWith(SUFFIX)) throw badNpz(file, `'${entry}' in it is no array`);
    arrays.set(entry.slice(0, -SUFFIX.length), parseNpy(content(), `${file}/${entry}`));
  }
  return arrays;
}

/** The bytes of a `.npz` file: the arrays in their order, not compressed, as `numpy.savez` has them. Throws TENSOR_WRONG_TYPE. */
export function npzBytes(arrays: ReadonlyMap<string, TensorData>): Uint8Array {
  return zipped(new Map([...arrays].map(([name, data]) => [name + SUFFIX, npyBytes(data)])));
}
