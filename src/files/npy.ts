/** Reading and writing `.npy` files (numpy's NEP 1): one array, little-endian, in C order. */
import { badNpy } from "../words/index.js";
import { tensorWrongType } from "../../ir/diagnostics.js";
import { ARRAY_BYTES, MAX_RANK, NPY_HEADER_BYTES } from "../../ir/limits.js";
import { readFile } from "../../ir/open-file.js";
import { readTensor, type TensorData } from "../../ir/tensor.js";
import { byteSize, elementCount, type ElementType, isElementType } from "../../ir/types.js";
import { writeWhole } from "./disk.js";

const MAGIC = "\x93NUMPY";

/** numpy's type strings; `|` stands for types of one byte, whose order does not matter. */
const DESCRIPTIONS = {
  float: "<f4",
  double: "<f8",
  float16: "<f2",
  int64: "<i8",
  int32: "<i4",
  uint8: "|u1",
  bool: "|b1",
} as const satisfies Partial<Record<ElementType, string>>;

function typeDescribedAs(description: string): ElementType | undefined {
  for (const [name, known] of Object.entries(DESCRIPTIONS)) if (known === description && isElementType(name)) return name;
  return undefined;
}

/** The array in a file. Throws FILE_MISSING, NOT_A_FILE, FILE_TOO_LARGE, BAD_NPY. */
export function readNpy(file: string): TensorData {
  return parseNpy(readFile(file, ARRAY_BYTES), file);
}

/** The array in the bytes of a `.npy` file; the result does not share memory with them. Throws BAD_NPY. */
export function parseNpy(bytes: Uint8Array, file: string): TensorData {
  const refuse = (problem: string): Error => badNpy(file, problem);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < 12 || Buffer.from(bytes.subarray(0, 6)).toString("latin1") !== MAGIC) throw refuse("it does not begin as one");
  const version = view.getUint8(6);
  if (version < 1 || version > 3) throw refuse(`its format version is ${version}`);
  const headerAt = version === 1 ? 10 : 12;
  const dataAt = headerAt + (version === 1 ? view.getUint16(8, true) : view.getUint32(8, true));
  if (dataAt > bytes.byteLength) throw refuse("it ends inside its header");
  if (dataAt - headerAt > NPY_HEADER_BYTES) throw refuse(`its header has ${dataAt - headerAt} bytes`);
  const header = parseHeader(Buffer.from(bytes.subarray(headerAt, dataAt)).toString("utf8"));
  if (!header) throw refuse("its header is not the dictionary that numpy writes");
  const { description, isFortran, shape } = header;
  const elem = typeDescribedAs(description);
  if (!elem) throw refuse(`its type is '${description}', and ${Object.values(DESCRIPTIONS).join(", ")} are read`);
  if (isFortran && shape.length > 1) throw refuse("it is in Fortran order: save numpy.ascontiguousarray(array)");
  if (shape.length > MAX_RANK) throw refuse(`it has ${shape.length} axes`);
  const count = elementCount(shape);
  if (![count, ...shape].every(Number.isSafeInteger)) throw refuse(`its shape is [${shape.join(", ")}]`);
  const size = byteSize(elem, count);
  const found = bytes.byteLength - dataAt;
  if (found !== size) throw refuse(`it has ${found} bytes of data and needs ${size}`);
  return { elem, shape, content: { kind: "bytes", bytes: Uint8Array.from(bytes.subarray(dataAt)) } };
}

const FIELD = /\s*'(?<key>descr|fortran_order|shape)'\s*:\s*(?<value>'[^']*'|True|False|\(\s*(?:\d+\s*,\s*)*(?:\d+\s*)?\))\s*(?:,|$)/gy;

/** The three fields of the header, a Python dictionary; undefined if there is anything else in it. */
function parseHeader(
  text: string,
): { readonly description: string; readonly isFortran: boolean; readonly shape: readonly number[] } | undefined {
  const dictionary = text.trim();
  if (!dictionary.startsWith("{") || !dictionary.endsWith("}")) return undefined;
  const fields = dictionary.slice(1, -1).trim();
  const found = new Map<string, string>();
  let length = 0;
  for (const match of fields.matchAll(FIELD)) {
    found.set(match.groups?.["key"] ?? "", match.groups?.["value"] ?? "");
    length += match[0].length;
  }
  const description = /^'(.*)'$/.exec(found.get("descr") ?? "")?.[1];
  const order = found.get("fortran_order");
  const shape = found.get("shape");
  if (length !== fields.length || description === undefined || !shape?.startsWith("(") || (order !== "True" && order !== "False"))
    return undefined;
  return { description, isFortran: order === "True", shape: Array.from(shape.matchAll(/\d+/g), ([digits]) => Number(digits)) };
}

/** Writes the array, over what is there. Throws TENSOR_WRONG_TYPE for types that `readNpy` does not read. */
export async function writeNpy(file: string, data: TensorData): Promise<void> {
  await writeWhole(file, npyBytes(data), true);
}

/** The bytes of a `.npy` file, format version 1. Throws TENSOR_WRONG_TYPE. */
export function npyBytes(data: TensorData): Uint8Array {
  const { elem, shape } = data;
  if (!isWritable(elem)) throw tensorWrongType("one of " + Object.keys(DESCRIPTIONS).join(", "), elem);
  const dims = shape.length === 1 ? `(${shape[0] ?? 0},)` : `(${shape.join(", ")})`;
  const header = `{'descr': '${DESCRIPTIONS[elem]}', 'fortran_order': False, 'shape': ${dims}, }`;
  // The data begins at a multiple of 64 bytes, and the header ends with a line feed.
  const padded = `${header.padEnd(Math.ceil((10 + header.length + 1) / 64) * 64 - 11)}\n`;
  const start = Buffer.from(`${MAGIC}\x01\x00\x00\x00${padded}`, "latin1");
  start.writeUInt16LE(padded.length, 8);
  return Buffer.concat([start, readTensor(data, Infinity)]);
}

function isWritable(elem: ElementType): elem is keyof typeof DESCRIPTIONS {
  return Object.hasOwn(DESCRIPTIONS, elem);
}
