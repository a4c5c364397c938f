/** Rules that reuse a value until an error passes a threshold, and the threshold at which they compute a given share. */
import { type Choice, computedShare, type PolicyInput } from "../policy.js";

/** Step by step, whether a branch computes (1) or reuses (0). */
export type StepMask = (0 | 1)[];

/** Walks the steps; each may reuse what was last computed, at `filled`, or computes. The first has nothing to reuse. */
export function reuseWhile(steps: number, mayReuse: (step: number, filled: number) => boolean): StepMask {
  let filled = 0;
  return Array.from({ length: steps }, (_, step) => {
    if (step > 0 && mayReuse(step, filled)) return 0;
    filled = step;
    return 1;
  });
}

/** More thresholds than this differ too little to be tried one by one. */
const MOST_THRESHOLDS = 1000;

/**
 * One threshold below all errors, between any two that follow each other, and above all, in rising order: at these every plan of
 * a rule that compares errors with one threshold is found. Where there are very many errors, some are left out, evenly.
 */
export function thresholdsBetween(errors: readonly number[]): readonly number[] {
  const rising = [0, ...new Set(errors.filter((error) => error > 0).sort((a, b) => a - b))];
  const between = rising.map((error, i) => (error + (rising[i + 1] ?? 2 * error + 1)) / 2);
  const stride = Math.ceil(between.length / MOST_THRESHOLDS);
  return between.filter((_, i) => i % stride === 0 || i === between.length - 1);
}

/**
 * The plan that computes nearest to `share` of the cacheable compute, the more careful of two that are equally near, and its
 * threshold as `predicted` under the option's name.
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

/** A sentence for the user, if a plan computes another share than was asked for. */
export function missedShare(steps: number, share: number, reached: number): readonly string[] {
  if (Math.abs(reached - share) <= 1 / steps) return [];
  return [`A share of ${share} cannot be reached with these errors and distances; the nearest is ${reached.toFixed(3)}.`];
}
