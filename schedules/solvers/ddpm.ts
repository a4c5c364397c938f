/** Steps of ancestral sampling: the mean of the posterior of the next latent, and noise of its variance (arXiv 2006.11239). */
import { entryAt } from "../../ir/entries.js";
import { clampedStep, type Clamping } from "./clipping.js";
import { levelOfBar, noiseLevel, sampleOf } from "./levels.js";
import type { Prediction, Row } from "../sampler.js";

/** The posterior's own variance, or β: the bounds of what it can be (section 3.2). `_log` is another way to the same value. */
export const fixedVariances = ["fixed_small", "fixed_small_log", "fixed_large"] as const;

export interface AncestralRun {
  /** The times that the model gets, in sampling order. */
  readonly times: readonly number[];
  /** alphaBar, the share of signal, at each of these times; the run ends at 1. */
  readonly bars: readonly number[];
  readonly variance: (typeof fixedVariances)[number] | "learned_range";
  readonly prediction: Exclude<Prediction, "flow">;
  readonly clamping: Clamping;
}

/** One row a time: eq. 7 for the mean, and for a learned variance arXiv 2102.09672, eq. 15. No noise is drawn at time 0. */
export function ddpmRows({ times, bars, variance, prediction, clamping }: AncestralRun): readonly Row[] {
  return times.map((time, k): Row => {
    const bar = entryAt(bars, k);
    const nextBar = bars[k + 1] ?? 1;
    const alpha = bar / nextBar;
    const beta = 1 - alpha;
    const least = Math.max(((1 - nextBar) / (1 - bar)) * beta, 1e-20);
    const weights = {
      x: (Math.sqrt(alpha) * (1 - nextBar)) / (1 - bar),
      sample: (Math.sqrt(nextBar) * beta) / (1 - bar),
      out: 0,
      noise: time === 0 ? 0 : variance === "learned_range" ? 1 : Math.sqrt(variance === "fixed_large" ? beta : least),
    };
    const { m, next } = clampedStep(clamping, { k, sample: sampleOf(prediction, levelOfBar(bar)), weights });
    const learned = variance === "learned_range" && time > 0 ? { learned: { min: Math.log(least), max: Math.log(beta) } } : {};
    return { timestep: time, level: noiseLevel(levelOfBar(bar)), inputScale: 1, m, next: { ...next, ...learned } };
  });
}
