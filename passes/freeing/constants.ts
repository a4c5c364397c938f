/** Constants of a run at two batches: what one is that differs between them, said without the batch. */
import { readTensor, type TensorData, tensorNumbers } from "../../ir/tensor.js";
import { ELEMENT_TYPES, elementCount } from "../../ir/types.js";

/** A constant at one of two batches. */
export interface ConstantAt {
  readonly data: TensorData;
  readonly batch: number;
}

/** A constant whose elements are the same for all latents: those of one latent, and the axis along which they are repeated. */
export interface Repeated {
  /** Along `axis` it has the `times` elements of one latent. */
  readonly one: TensorData;
  readonly axis: number;
  readonly times: number;
  /** `each`: every element is repeated for all latents, a, a, b, b; `whole`: all of them are, a, b, a, b. */
  readonly order: "each" | "whole";
}

/** A list that counts from 0 up, in strides, with `each` numbers for each latent, `times` times over. */
export interface Rounds {
  readonly stride: number;
  readonly each: number;
  readonly times: number;
}

/** What a constant is whose elements are the same for all latents, at both batches; undefined if it is no such thing. */
export function repeatedIn(low: ConstantAt, high: ConstantAt): Repeated | undefined {
  for (const order of ["each", "whole"] as const) {
    const [one, same] = [oneIn(low, high.data.shape, order), oneIn(high, low.data.shape, order)];
    if (one && same && isSame(one.one, same.one)) return one;
  }
  return undefined;
}

/** What a list of int64 counts, if it counts from 0 again and again to a multiple of the batch. */
export function countedIn(low: ConstantAt, high: ConstantAt): Rounds | undefined {
  const [one, same] = [roundsIn(low.data, low.batch), roundsIn(high.data, high.batch)];
  return one && same && one.each === same.each && one.times === same.times && one.stride === same.stride ? one : undefined;
}

export function isSame(data: TensorData, other: TensorData): boolean {
  if (data === other) return true;
  if (data.elem !== other.elem || data.shape.join() !== other.shape.join()) return false;
  const [content, beside] = [data.content, other.content];
  if (content.kind === "file" && beside.kind === "file" && content.file === beside.file && content.offset === beside.offset) return true;
  if (content.kind === "strings" || beside.kind === "strings") return false;
  return isSameBytes(readTensor(data), readTensor(other));
}

export function isSameBytes(bytes: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(bytes, other) === 0;
}

/** The elements for one latent of a constant that has `batch` times as many along an axis, if they are the same for all latents. */
function oneIn({ data, batch }: ConstantAt, otherShape: readonly number[], order: Repeated["order"]): Repeated | undefined {
  const { shape, elem } = data;
  const bytesEach = ELEMENT_TYPES[elem].bits / 8;
  const [axis, ...others] = shape.flatMap((size, i) => (size === otherShape[i] ? [] : [i]));
  if (axis === undefined || others.length > 0 || shape.length !== otherShape.length) return undefined;
  const rows = shape[axis] ?? 0;
  const times = rows / batch;
  if (!Number.isInteger(times) || bytesEach < 1) return undefined;
  const inner = elementCount(shape.slice(axis + 1)) * bytesEach;
  const bytes = Buffer.from(readTensor(data));
  const one = Buffer.alloc(bytes.length / batch);
  for (let at = 0; at < bytes.length / inner; at++) {
    const [before, row] = [Math.floor(at / rows), at % rows];
    const place = (before * times + (order === "each" ? Math.floor(row / batch) : row % times)) * inner;
    const isFirst = order === "each" ? row % batch === 0 : row < times;
    if (isFirst) bytes.copy(one, place, at * inner, (at + 1) * inner);
    else if (bytes.compare(one, place, place + inner, at * inner, (at + 1) * inner) !== 0) return undefined;
  }
  const sizes = shape.map((size, i) => (i === axis ? times : size));
  return { one: { elem, shape: sizes, content: { kind: "bytes", bytes: Uint8Array.from(one) } }, axis, times, order };
}

function roundsIn(data: TensorData, batch: number): Rounds | undefined {
  if (data.elem !== "int64" || data.shape.length !== 1) return undefined;
  const numbers = tensorNumbers(data);
  const again = numbers.indexOf(0, 1);
  const end = again < 0 ? numbers.length : again;
  const stride = numbers[1] ?? 1;
  const [each, times] = [end / batch, numbers.length / end];
  const isCounted = numbers.every((number, i) => number === stride * (i % end));
  return isCounted && Number.isInteger(each) && Number.isInteger(times) ? { stride, each, times } : undefined;
}
