/** Adjustments: a scale and a shift per channel for the value of a cached branch, and the arrays that hold them in a file. */
import { badAdjustment, badPlan } from "./diagnostics.js";
import type { CachedBranch } from "./cache.js";
import { type TensorData, tensorFrom, tensorNumbers, tensorOf } from "../ir/tensor.js";
import type { PartialArrays } from "./partial.js";

/**
 * A scale that multiplies a cached value and a shift that is then added: a number for each channel, which is the last axis of the
 * branch's output. In Block Caching (arXiv 2312.03209) both depend on the time, so they are constants once the steps are known.
 */
export interface Adjustment {
  readonly scale?: Float32Array | undefined;
  readonly shift?: Float32Array | undefined;
}

/** What the arrays of a plan say of a cell: how its value is adjusted, and what of it is computed (`PartialCell`). */
export interface CellArrays extends Adjustment, PartialArrays {}

const PARTS = ["scale", "shift"] as const satisfies readonly (keyof Adjustment)[];

/** By plan key, then by step. */
export type Adjustments = ReadonlyMap<string, ReadonlyMap<number, CellArrays>>;

/** Named arrays, as a `.npz` file holds them. */
export type Arrays = ReadonlyMap<string, TensorData>;

/**
 * The vectors `<key>/<step>/scale`, `/shift` and `/tokens`, and the matrices `<key>/<step>/move`. Throws BAD_PLAN for other names and for arrays with
 * another number of axes.
 */
export function parseAdjustments(arrays: Arrays, source: string): Adjustments {
  const adjustments = new Map<string, Map<number, CellArrays>>();
  for (const [name, data] of arrays) {
    const [, key, step, part] = /^(.+)\/(0|[1-9]\d*)\/(scale|shift|tokens|move)$/.exec(name) ?? [];
    if (key === undefined || part === undefined)
      throw badPlan(source, `its array '${name}' is not called <key>/<step>/ and then scale, shift, tokens or move`);
    const rank = part === "move" ? 2 : 1;
    if (data.shape.length !== rank) throw badPlan(source, `its array '${name}' has ${data.shape.length} axes, where ${rank} are wanted`);
    const numbers = tensorNumbers(data);
    const ofKey = adjustments.get(key) ?? new Map<number, CellArrays>();
    adjustments.set(
      key,
      ofKey.set(Number(step), { ...ofKey.get(Number(step)), [part]: part === "tokens" ? numbers : Float32Array.from(numbers) }),
    );
  }
  return adjustments;
}

/** The arrays of adjustments; `parseAdjustments` reads them back. */
export function adjustmentArrays(adjustments: Adjustments): Arrays {
  const arrays = new Map<string, TensorData>();
  for (const [key, ofKey] of adjustments) {
    for (const [step, adjustment] of ofKey) {
      for (const part of PARTS) {
        const vector = adjustment[part];
        if (vector) arrays.set(`${key}/${step}/${part}`, tensorFrom("float", [vector.length], vector));
      }
      const { tokens, move } = adjustment;
      if (tokens) arrays.set(`${key}/${step}/tokens`, tensorOf("int64", [tokens.length], tokens));
      if (tokens && move) arrays.set(`${key}/${step}/move`, tensorFrom("float", [move.length / tokens.length, tokens.length], move));
    }
  }
  return arrays;
}

/** Throws BAD_ADJUSTMENT if the vectors are not finite or do not fit the number of the branch's channels, if that is known. */
export function assertFits(adjustment: Adjustment, { name, channels }: Pick<CachedBranch, "name" | "channels">, step: number): void {
  for (const part of PARTS) {
    const vector = adjustment[part];
    if (!vector) continue;
    if (channels !== undefined && vector.length !== channels)
      throw badAdjustment(name, step, `has a ${part} of ${vector.length} numbers, where the branch has ${channels} channels`);
    if (!vector.every(Number.isFinite)) throw badAdjustment(name, step, `has a ${part} that is not finite`);
  }
}
