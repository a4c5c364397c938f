/**
 * LeMiCa (arXiv 2511.00090): the cost of reusing values between two computed steps is measured at the end of the run, in the final
 * latent. Of all schedules with the given number of computed steps, it takes the one whose worst segment costs least.
 */
import { z } from "zod";
import { policyNeedsModel } from "../diagnostics.js";
import { bestFills, budgetOf, LEXICOGRAPHIC_MAX } from "../planning/fills.js";
import { everywhere, type Policy, type PolicyInput, type Runs } from "../policy.js";

const options = z
  .object({
    fills: z.coerce.number().int().min(1).optional().describe("how many steps compute"),
    share: z.coerce.number().positive().max(1).optional().describe("share of the cacheable compute to keep"),
    k: z.coerce.number().int().min(1).default(6).describe("largest distance from a computed step to one that reuses it"),
    trials: z.coerce.number().int().min(1).default(1).describe("samples of the calibration that every segment is tried on"),
  })
  .refine(({ fills, share }) => (fills === undefined) !== (share === undefined), { message: "needs either fills or share" });

export default {
  name: "lemica",
  summary: "the steps to compute under a budget whose worst segment harms the result least",
  needs: ["runs"],
  options,
  async choose(input, { fills, share, k, trials }) {
    const { steps, sites, runs } = input;
    if (!runs) throw policyNeedsModel("lemica");
    // The published schedules compute both ends.
    const least = 1 + Math.ceil((steps - 1) / (k + 1));
    const budget = budgetOf("lemica", { fills, share }, steps, least);
    const errors = await segmentErrors(input, runs, k, trials);
    const path = bestFills({
      steps,
      fills: budget.fills,
      forced: new Set([0, steps - 1]),
      edge: (_, from, to) => (to - from === 1 ? 0 : (errors.get(segment(from, to)) ?? NaN)),
      order: LEXICOGRAPHIC_MAX,
    });
    if (!path) throw new Error(`internal: no path of ${budget.fills} fills through ${steps} steps`);
    const row = Array.from({ length: steps }, (_, step) => (path.includes(step) ? 1 : 0));
    return { cells: everywhere(sites, row), predicted: { worstSegment: worst(path, errors) }, warnings: budget.warnings };
  },
} satisfies Policy<typeof options>;

function segment(from: number, to: number): string {
  return `${from}-${to}`;
}

/**
 * For every two fills at most k + 1 apart:
 * the mean absolute difference of x₀ if only the steps between them are cached, mean over samples.
 */
async function segmentErrors(
  { steps, sites, progress }: PolicyInput,
  runs: Runs,
  k: number,
  trials: number,
): Promise<ReadonlyMap<string, number>> {
  const samples = runs.samples.slice(0, trials);
  const segments = Array.from({ length: steps }, (_, from) =>
    Array.from({ length: Math.max(0, Math.min(k, steps - 2 - from)) }, (_, i) => ({ from, to: from + 2 + i })),
  ).flat();
  const errors = new Map<string, number>();
  let done = 0;
  for (const sample of samples) {
    const exact = await runs.run(sample);
    for (const { from, to } of segments) {
      const row = Array.from({ length: steps }, (_, step) => (step > from && step < to ? 0 : 1));
      const cached = await runs.run(sample, { steps, cells: everywhere(sites, row) });
      const error = exact.reduce((sum, value, i) => sum + Math.abs((cached[i] ?? NaN) - value), 0) / exact.length;
      errors.set(segment(from, to), (errors.get(segment(from, to)) ?? 0) + error / samples.length);
      progress(++done, samples.length * segments.length);
    }
  }
  return errors;
}

function worst(path: readonly number[], errors: ReadonlyMap<string, number>): number {
  return Math.max(0, ...path.map((from, i) => errors.get(segment(from, path[i + 1] ?? from)) ?? 0));
}
