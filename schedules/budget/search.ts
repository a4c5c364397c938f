/**
 * The search for the best plan with a given number of computed steps. It first chooses these steps, forecasting the others by a
 * polynomial; then compares the result with the best published plan; and if that is not better, fits closed-loop weights. Plans are
 * compared by the errors of their final latents.
 */
import { entryAt } from "../../ir/entries.js";
import { forecastRow, polynomial } from "../planning/forecast.js";
import type { Schedule } from "../plan.js";
import { computedShare, type Choice, type PolicyInput, type Runs } from "../policy.js";
import type { Compared, Measured } from "../predicted.js";
import { type Filling, fillings, FORECAST_ORDER, published, uniformWithin } from "./candidates.js";
import { closedLoop, type SharedRow, sharedBy } from "./closed-loop.js";
import { type Entry, errorOf, meanWithin, Trials } from "./selection.js";
import type { Sensitivity } from "./sensitivity.js";

/** The parameters of a search. */
export interface Search {
  readonly input: PolicyInput;
  readonly runs: Runs;
  /** Samples that coefficients are fitted to. */
  readonly fitted: readonly number[];
  /** Samples that no coefficient is fitted to: the reported error of a plan is measured on them. */
  readonly unseen: readonly number[];
  /** Where the network is cut for our own plans. Default: the cut of the recipe. */
  readonly cut: string | undefined;
  readonly fit: "none" | "closed-loop";
  readonly effects: Sensitivity;
  /** SmoothCache's plan for a share of the compute. */
  readonly smoothcache: (share: number) => Choice["cells"];
}

/** The best plan. Its error is measured on the unseen samples. */
export interface FoundPlan extends Measured {
  readonly name: string;
  readonly schedule: Schedule;
  /** All plans that were tried, by name. A plan that was dropped early has errors on fewer samples. */
  readonly compared: Readonly<Record<string, Compared>>;
}

/**
 * The number of samples that every comparison starts with.
 * Between samples, the ratio of the errors of two good plans varies by half of its value.
 */
const SCREENED = 4;

/** Our own kind of plan: a filling whose other steps are forecast. */
interface Forecast extends Entry {
  readonly shared: SharedRow;
}

/** The best plan that computes `fills` steps at most, and what it was compared with. */
export async function bestPlan(search: Search, fills: number): Promise<FoundPlan> {
  const { input, runs, unseen, cut, fit, effects } = search;
  const { samples } = runs;
  const candidates = fillings(input, fills, effects).map((filling) => forecastOf(input, filling, cut));
  // An upper estimate of the number of runs, for the progress. Each step of the fitting counts as a run.
  const work = SCREENED * candidates.length + 3 * samples.length + (fit === "none" ? 0 : input.steps);
  let done = 0;
  const onRun = (): void => {
    input.progress(Math.min(++done, work - 1), work);
  };
  const trials = new Trials(runs, onRun);
  const screened = samples.slice(0, SCREENED);
  const uniform = entryAt(candidates, 0);
  const likely = await trials.simplest(candidates, screened);
  const filled = likely === uniform ? likely : await trials.simplest([uniform, likely], samples);
  const known = await trials.best(publishedWithin(search, fills), screened);
  const isRival = entryAt(await trials.ranked([filled, known], screened), 0) === known;
  const taken = isRival ? await trials.simplest([filled, known], samples) : filled;
  const winner = taken === filled && fit !== "none" ? await withWeights(search, filled, onRun) : taken;
  const measured = await trials.measure(winner, unseen);
  input.progress(work, work);
  const errors = unseen.map((sample) => measured.get(sample) ?? NaN);
  const compared: Record<string, Compared> = {};
  for (const [{ name, schedule, isPublished }, errors] of trials.measured(unseen)) {
    const share = computedShare(input, schedule.cells);
    compared[name] = { share, isPublished, samples: errors.length, ...meanWithin(errors) };
  }
  return { name: winner.name, schedule: winner.schedule, ...meanWithin(errors), compared };
}

/** The plan with weights fitted along the run. It is not compared with the plan without them: ten samples cannot resolve the difference. */
async function withWeights({ input, runs, fitted }: Search, { name, shared }: Forecast, onRun: () => void): Promise<Entry> {
  return { name: `${name}; closed loop`, schedule: await closedLoop(input, runs, fitted, shared, onRun), isPublished: false };
}

/** The error of a uniform plan on one sample. */
export function quickError({ input, runs, unseen, cut }: Search, fills: number): Promise<number> {
  const uniform = { name: "uniform", computes: uniformWithin(input.steps, fills) };
  return errorOf(runs, entryAt(unseen, 0), forecastOf(input, uniform, cut).schedule);
}

/** The published methods for this number of computed steps, at the cut of the recipe. */
function publishedWithin({ input, smoothcache }: Search, fills: number): readonly Entry[] {
  const { steps } = input;
  const share = fills / steps;
  const smooth = smoothcache(share);
  const entries = [...published(input, fills)].map(([name, row]) => ({ name, schedule: sharedBy(input, { row }), isPublished: true }));
  const isWithin = computedShare(input, smooth) <= share + 0.5 / steps;
  return isWithin ? [...entries, { name: "smoothcache", schedule: { steps, cells: smooth }, isPublished: true }] : entries;
}

function forecastOf(input: PolicyInput, filling: Filling, cut: string | undefined): Forecast {
  const shared = { row: forecastRow(filling.computes, polynomial(FORECAST_ORDER), input.borders), cut };
  const name = cut === undefined ? filling.name : `${filling.name}; ${cut}`;
  return { name, schedule: sharedBy(input, shared), isPublished: false, shared };
}
