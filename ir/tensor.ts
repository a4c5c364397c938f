/** Tensor constants: bytes in memory or a range of a file; nothing is read until someone asks. */
import { closeSync, openSync, readSync } from "node:fs";
import { externalDataShort, tensorTooLarge, tensorWrongType } from "./diagnostics.js";
import { halfBits, halfValue } from "./half.js";
import { byteSize, elementCount, type ElementType } from "./types.js";

/** Little-endian, densely packed; strings are the exception, as they have no fixed width. */
export type TensorContent =
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | { readonly kind: "file"; readonly file: string; readonly offset: number; readonly length: number }
  | { readonly kind: "strings"; readonly strings: readonly Uint8Array[] };

export interface TensorData {
  readonly elem: ElementType;
  readonly shape: readonly number[];
  readonly content: TensorContent;
}

/** No constant that a pass looks at is larger than this; weights are copied, never looked at. */
const READ_LIMIT = 1 << 28;

/** Bytes that the elements take; strings count their bytes. */
export function tensorBytes(data: TensorData): number {
  return data.content.kind === "strings"
    ? data.content.strings.reduce((sum, s) => sum + s.byteLength, 0)
    : byteSize(data.elem, elementCount(data.shape));
}

/** The raw bytes, read from the file if need be. Throws TENSOR_TOO_LARGE above `limit`. */
export function readTensor(data: TensorData, limit = READ_LIMIT): Uint8Array {
  const { content } = data;
  if (content.kind === "strings") throw tensorWrongType("raw bytes", data.elem);
  if (content.kind === "bytes") return content.bytes;
  if (content.length > limit) throw tensorTooLarge(content.length, limit);
  const bytes = new Uint8Array(content.length);
  const fd = openSync(content.file, "r");
  try {
    for (let done = 0; done < bytes.length;) {
      const got = readSync(fd, bytes, done, bytes.length - done, content.offset + done);
      if (got === 0) throw externalDataShort(content.file, content.offset + content.length);
      done += got;
    }
  } finally {
    closeSync(fd);
  }
  return bytes;
}

/** A tensor from JavaScript numbers. Throws TENSOR_WRONG_TYPE for types that JavaScript has no array of. */
export function tensorOf(elem: ElementType, shape: readonly number[], values: ArrayLike<number>): TensorData {
  return tensorFrom(elem, shape, typedArray(elem, Array.from(values)));
}

function typedArray(elem: ElementType, numbers: readonly number[]): ArrayBufferView {
  switch (elem) {
    case "float":
      return Float32Array.from(numbers);
    case "double":
      return Float64Array.from(numbers);
    case "int64":
      return BigInt64Array.from(numbers, BigInt);
    case "uint64":
      return BigUint64Array.from(numbers, BigInt);
    case "int32":
      return Int32Array.from(numbers);
    case "uint32":
      return Uint32Array.from(numbers);
    case "int16":
      return Int16Array.from(numbers);
    case "uint16":
      return Uint16Array.from(numbers);
    case "float16":
      return Uint16Array.from(numbers, halfBits);
    case "int8":
      return Int8Array.from(numbers);
    case "uint8":
    case "bool":
      return Uint8Array.from(numbers);
    default:
      throw tensorWrongType("numbers", elem);
  }
}

/** A tensor that views the memory of a typed array. */
export function tensorFrom(elem: ElementType, shape: readonly number[], array: ArrayBufferView): TensorData {
  return { elem, shape, content: { kind: "bytes", bytes: new Uint8Array(array.buffer, array.byteOffset, array.byteLength) } };
}

/** The elements as numbers to read, without a copy where their memory allows it. Throws what `tensorNumbers` throws. */
export function tensorFloats(data: TensorData): ArrayLike<number> {
  const { content } = data;
  if (data.elem === "float" && content.kind === "bytes" && content.bytes.byteOffset % 4 === 0) {
    return new Float32Array(content.bytes.buffer, content.bytes.byteOffset, content.bytes.byteLength / 4);
  }
  return tensorNumbers(data);
}

/** The elements as JavaScript numbers; int64 must fit a double exactly. Throws TENSOR_WRONG_TYPE for types without such a view. */
export function tensorNumbers(data: TensorData): number[] {
  const bytes = readTensor(data);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  switch (data.elem) {
    case "float":
      return Array.from(new Float32Array(buffer));
    case "double":
      return Array.from(new Float64Array(buffer));
    case "int64":
      return Array.from(new BigInt64Array(buffer), Number);
    case "uint64":
      return Array.from(new BigUint64Array(buffer), Number);
    case "int32":
      return Array.from(new Int32Array(buffer));
    case "uint32":
      return Array.from(new Uint32Array(buffer));
    case "float16":
      return Array.from(new Uint16Array(buffer), halfValue);
    case "int16":
      return Array.from(new Int16Array(buffer));
    case "uint16":
      return Array.from(new Uint16Array(buffer));
    case "int8":
      return Array.from(new Int8Array(buffer));
    case "uint8":
    case "bool":
      return Array.from(new Uint8Array(buffer));
    default:
      throw tensorWrongType("numbers", data.elem);
  }
}
