/** The values that the network gets from outside at one evaluation: its inputs, and the values of branches that are not computed. */
import type { Half } from "../../ir/dit.js";
import { entryAt } from "../../ir/entries.js";
import { ditView, type Value } from "../../ir/graph.js";
import { readTensor, type TensorData, tensorFloats, tensorFrom, tensorNumbers, tensorOf } from "../../ir/tensor.js";
import { elementCount, staticShape } from "../../ir/types.js";
import { type Adjustment, mainNetwork, type Run, runPorts, type ConditionSource } from "../../schedules/index.js";

/** The value of a network input at row `k` of a run, in a call of these halves. */
export function inputAt(
  run: Run,
  { name, type }: Value,
  k: number,
  halves: readonly Half[],
  latent: Float32Array,
  given: ReadonlyMap<string, TensorData>,
): TensorData {
  const view = ditView(mainNetwork(run));
  const shape = staticShape(type) ?? [];
  const count = elementCount(shape);
  const elem = type?.elem ?? "float";
  const { inputScale, timestep } = entryAt(run.table.rows, k);
  if (name === view.latent) {
    const seen = Float32Array.from({ length: count }, (_, i) => (latent[i % latent.length] ?? 0) * inputScale);
    return elem === "float" ? tensorFrom("float", shape, seen) : tensorOf(elem, shape, seen);
  }
  if (name === view.timestep) return tensorOf(elem, shape, new Array<number>(count).fill(timestep));
  if (name === run.guidance.input) return tensorOf(elem, shape, new Array<number>(count).fill(scaleAt(run, k, given)));
  const condition = run.conditions.get(name);
  if (!condition) throw new Error(`internal: there is no value for '${name}'`);
  const seen = halves.map((half) => valueAt(condition.halves[half], k, given));
  const [first = entryAt(seen, 0)] = seen;
  return elementCount(first.shape) === count ? first : joined(seen, shape);
}

/** The guidance scale at row `k` of a run. */
export function scaleAt(run: Run, k: number, given: ReadonlyMap<string, TensorData>): number {
  const { scale, atRunTime } = entryAt(run.rows, k);
  const data = atRunTime ? given.get(runPorts(run).scale) : undefined;
  return data ? entryAt(tensorNumbers(data), 0) : scale;
}

/** The value of a condition at row `k`. */
export function valueAt(source: ConditionSource, k: number, given: ReadonlyMap<string, TensorData>): TensorData {
  const data = source.kind === "constant" ? source.data : given.get(source.name);
  if (!data) throw new Error(`internal: there is no value for '${source.kind === "input" ? source.name : ""}'`);
  if (!source.perStep) return data;
  const [, ...shape] = data.shape;
  const bytes = readTensor(data);
  const size = bytes.byteLength / (data.shape[0] ?? 1);
  const at = entryAt(source.perStep, k) * size;
  return { elem: data.elem, shape, content: { kind: "bytes", bytes: bytes.slice(at, at + size) } };
}

function joined(parts: readonly TensorData[], shape: readonly number[]): TensorData {
  const [first] = parts;
  if (!first) throw new Error("internal: nothing to join");
  const bytes = parts.map((part) => readTensor(part));
  return { elem: first.elem, shape, content: { kind: "bytes", bytes: Uint8Array.from(Buffer.concat(bytes)) } };
}

/** scale · Σ weight · value + shift over a site's earlier values; scale and shift have a number for each channel, the last axis. */
export function forecast(
  terms: readonly { readonly data: TensorData; readonly weight: number }[],
  { scale, shift }: Adjustment,
): TensorData {
  const [newest] = terms;
  if (!newest) throw new Error("internal: a forecast without terms");
  const { elem, shape } = newest.data;
  if (terms.length === 1 && newest.weight === 1 && !scale && !shift) return newest.data;
  // Floats are summed in float, as in the emitted model. Doubles would take twice the time, and this sum dominates a cached step.
  const sum = elem === "float" ? new Float32Array(elementCount(shape)) : new Float64Array(elementCount(shape));
  for (const { data, weight } of terms) accumulate(sum, tensorFloats(data), weight);
  const channels = shape.at(-1) ?? 1;
  if (scale) for (const [i, value] of sum.entries()) sum[i] = value * (scale[i % channels] ?? NaN);
  if (shift) for (const [i, value] of sum.entries()) sum[i] = value + (shift[i % channels] ?? NaN);
  return sum instanceof Float32Array ? tensorFrom("float", shape, sum) : tensorOf(elem, shape, sum);
}

/** One of the two halves of axis 0. */
export function halfOfRows(data: TensorData, index: number): TensorData {
  const [rows = 0, ...rest] = data.shape;
  const bytes = readTensor(data);
  const size = bytes.byteLength / 2;
  return { elem: data.elem, shape: [rows / 2, ...rest], content: { kind: "bytes", bytes: bytes.slice(index * size, (index + 1) * size) } };
}

/** Adds `weight` times the values. */
export function accumulate(sum: Float64Array | Float32Array, values: ArrayLike<number> | undefined, weight: number): void {
  if (!values) throw new Error("internal: the sampler's table points at a step that is not there");
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] ?? 0) + weight * (values[i] ?? 0);
}
