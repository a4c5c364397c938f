/** Tensor constants: bytes in memory, or a range of a file that is read only on demand. */
import { externalDataShort, tensorTooLarge, tensorWrongType } from "./diagnostics.js";
import { bfloatBits, bfloatValue, halfBits, halfValue } from "./float16.js";
import { READ_BYTES } from "./limits.js";
import { fill, readingFile } from "./open-file.js";
import { byteSize, elementCount, type ElementType, type FloatType, isFloatType } from "./types.js";

/** A range of a file. */
export interface FileRange {
  readonly kind: "file";
  readonly file: string;
  readonly offset: number;
  readonly length: number;
}

/** The numbers of a file range, stored there as `from`, converted to `to`. `length` is their size in bytes after the conversion. */
export interface ConvertedRange {
  readonly kind: "converted";
  readonly source: FileRange;
  readonly from: FloatType;
  readonly to: FloatType;
  readonly length: number;
}

/** Little-endian, densely packed; strings are the exception, as they have no fixed width. */
export type TensorContent =
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | FileRange
  | ConvertedRange
  | { readonly kind: "strings"; readonly strings: readonly Uint8Array[] };

export interface TensorData {
  readonly elem: ElementType;
  readonly shape: readonly number[];
  readonly content: TensorContent;
}

/** Bytes that the elements take; strings count their bytes. */
export function tensorBytes(data: TensorData): number {
  return data.content.kind === "strings"
    ? data.content.strings.reduce((sum, s) => sum + s.byteLength, 0)
    : byteSize(data.elem, elementCount(data.shape));
}

/** The raw bytes, read from the file if need be. Throws TENSOR_TOO_LARGE above `limit`. */
export function readTensor(data: TensorData, limit = READ_BYTES): Uint8Array {
  const { content } = data;
  if (content.kind === "strings") throw tensorWrongType("raw bytes", data.elem);
  if (content.kind === "bytes") return content.bytes;
  if (content.length > limit) throw tensorTooLarge(content.length, limit);
  return content.kind === "file" ? readRange(content) : convertBytes(readRange(content.source), content.from, content.to);
}

function readRange({ file, offset, length }: FileRange): Uint8Array {
  const bytes = new Uint8Array(length);
  const got = readingFile(file, (fd) => fill(fd, bytes, offset));
  if (got < length) throw externalDataShort(file, offset + length);
  return bytes;
}

/** A tensor from JavaScript numbers. Throws TENSOR_WRONG_TYPE for types that JavaScript has no array of. */
export function tensorOf(elem: ElementType, shape: readonly number[], values: ArrayLike<number>): TensorData {
  return tensorFrom(elem, shape, arraysOf(elem).from(Array.from(values)));
}

/** Conversions between JavaScript numbers and the elements of a type. */
interface NumberConversion {
  readonly from: (numbers: readonly number[]) => ArrayBufferView;
  readonly numbers: (buffer: ArrayBufferLike) => number[];
}

const BYTES: NumberConversion = { from: (numbers) => Uint8Array.from(numbers), numbers: (buffer) => Array.from(new Uint8Array(buffer)) };

/** Types that JavaScript has typed arrays for, and types that are stored in one of those. */
const ELEMENTS: ReadonlyMap<ElementType, NumberConversion> = new Map<ElementType, NumberConversion>([
  ["float", { from: (numbers) => Float32Array.from(numbers), numbers: (buffer) => Array.from(new Float32Array(buffer)) }],
  ["double", { from: (numbers) => Float64Array.from(numbers), numbers: (buffer) => Array.from(new Float64Array(buffer)) }],
  ["float16", { from: (numbers) => Uint16Array.from(numbers, halfBits), numbers: (buffer) => Array.from(new Uint16Array(buffer), halfValue) }],
  ["bfloat16", { from: (numbers) => Uint16Array.from(numbers, bfloatBits), numbers: (buffer) => Array.from(new Uint16Array(buffer), bfloatValue) }],
  ["int64", { from: (numbers) => BigInt64Array.from(numbers, BigInt), numbers: (buffer) => Array.from(new BigInt64Array(buffer), Number) }],
  ["uint64", { from: (numbers) => BigUint64Array.from(numbers, BigInt), numbers: (buffer) => Array.from(new BigUint64Array(buffer), Number) }],
  ["int32", { from: (numbers) => Int32Array.from(numbers), numbers: (buffer) => Array.from(new Int32Array(buffer)) }],
  ["uint32", { from: (numbers) => Uint32Array.from(numbers), numbers: (buffer) => Array.from(new Uint32Array(buffer)) }],
  ["int16", { from: (numbers) => Int16Array.from(numbers), numbers: (buffer) => Array.from(new Int16Array(buffer)) }],
  ["uint16", { from: (numbers) => Uint16Array.from(numbers), numbers: (buffer) => Array.from(new Uint16Array(buffer)) }],
  ["int8", { from: (numbers) => Int8Array.from(numbers), numbers: (buffer) => Array.from(new Int8Array(buffer)) }],
  ["uint8", BYTES],
  ["bool", BYTES],
]); // prettier-ignore

