/**
 * The search for a plan that computes a given number of steps: which steps, with the others forecast in one way; then at which cut they
 * are forecast, by a polynomial or with closed-loop weights. Each is judged by the errors of final latents.
 */
import { forecastRow, polynomial } from "../forecast.js";
import { at } from "../levels.js";
import type { Schedule } from "../plan.js";
import { computedShare, statisticsOf, type PolicyInput, type Runs } from "../policy.js";
import smoothcache from "../policies/smoothcache.js";
import { fillings, ORDER, published, uniformWithin, type Filling } from "./candidates.js";
import { closedLoop, sharedBy, type Shared } from "./closed-loop.js";
import { errorOf, meanWithin, Trials, type Entry } from "./selection.js";
import type { Sensitivity } from "./sensitivity.js";

/** What a search goes by. */
export interface Search {
  readonly input: PolicyInput;
  readonly runs: Runs;
  /** Samples that coefficients are fitted to. */
  readonly fitted: readonly number[];
  /** Samples that plans are compared on. */
  readonly unseen: readonly number[];
  /** Where the network may be cut, the coarsest place last: what is screened is cached there, as that costs least. */
  readonly cuts: readonly (string | undefined)[];
  readonly fit: "none" | "closed-loop";
  readonly effects: Sensitivity;
}

export interface Found {
  readonly name: string;
  readonly schedule: Schedule;
  /** Relative L2 of the final latent on the unseen samples, with the half-width of its 95 % confidence interval. */
  readonly error: number;
  readonly interval?: number | undefined;
  /** The same of all that was tried, by name. */
  readonly compared: Readonly<Record<string, unknown>>;
}

/** Samples that fillings are compared on. Between two good plans the ratio of their errors varies from one sample to the next by half of itself. */
const SCREENED = 4;

/** A plan of our own: a filling, forecast in one way. */
interface Forecast extends Entry {
  readonly filling: Filling;
  readonly shared: Shared;
}

/** The best plan that computes `fills` steps at most, and what it was compared with. */
export async function bestPlan(search: Search, fills: number): Promise<Found> {
  const { input, runs, fitted, unseen, cuts, fit, effects } = search;
  const isFitted = fit !== "none";
  const fillable = fillings(input, fills, effects);
  // About so many runs, and the fitting, whose steps count as runs.
  const work = SCREENED * fillable.length + 2 * unseen.length * (cuts.length + 1) + (isFitted ? cuts.length * input.steps : 0);
  let done = 0;
  const told = (): void => {
    input.progress(Math.min(++done, work - 1), work);
  };
  const trials = new Trials(runs, told);
  const known = await trials.best(publishedWithin(input, fills), unseen);
  const screened = fillable.map((filling) => forecast(input, filling, cuts.at(-1)));
  const filled = at(await trials.ranked(screened, unseen.slice(0, SCREENED)), 0);
  const entries: Entry[] = [known];
  for (const cut of cuts) {
    const form = cut === filled.shared.cut ? filled : forecast(input, filled.filling, cut);
    entries.push(form);
    if (!isFitted) continue;
    const schedule = await closedLoop(input, runs, fitted, form.shared, told);
    entries.push({ name: `${form.name}; closed loop`, schedule, isPublished: false });
  }
  const winner = at(await trials.ranked(entries, unseen), 0);
  input.progress(work, work);
  const compared: Record<string, unknown> = {};
  for (const [{ name, schedule, isPublished }, errors] of trials.measured()) {
    const share = computedShare(input, schedule.cells);
    compared[name] = { share, isPublished, samples: errors.length, ...meanWithin(errors) };
  }
  const errors = [...(await trials.measure(winner, unseen)).values()];
  return { name: winner.name, schedule: winner.schedule, ...meanWithin(errors), compared };
}

/** The error of a uniform plan on one sample. */
export function quickError({ input, runs, unseen, cuts }: Search, fills: number): Promise<number> {
  const uniform = { name: "uniform", computes: uniformWithin(input.steps, fills) };
  return errorOf(runs, at(unseen, 0), forecast(input, uniform, cuts.at(-1)).schedule);
}

/** What the literature has for so many computed steps, where the recipe cuts the network. */
function publishedWithin(input: PolicyInput, fills: number): readonly Entry[] {
  const { steps, sites } = input;
  const share = fills / steps;
  const lags = Math.min(...statisticsOf(sites).map(({ diff }) => diff.length));
  const k = Math.min(lags, Math.ceil(1 / share) + 2);
  const smooth = smoothcache.choose(input, smoothcache.options.parse({ share, k }));
  const entries = [...published(input, fills)].map(([name, row]) => ({ name, schedule: sharedBy(input, { row }), isPublished: true }));
  const isWithin = computedShare(input, smooth.cells) <= share + 0.5 / steps;
  return isWithin ? [...entries, { name: "smoothcache", schedule: { steps, cells: smooth.cells }, isPublished: true }] : entries;
}

function forecast(input: PolicyInput, filling: Filling, cut: string | undefined): Forecast {
  const shared = { row: forecastRow(filling.computes, polynomial(ORDER)), cut };
  const name = cut === undefined ? filling.name : `${filling.name}; ${cut}`;
  return { name, schedule: sharedBy(input, shared), isPublished: false, filling, shared };
}
