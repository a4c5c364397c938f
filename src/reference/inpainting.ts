/** What a mask keeps of an original, as the oracle does it: number by number. */
import { entryAt } from "../../ir/entries.js";
import { tensorFloats } from "../../ir/tensor.js";
import { latentShape, levelsBehind, type Run, startLevel } from "../../schedules/index.js";
import type { RunInputs } from "../job/index.js";
import { valueAt } from "./feeds.js";

/** The latent that a run starts from. */
export function firstLatentOf({ table, original }: Run, { noise, conditions }: RunInputs): Float32Array {
  const level = original?.isStarted ? startLevel(table) : undefined;
  if (!original || !level) return noise.map((value) => value * table.initialScale);
  const image = tensorFloats(valueAt(original.image.halves.cond, 0, conditions));
  return noise.map((value, i) => level.signal * (image[i] ?? NaN) + level.noise * value);
}

/** The mask behind row `k`, a number for each of the latent; undefined if nothing is kept. */
export function maskAt(run: Run, k: number, { conditions }: Pick<RunInputs, "conditions">): Float64Array | undefined {
  if (!run.original?.mask) return undefined;
  const mask = valueAt(run.original.mask.halves.cond, k, conditions);
  const numbers = tensorFloats(mask);
  const shape = latentShape(run);
  const count = shape.reduce((product, size) => product * size, 1);
  return Float64Array.from({ length: count }, (_, i) => {
    let [rest, at, stride] = [i, 0, 1];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const [size, own] = [entryAt(shape, axis), entryAt(mask.shape, axis)];
      if (own > 1) at += (rest % size) * stride;
      rest = Math.floor(rest / size);
      stride *= own;
    }
    return numbers[at] ?? NaN;
  });
}

/** (1 − mask) · original + mask · next, with the original at the level of the latent behind row `k`. */
export function blended(run: Run, k: number, next: Float64Array, inputs: RunInputs): Float64Array {
  const mask = maskAt(run, k, inputs);
  const level = levelsBehind(run.table)?.[k];
  if (!run.original || !mask || !level) return next;
  const image = tensorFloats(valueAt(run.original.image.halves.cond, k, inputs.conditions));
  return next.map((value, i) => {
    const kept = level.signal * (image[i] ?? NaN) + level.noise * (inputs.noise[i] ?? NaN);
    return (1 - (mask[i] ?? NaN)) * kept + (mask[i] ?? NaN) * value;
  });
}
