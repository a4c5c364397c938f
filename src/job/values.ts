/** Values of inputs: converts a value of a recipe or an option to a tensor of the input's type and shape. */
import { elemOf } from "../../ir/build.js";
import { inputNumber, inputShapeMismatch } from "../words/index.js";
import { entryAt } from "../../ir/entries.js";
import type { Value } from "../../ir/graph.js";
import { readTensor, type TensorData, tensorNumbers, tensorOf } from "../../ir/tensor.js";
import { byteSize, elementCount, type ElementType } from "../../ir/types.js";
import { gridPoints } from "./grid.js";
import { readNpy } from "../files/index.js";
import type { ValueSpec } from "./recipe.js";

/** The file of a name in a recipe or an option. */
export type FindFile = (name: string) => string;

/**
 * The value of sample `sample` from a calibration list; with `tableRows`, of a value for each of that many rows of the sampler's table
 * (`tensorFor`). For an input with one number per row of the batch, and for all rows of the table, numbers are taken in turn.
 */
export function sampleTensor(
  value: Value,
  shape: readonly number[],
  calibrate: readonly ValueSpec[] | string,
  sample: number,
  find: FindFile,
  tableRows?: number,
): TensorData {
  if (typeof calibrate === "string") {
    return retyped(value, fileSample(value, shape, readNpy(find(calibrate)), sample, tableRows));
  }
  const rows = shape[0] ?? 1;
  const numbers = calibrate.flat().filter((entry) => typeof entry === "number");
  if (shape.length === 1 && numbers.length > 0 && tableRows === undefined) {
    const row = Array.from({ length: rows }, (_, i) => entryAt(numbers, (sample * rows + i) % numbers.length));
    return tensorFor(value, shape, row, find);
  }
  return tensorFor(value, shape, entryAt(calibrate, sample % calibrate.length), find, tableRows);
}

/**
 * Sample `sample` of a file whose axis 0 counts samples, and whose axis 1 counts rows of the sampler's table if these have a value each.
 * Each sample is a whole condition, or one row of the batch.
 */
function fileSample(value: Value, shape: readonly number[], all: TensorData, sample: number, tableRows?: number): TensorData {
  const [samples = 0, ...ofSample] = all.shape;
  const whole = tableRows === undefined ? shape : [tableRows, ...shape];
  const rest = tableRows === undefined ? ofSample : ofSample.slice(1);
  const rows = rowsIn(shape, rest);
  const fits = tableRows === undefined || ofSample[0] === tableRows;
  if (samples === 0 || !fits || rows === undefined) throw inputShapeMismatch(value.name, ["samples", ...whole], all.shape);
  const count = (shape[0] ?? 1) / rows;
  const size = byteSize(all.elem, elementCount(rest));
  const bytes = readTensor(all);
  const each = tableRows ?? 1;
  const parts = Array.from({ length: each * count }, (_, place) => {
    const [row, i] = [Math.floor(place / count), place % count];
    const at = (((sample * count + i) % samples) * each + row) * size;
    return bytes.subarray(at, at + size);
  });
  return { elem: all.elem, shape: whole, content: { kind: "bytes", bytes: Uint8Array.from(Buffer.concat(parts)) } };
}

/**
 * A tensor of the input's type and of `shape`; with `rows`, of a value for each of that many rows of the sampler's table, [rows, …shape]:
 * then a file has an axis 0 for them, and a list has a number for each or all elements.
 * Throws INPUT_SHAPE_MISMATCH, INPUT_NUMBER, BAD_GRID and what reading the file throws.
 */
export function tensorFor(value: Value, shape: readonly number[], spec: ValueSpec, find: FindFile, rows?: number): TensorData {
  if (rows !== undefined) return tensorPerStep(value, shape, spec, find, rows);
  if (typeof spec === "number") return numbersFor(value, shape, new Array<number>(elementCount(shape)).fill(spec));
  if (typeof spec === "string") return forEveryRow(value.name, shape, retyped(value, readNpy(find(spec))));
  const numbers = Array.isArray(spec) ? spec : gridPoints(value.name, shape, spec.grid);
  // A list has no shape: it is a whole input or one row, depending on its number of elements.
  const listed = [shape, shape.slice(1)].find((of) => elementCount(of) === numbers.length);
  return forEveryRow(value.name, shape, numbersFor(value, listed ?? [numbers.length], numbers));
}

