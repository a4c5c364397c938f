/**
 * Our own policy: the user gives a budget, either of compute or of error, and the policy searches for the best plan within it. It makes
 * candidates from the calibration and compares the best of them with uniform Taylor series, FORA and SmoothCache by the error of the
 * final latent. If its own plan is better, it fits coefficients along the run. The reported error is measured on samples that no
 * coefficient was fitted to.
 */
import { z } from "zod";
import { policyNeedsModel } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { bestPlan, quickError, type Search } from "../budget/search.js";
import smoothcache from "./smoothcache.js";
import { sensitivity } from "../budget/sensitivity.js";
import { everywhere, statisticsOf, type Choice, type Policy, type PolicyInput, type Runs } from "../policy.js";

const SHARE = 0.35;

const BUDGETS = ["share", "speedup", "maxError", "latency"] as const;

const options = z
  .object({
    share: z.coerce.number().positive().max(1).optional().describe(`share of the cacheable compute to keep; ${SHARE} if nothing is asked`),
    speedup: z.coerce.number().min(1).optional().describe("how many times fewer MACs the run is to take"),
    maxError: z.coerce
      .number()
      .positive()
      .optional()
      .describe("largest relative L2 error of the final latent on the calibration's samples: finds the cheapest plan"),
    latency: z
      .string()
      .regex(/^\d+(\.\d+)?m?s$/, "takes a time such as 800ms or 2.5s")
      .optional()
      .describe("how long a run may take, against the time of one without caching on this machine"),
    fit: z
      .enum(["none", "closed-loop"])
      .default("closed-loop")
      .describe("whether forecasts get weights that are fitted along runs of the model"),
  })
  .refine((given) => BUDGETS.filter((name) => given[name] !== undefined).length < 2, {
    message: "takes one of share, speedup, max-error and latency",
  });

/** The number of samples that coefficients are fitted to; more would change little. */
const FITTED = 4;

/** A run with fewer steps has nothing to forecast from. */
const LEAST_STEPS = 4;

/** In runs of at most this many steps only one is cached, whatever the budget. */
const TOO_SHORT_TO_SPARE = 8;

export default {
  name: "budget",
  summary: "the plan with the least error under a budget, checked on runs of the model",
  needs: ["trace", "runs"],
  options,
  budgets: BUDGETS,
  async choose(input, { maxError, fit, ...asked }) {
    const { steps, sites, runs } = input;
    if (!runs) throw policyNeedsModel("budget");
    if (steps < LEAST_STEPS) return { cells: everywhere(sites, new Array<1>(steps).fill(1)) };
    const { samples } = runs;
    const fitted = samples.slice(0, Math.min(FITTED, Math.ceil(samples.length / 2)));
    const unseen = samples.length > 1 ? samples.slice(fitted.length) : samples;
    const before = runs.evaluations();
    const cut = !isCoarse(input) && (await runs.fits(COARSE)) ? COARSE : undefined;
    const search = {
      input,
      runs,
      fitted,
      unseen,
      cut,
      fit,
      effects: await sensitivity(input, runs, entryAt(samples, 0)),
      smoothcache: (share: number) => smoothcacheWithin(input, share),
    };
    const warnings = samples.length > 1 ? [] : ["With one sample a plan is checked on what it was fitted to."];
    let fills = steps - 1;
    if (steps <= TOO_SHORT_TO_SPARE)
      warnings.push(`A run of ${steps} steps has none to spare: one of them is cached, whatever the budget is.`);
    else fills = maxError === undefined ? await fillsFor(input, runs, asked) : await cheapestWithin(search, maxError);
    let found = await bestPlan(search, fills);
    while (maxError !== undefined && found.error > maxError && fills < steps - 1) found = await bestPlan(search, ++fills);
    if (maxError !== undefined && found.error > maxError)
      warnings.push(`Whatever is cached changes the result by more than ${maxError}: ${found.error.toPrecision(3)} at least.`);
    const { name, schedule, ...measured } = found;
    return {
      cut: schedule.cut,
      cells: schedule.cells,
      predicted: {
        candidate: name,
        ...measured,
        evaluations: Math.ceil(runs.evaluations() - before),
        sensitivity: Object.fromEntries(search.effects),
      },
      warnings,
    };
  },
} satisfies Policy<typeof options>;

/** The number of computed steps that a budget of compute allows. */
async function fillsFor(
  { steps, cacheable, borders = [] }: PolicyInput,
  runs: Runs,
  { share, speedup, latency }: { share?: number | undefined; speedup?: number | undefined; latency?: string | undefined },
): Promise<number> {
  const times = latency === undefined ? speedup : (await runs.seconds()) / secondsOf(latency);
  const kept = times === undefined ? (share ?? SHARE) : 1 - (1 - 1 / Math.max(1, times)) / cacheable;
  // At a border a step computes that a schedule may not have counted.
  return Math.min(steps - 1, Math.max(1, Math.floor(kept * steps + 1e-9) - borders.length));
}

function secondsOf(text: string): number {
  return Number.parseFloat(text) / (text.endsWith("ms") ? 1000 : 1);
}

/** The fewest fills with which a uniform plan stays within the error on one sample, by bisection. */
async function cheapestWithin(search: Search, maxError: number): Promise<number> {
  let [low, high] = [1, search.input.steps - 1];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if ((await quickError(search, middle)) <= maxError) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** SmoothCache's plan for a share of the compute. It may reuse a value for a few more steps than the share requires. */
function smoothcacheWithin(input: PolicyInput, share: number): Choice["cells"] {
  const lags = Math.min(...statisticsOf(input.sites).map(({ diff }) => diff.length));
  const k = Math.min(lags, Math.ceil(1 / share) + 2);
  return smoothcache.choose(input, smoothcache.options.parse({ share, k })).cells;
}

/** The cut around all blocks, where a forecast costs almost nothing. */
const COARSE = "stack";

/** Whether the recipe's cut caches whole blocks. */
function isCoarse({ sites }: PolicyInput): boolean {
  return sites.every(({ kind }) => kind === "block");
}