function arraysOf(elem: ElementType): NumberConversion {
  const elements = ELEMENTS.get(elem);
  if (!elements) throw tensorWrongType("numbers", elem);
  return elements;
}

/** A tensor that views the memory of a typed array. */
export function tensorFrom(elem: ElementType, shape: readonly number[], array: ArrayBufferView): TensorData {
  return { elem, shape, content: { kind: "bytes", bytes: new Uint8Array(array.buffer, array.byteOffset, array.byteLength) } };
}

/**
 * The elements as numbers, for reading only: a view of their memory where that is aligned, else a copy.
 * Throws what `tensorNumbers` throws.
 */
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
  return arraysOf(data.elem).numbers(buffer);
}

interface Codec {
  readonly array: Float32ArrayConstructor | Uint16ArrayConstructor;
  readonly encode: (value: number) => number;
  readonly decode: (element: number) => number;
}

const CODECS: Readonly<Record<FloatType, Codec>> = {
  float: { array: Float32Array, encode: (value) => value, decode: (element) => element },
  float16: { array: Uint16Array, encode: halfBits, decode: halfValue },
  bfloat16: { array: Uint16Array, encode: bfloatBits, decode: bfloatValue },
};

/** Converts numbers from one type to another, rounding to nearest, ties to even. Numbers that are too large become infinite. */
export function convertBytes(bytes: Uint8Array, from: FloatType, to: FloatType): Uint8Array {
  const { decode } = CODECS[from];
  const { array, encode } = CODECS[to];
  const elements = elementsOf(bytes, from);
  const result = new array(elements.length);
  for (let i = 0; i < elements.length; i++) result[i] = encode(decode(elements[i] ?? NaN));
  return new Uint8Array(result.buffer);
}

/** The tensor in another type. The contents of a file are only converted when they are read. Throws TENSOR_WRONG_TYPE. */
export function convertTensor(data: TensorData, to: FloatType): TensorData {
  const { elem, shape, content } = data;
  if (elem === to) return data;
  if (!isFloatType(elem)) throw tensorWrongType(to, elem);
  const length = byteSize(to, elementCount(shape));
  if (content.kind === "file") return { elem: to, shape, content: { kind: "converted", source: content, from: elem, to, length } };
  return { elem: to, shape, content: { kind: "bytes", bytes: convertBytes(readTensor(data), elem, to) } };
}

/** `holds` reads files in parts of this many bytes. */
const PART_BYTES = 1 << 20;

/** The largest relative rounding error at which a type holds a scalar. */
const LONE_ERROR = 2 ** -8;

/**
 * Whether a type holds the numbers of a tensor: no finite number becomes infinite, and a scalar keeps its value up to `LONE_ERROR`.
 * In larger tensors numbers near zero may become 0. Reads all of the tensor, a part at a time. Throws TENSOR_WRONG_TYPE.
 */
export function holds(to: FloatType, data: TensorData): boolean {
  const { elem, shape, content } = data;
  if (!isFloatType(elem)) throw tensorWrongType(to, elem);
  const { decode } = CODECS[elem];
  let largest = 0;
  for (const bytes of content.kind === "file" ? partsOf(content) : [readTensor(data)]) {
    const elements = elementsOf(bytes, elem);
    for (let i = 0; i < elements.length; i++) {
      const size = Math.abs(decode(elements[i] ?? NaN));
      if (size > largest && size < Infinity) largest = size;
    }
  }
  const held = CODECS[to].decode(CODECS[to].encode(largest));
  return elementCount(shape) === 1 ? Math.abs(held - largest) <= LONE_ERROR * largest : held < Infinity;
}

function* partsOf(range: FileRange): Generator<Uint8Array> {
  for (let at = 0; at < range.length; at += PART_BYTES)
    yield readRange({ ...range, offset: range.offset + at, length: Math.min(PART_BYTES, range.length - at) });
}

/** A copy of the elements, as the bytes need not be aligned. */
function elementsOf(bytes: Uint8Array, elem: FloatType): Float32Array | Uint16Array {
  return new CODECS[elem].array(Uint8Array.from(bytes).buffer);
}