function tensorPerStep(value: Value, shape: readonly number[], spec: ValueSpec, find: FindFile, rows: number): TensorData {
  const all = typeof spec === "string" ? retyped(value, readNpy(find(spec))) : undefined;
  const misfit = (found: readonly number[]): Error => inputShapeMismatch(value.name, [rows, ...shape], found);
  if (all && all.shape[0] !== rows) throw misfit(all.shape);
  if (Array.isArray(spec) && spec.length % rows !== 0) throw misfit([spec.length]);
  const parts = Array.from({ length: rows }, (_, row): TensorData => {
    if (all) return forEveryRow(value.name, shape, rowOf(all, row));
    if (!Array.isArray(spec)) return tensorFor(value, shape, spec, find);
    const each = spec.length / rows;
    const [first = 0, ...more] = spec.slice(row * each, (row + 1) * each);
    return tensorFor(value, shape, more.length === 0 ? first : [first, ...more], find);
  });
  const bytes = Uint8Array.from(Buffer.concat(parts.map((part) => readTensor(part))));
  return { elem: elemOf(value), shape: [rows, ...shape], content: { kind: "bytes", bytes } };
}

/** One row of axis 0, without that axis. */
function rowOf(all: TensorData, row: number): TensorData {
  const [, ...shape] = all.shape;
  const size = byteSize(all.elem, elementCount(shape));
  return { elem: all.elem, shape, content: { kind: "bytes", bytes: readTensor(all).subarray(row * size, (row + 1) * size) } };
}

/** `data` in `shape`: all of it, or one row of the batch for every row. Throws INPUT_SHAPE_MISMATCH. */
export function forEveryRow(input: string, shape: readonly number[], data: TensorData): TensorData {
  const rows = rowsIn(shape, data.shape);
  if (rows === undefined) throw inputShapeMismatch(input, shape, data.shape);
  const bytes = Buffer.concat(new Array<Uint8Array>((shape[0] ?? 1) / rows).fill(readTensor(data)));
  return { elem: data.elem, shape, content: { kind: "bytes", bytes: Uint8Array.from(bytes) } };
}

/**
 * The number of rows of an input that an array of shape `found` holds: all, or one (with or without the batch axis).
 * Undefined if the shape does not fit.
 */
function rowsIn([rows = 1, ...row]: readonly number[], found: readonly number[]): number | undefined {
  const is = (...shape: readonly number[]): boolean => shape.join() === found.join();
  return is(rows, ...row) ? rows : is(1, ...row) || is(...row) ? 1 : undefined;
}

/** The tensor in the input's element type. Throws INPUT_NUMBER. */
function retyped(value: Value, data: TensorData): TensorData {
  return data.elem === elemOf(value) ? data : numbersFor(value, data.shape, tensorNumbers(data));
}

/** Numbers as a tensor of the input's element type. Throws INPUT_NUMBER for a number that the type cannot hold. */
function numbersFor(value: Value, shape: readonly number[], numbers: readonly number[]): TensorData {
  const elem = elemOf(value);
  const misfit = numbers.find((number) => !holdsNumber(elem, number));
  if (misfit !== undefined) throw inputNumber(value.name, elem, misfit);
  return tensorOf(elem, shape, numbers);
}

/** Whether an element type can hold a number, with rounding in float types. */
export function holdsNumber(elem: ElementType, number: number): boolean {
  if (elem === "bool") return number === 0 || number === 1;
  const integer = /^(u?)int(\d+)$/.exec(elem);
  if (!integer) return !Number.isNaN(number);
  const bits = Number(integer[2]);
  const [low, high] = integer[1] === "u" ? [0, 2 ** bits] : [-(2 ** (bits - 1)), 2 ** (bits - 1)];
  return Number.isInteger(number) && number >= low && number < high;
}
