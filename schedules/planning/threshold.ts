/** Rules that reuse a value until an error passes a threshold, and the search for the threshold at which they compute a given share. */
import { type Choice, computedShare, type PolicyInput } from "../policy.js";

/** Step by step, whether a branch computes (1) or reuses (0). */
export type StepMask = (0 | 1)[];

/** Computes a step unless `mayReuse` allows it to reuse the last computed step, `filled`. The first step has nothing to reuse. */
export function reuseWhile(steps: number, mayReuse: (step: number, filled: number) => boolean): StepMask {
  let filled = 0;
  return Array.from({ length: steps }, (_, step) => {
    if (step > 0 && mayReuse(step, filled)) return 0;
    filled = step;
    return 1;
  });
}

/** The most thresholds that are tried; more would differ too little. */
const MOST_THRESHOLDS = 1000;

/**
 * Rising thresholds: one below all errors, one between each two neighbouring errors, and one above all. They give every plan that a rule
 * with one threshold can make. If there are too many, they are thinned out evenly.
 */
export function thresholdsBetween(errors: readonly number[]): readonly number[] {
  const rising = [0, ...new Set(errors.filter((error) => error > 0).sort((a, b) => a - b))];
  const between = rising.map((error, i) => (error + (rising[i + 1] ?? 2 * error + 1)) / 2);
  const stride = Math.ceil(between.length / MOST_THRESHOLDS);
  return between.filter((_, i) => i % stride === 0 || i === between.length - 1);
}

/**
 * The plan whose computed share of the cacheable compute is closest to `share`; of two equally close ones, the one that computes more.
 * `predicted` holds its threshold under the name of the option.
 */
export function nearestToShare(
  input: PolicyInput,
  share: number,
  option: string,
  thresholds: readonly number[],
  cellsAt: (threshold: number) => Choice["cells"],
): Choice {
  let best: { readonly threshold: number; readonly cells: Choice["cells"]; readonly reached: number } | undefined;
  for (const threshold of thresholds) {
    const cells = cellsAt(threshold);
    const reached = computedShare(input, cells);
    if (!best || Math.abs(reached - share) < Math.abs(best.reached - share)) best = { threshold, cells, reached };
  }
  if (!best) throw new Error("internal: there is no threshold to try");
  const { threshold, cells, reached } = best;
  return { cells, predicted: { [option]: threshold }, warnings: missedShare(input.steps, share, reached) };
}

/** A warning if a plan computes another share than was asked for. */
export function missedShare(steps: number, share: number, reached: number): readonly string[] {
  if (Math.abs(reached - share) <= 1 / steps) return [];
  return [`A share of ${share} cannot be reached with these errors and distances; the nearest is ${reached.toFixed(3)}.`];
}
