/** From the network's output to the values that the sampler sums: channels, halves, guidance, learned noise. In float64. */
import type { Half } from "../../ir/dit.js";
import { entryAt } from "../../ir/entries.js";
import { type TensorData, tensorFloats } from "../../ir/tensor.js";
import { elementCount } from "../../ir/types.js";
import { type LearnedVariance, latentShape, type Rescale, type Run } from "../../schedules/index.js";

/**
 * The prediction with guidance, uncond + scale · (cond − uncond), and with its sign. Channels without guidance are those of cond. It is
 * rescaled if guidance asks for it (`Rescale`).
 */
export function guided(run: Run, predictions: ReadonlyMap<Half, ArrayLike<number>>, scale: number): Float64Array {
  const { guidance, prediction } = run;
  const shape = latentShape(run);
  const cond = Float64Array.from(predictions.get("cond") ?? []);
  const uncond = predictions.get("uncond");
  if (!uncond || scale === 1) return cond.map((value) => prediction.sign * value);
  const channels = entryAt(shape, prediction.channelAxis);
  const inner = elementCount(shape.slice(prediction.channelAxis + 1));
  const [from, to] = guidance.channels ?? [0, channels];
  const mixed = cond.map((value, i) => {
    const channel = Math.floor(i / inner) % channels;
    const without = uncond[i] ?? NaN;
    return channel >= from && channel < to ? without + scale * (value - without) : value;
  });
  const result = guidance.rescale ? rescaled(mixed, cond, shape, guidance.rescale) : mixed;
  return result.map((value) => prediction.sign * value);
}

/** The prediction of each half: its channels of the network's output. */
export function predictionsOf({ prediction }: Run, output: TensorData, halves: readonly Half[]): ReadonlyMap<Half, ArrayLike<number>> {
  return splitHalves(selectChannels(output, prediction.channels, prediction.channelAxis), halves);
}

/** The variance of the conditional half, in the channels after the prediction; undefined in a call that does not see this half. */
export function varianceOf(run: Run, output: TensorData, halves: readonly Half[]): ArrayLike<number> | undefined {
  const { channels, channelAxis } = run.prediction;
  const from = channels?.[1] ?? 0;
  const range = [from, from + entryAt(latentShape(run), channelAxis)] as const;
  return splitHalves(selectChannels(output, range, channelAxis), halves).get("cond");
}

function splitHalves(all: ArrayLike<number>, halves: readonly Half[]): ReadonlyMap<Half, ArrayLike<number>> {
  const size = all.length / halves.length;
  return new Map(halves.map((half, at) => [half, Float64Array.from({ length: size }, (_, i) => all[at * size + i] ?? NaN)]));
}

/**
 * Scales every group of values (a latent, or one line along the last axis) to its size in `cond`,
 * and mixes the result with the original by the strength.
 */
function rescaled(guided: Float64Array, cond: Float64Array, shape: readonly number[], { form, strength }: Rescale): Float64Array {
  const length = form === "std" ? elementCount(shape.slice(1)) : (shape.at(-1) ?? 1);
  const size = form === "std" ? deviation : norm;
  const result = new Float64Array(guided.length);
  for (let at = 0; at < guided.length; at += length) {
    const group = guided.subarray(at, at + length);
    const ratio = size(cond.subarray(at, at + length)) / size(group);
    for (const [i, value] of group.entries()) result[at + i] = strength * value * ratio + (1 - strength) * value;
  }
  return result;
}

function norm(values: Float64Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}

/** The sample standard deviation, as torch's `std`. */
function deviation(values: Float64Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return norm(values.map((value) => value - mean)) / Math.sqrt(values.length - 1);
}

/** exp(½ (f · max + (1 − f) · min)) with f = (v + 1) / 2. */
export function learnedDeviation(v: number, { min, max }: LearnedVariance): number {
  const f = (v + 1) / 2;
  return Math.exp(0.5 * (f * max + (1 - f) * min));
}

function selectChannels(data: TensorData, channels: readonly [number, number] | undefined, axis: number): ArrayLike<number> {
  const values = tensorFloats(data);
  if (!channels) return values;
  const have = data.shape[axis] ?? 1;
  const inner = elementCount(data.shape.slice(axis + 1));
  const outer = elementCount(data.shape.slice(0, axis));
  const [from, to] = channels;
  const part = new Float64Array(outer * (to - from) * inner);
  for (let o = 0, at = 0; o < outer; o++) {
    for (let i = from * inner; i < to * inner; i++) part[at++] = values[o * have * inner + i] ?? 0;
  }
  return part;
}
