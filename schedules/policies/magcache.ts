/**
 * MagCache (arXiv 2506.09045): a value is reused while its magnitude stays close to that of the value that would be computed. The ratio
 * γ of the two hardly depends on the prompt. One ratio decides for all branches. In the paper it is that of what all blocks add to the
 * stream, the only branch under `--cut stack`; under other cuts it is the mean over branches.
 */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { parseWith } from "../parse-with.js";
import { everywhere, type Policy, type PolicyInput, statisticsOf } from "../policy.js";
import { roundHalfEven } from "../solvers/spacing.js";
import { nearestToShare, reuseWhile, type StepMask, thresholdsBetween } from "../planning/threshold.js";

/** The default of diffusers (`hooks/mag_cache.py`), for FLUX. */
const DELTA = 0.06;

const options = z
  .object({
    delta: z.coerce.number().positive().optional().describe(`largest accumulated error of reuse; ${DELTA} if absent`),
    share: z.coerce.number().positive().max(1).optional().describe("share of the cacheable compute to keep: finds delta"),
    k: z.coerce.number().int().min(1).default(3).describe("largest distance from a computed step to one that reuses it"),
    retention: z.coerce.number().min(0).max(1).default(0.2).describe("share of the steps, from the first on, that all compute"),
    ratios: z
      .string()
      .optional()
      .describe("a JSON list of ratios, one a step, in place of the trace's; of another number of steps the nearest are taken"),
  })
  .refine(({ delta, share }) => delta === undefined || share === undefined, { message: "takes delta or share, not both" });

export default {
  name: "magcache",
  summary: "reuse while magnitudes change little",
  needs: ({ ratios }) => (ratios === undefined ? ["trace"] : []),
  options,
  choose(input, { delta = DELTA, share, k, retention, ratios }) {
    const { steps, sites } = input;
    const gamma = ratios === undefined ? measuredRatios(input) : givenRatios(input, ratios);
    const first = Math.floor(retention * steps + 0.5);
    const errorOf = accumulatedErrors(gamma);
    const rowAt = (threshold: number): StepMask =>
      reuseWhile(steps, (step, filled) => step >= first && step - filled <= k && errorOf(step, filled) <= threshold);
    if (share === undefined) return { cells: everywhere(sites, rowAt(delta)) };
    const errors = gamma.flatMap((_, filled) =>
      Array.from({ length: Math.min(k, steps - 1 - filled) }, (_, i) => errorOf(filled + 1 + i, filled)),
    );
    return nearestToShare(input, share, "delta", thresholdsBetween(errors), (threshold) => everywhere(sites, rowAt(threshold)));
  },
} satisfies Policy<typeof options>;

/** γ (eq. 3) of every step, mean over samples and branches; 1 at the first step. */
function measuredRatios({ steps, sites }: PolicyInput): readonly number[] {
  const measured = statisticsOf(sites);
  const ratioAt = (step: number): number =>
    measured.reduce((sum, { gain, ratio }) => sum + entryAt(gain, step) / ratio.length, 0) / measured.length;
  return Array.from({ length: steps }, (_, step) => (step === 0 ? 1 : ratioAt(step)));
}

/**
 * For every step, the nearest of the ratios in a file, as in diffusers' `nearest_interp`. Throws FILE_MISSING, BAD_JSON, BAD_JSON_FIELD.
 */
function givenRatios({ steps, readJson }: PolicyInput, file: string): readonly number[] {
  const ratios = parseWith(z.array(z.number().positive()).min(1), readJson(file), file);
  // In float32, as there: rounding can decide which of two is nearest.
  const scale = Math.fround((ratios.length - 1) / (steps - 1));
  const nearest = (step: number): number => (steps === 1 ? ratios.length - 1 : roundHalfEven(Math.fround(step * scale)));
  return Array.from({ length: steps }, (_, step) => entryAt(ratios, nearest(step)));
}

/** The error of reusing at `step` the value of `filled`: Σ |1 − Π γ| over the steps after `filled` up to `step`. */
function accumulatedErrors(gamma: readonly number[]): (step: number, filled: number) => number {
  return (step, filled) => {
    let product = 1;
    let error = 0;
    for (const ratio of gamma.slice(filled + 1, step + 1)) {
      product *= ratio;
      error += Math.abs(1 - product);
    }
    return error;
  };
}
