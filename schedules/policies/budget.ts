/**
 * Our own: the user names what a run may cost or how far its result may be off, and the plan is found. Candidates are made from the
 * calibration; the best of them gets coefficients that are fitted along the run; what is taken has the least error of the final
 * latent on samples that no coefficient has seen. Uniform Taylor series, FORA and SmoothCache are always among the candidates.
 */
import { z } from "zod";
import { policyNeedsModel } from "../../ir/diagnostics.js";
import { candidates, leastPathRow } from "../budget/candidates.js";
import { closedLoop } from "../budget/closed-loop.js";
import { errorOf, meanWithin, Trials, type Entry } from "../budget/selection.js";
import { sensitivity, type Sensitivity } from "../budget/sensitivity.js";
import { at } from "../levels.js";
import { computedShare, everywhere, statisticsOf, type Choice, type Policy, type PolicyInput, type Runs } from "../policy.js";
import smoothcache from "./smoothcache.js";

const SHARE = 0.35;

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
  .refine(({ share, speedup, maxError, latency }) => [share, speedup, maxError, latency].filter((one) => one !== undefined).length < 2, {
    message: "takes one of share, speedup, max-error and latency",
  });

/** Samples that coefficients are fitted to: more of them change little. */
const FITTED = 4;

/** Samples that plans are compared on. */
const COMPARED = 6;

/** Runs of fewer steps have nothing to forecast from. */
const LEAST_STEPS = 4;

/** Runs of at most so many steps have none to spare. */
const FEW_STEPS = 8;

export default {
  name: "budget",
  summary: "the plan with the least error under a budget, checked on runs of the model",
  needs: ["trace", "runs"],
  options,
  async choose(input, { maxError, fit, ...asked }) {
    const { steps, sites, runs } = input;
    if (!runs) throw policyNeedsModel("budget");
    if (steps < LEAST_STEPS) return { cells: everywhere(sites, new Array<1>(steps).fill(1)) };
    const { samples } = runs;
    const fitted = samples.slice(0, Math.min(FITTED, Math.ceil(samples.length / 2)));
    const unseen = samples.length > 1 ? samples.slice(fitted.length, fitted.length + COMPARED) : samples;
    const before = runs.evaluations();
    const search = { input, runs, fitted, unseen, fit, effects: await sensitivity(input, runs, at(samples, 0)) };
    const warnings = samples.length > 1 ? [] : ["With one sample a plan is checked on what it was fitted to."];
    let fills = steps - 1;
    if (steps <= FEW_STEPS) warnings.push(`A run of ${steps} steps has none to spare: one of them is cached, whatever the budget is.`);
    else fills = maxError === undefined ? await fillsFor(input, runs, asked) : await cheapestWithin(search, maxError);
    let found = await best(search, fills);
    while (maxError !== undefined && found.error > maxError && fills < steps - 1) found = await best(search, ++fills);
    if (maxError !== undefined && found.error > maxError)
      warnings.push(`Whatever is cached changes the result by more than ${maxError}: ${found.error.toPrecision(3)} at least.`);
    const { name, cells, ...measured } = found;
    return {
      cells,
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

interface Search {
  readonly input: PolicyInput;
  readonly runs: Runs;
  /** Samples that coefficients are fitted to. */
  readonly fitted: readonly number[];
  /** Samples that plans are compared on. */
  readonly unseen: readonly number[];
  readonly fit: "none" | "closed-loop";
  readonly effects: Sensitivity;
}

/** The best plan that computes `fills` steps, and what it was compared with. */
async function best(
  { input, runs, fitted, unseen, fit, effects }: Search,
  fills: number,
): Promise<{ name: string; cells: Choice["cells"]; error: number; interval?: number | undefined; compared: Record<string, unknown> }> {
  const { steps, sites } = input;
  const share = fills / steps;
  const made = candidates(input, fills, effects).map((candidate) => ({
    ...candidate,
    schedule: { steps, cells: everywhere(sites, candidate.row) },
  }));
  const lags = Math.min(...statisticsOf(sites).map(({ diff }) => diff.length));
  const k = Math.min(lags, Math.ceil(1 / share) + 2);
  const smooth = smoothcache.choose(input, smoothcache.options.parse({ share, k }));
  const known: Entry = { name: "smoothcache", schedule: { steps, cells: smooth.cells }, isPublished: true };
  const isWithin = computedShare(input, smooth.cells) <= share + 0.5 / steps;
  const tried = isWithin ? [...made, known] : made;
  // About so much work: two runs for each candidate, and the fitting, whose steps count as runs.
  const work = 2 * tried.length + (fit === "none" ? 0 : steps);
  let done = 0;
  const told = (): void => {
    input.progress(Math.min(++done, work - 1), work);
  };
  const trials = new Trials(runs, told);
  const left = await trials.finalists(tried, unseen);
  const entries = [...left];
  const promising = left.find(({ row }) => row);
  if (promising?.row && fit === "closed-loop") {
    const cells = await closedLoop(input, runs, fitted, promising.row, told);
    entries.push({ name: `${promising.name}; closed loop`, schedule: { steps, cells }, isPublished: false });
  }
  const ranked = await trials.ranked(entries, unseen);
  const compared: Record<string, unknown> = {};
  for (const entry of [...ranked, ...tried]) {
    const errors = [...(await trials.measure(entry, [])).values()];
    const { name, schedule, isPublished } = entry;
    compared[name] = { share: computedShare(input, schedule.cells), isPublished, samples: errors.length, ...meanWithin(errors) };
  }
  input.progress(work, work);
  const winner = at(ranked, 0);
  const errors = await trials.measure(winner, unseen);
  return { name: winner.name, cells: winner.schedule.cells, ...meanWithin([...errors.values()]), compared };
}

/** How many steps compute under what was asked for. */
async function fillsFor(
  { steps, cacheable }: PolicyInput,
  runs: Runs,
  { share, speedup, latency }: { share?: number | undefined; speedup?: number | undefined; latency?: string | undefined },
): Promise<number> {
  const times = latency === undefined ? speedup : (await runs.seconds()) / secondsOf(latency);
  const kept = times === undefined ? (share ?? SHARE) : 1 - (1 - 1 / Math.max(1, times)) / cacheable;
  return Math.min(steps - 1, Math.max(1, Math.floor(kept * steps + 1e-9)));
}

function secondsOf(text: string): number {
  return Number.parseFloat(text) / (text.endsWith("ms") ? 1000 : 1);
}

/** The fewest fills with which one good candidate stays within the error on the first of the samples, by bisection. */
async function cheapestWithin({ input, runs, unseen, effects }: Search, maxError: number): Promise<number> {
  const { steps, sites } = input;
  let [low, high] = [1, steps - 1];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const row = leastPathRow(input, middle, effects);
    const error = row ? await errorOf(runs, at(unseen, 0), { steps, cells: everywhere(sites, row) }) : Infinity;
    if (error <= maxError) high = middle;
    else low = middle + 1;
  }
  return low;
}
