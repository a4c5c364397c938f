/** Schedules of a given number of computed steps that may be good: uniform ones, and paths of least expected error. */
import { bestFills, SUM } from "../fills.js";
import { differenceSeries, forecastRow, polynomial } from "../forecast.js";
import { uniformSteps } from "../interval.js";
import { at } from "../levels.js";
import type { ScheduleCell } from "../plan.js";
import { groupBranches, statisticsOf, type PolicyInput } from "../policy.js";
import { sumOfTerms, type Term } from "../sampler.js";
import { innerProduct, squaredNorm, type SiteStatistics } from "../statistics.js";
import type { Sensitivity } from "./sensitivity.js";

/** A row for all branches. */
export interface Candidate {
  readonly name: string;
  readonly row: readonly ScheduleCell[];
  /** Whether the literature has it. */
  readonly isPublished: boolean;
}

/** What the values of computed steps are continued by. */
const ORDER = 2;

/** Exponents of the sensitivity in the cost of an error: 0 takes all steps for equally important, 1 each for what it does to the result. */
const POWERS = [0, 0.25, 0.5];

/** Uniform schedules with what is published for them, and the paths of a family with two parameters: exponent, and how errors add up. */
export function candidates(input: PolicyInput, fills: number, sensitivity: Sensitivity): readonly Candidate[] {
  const found: Candidate[] = [];
  const add = (name: string, row: readonly ScheduleCell[], isPublished = false): void => {
    if (!found.some((other) => JSON.stringify(other.row) === JSON.stringify(row))) found.push({ name, row, isPublished });
  };
  const uniform = uniformWithin(input.steps, fills);
  for (const order of [0, 1, 2]) {
    const series = differenceSeries(order, 1, (n, x) => x ** n);
    add(order === 0 ? "fora" : `taylorseer, order ${order}`, forecastRow(uniform, series), true);
  }
  add("uniform, polynomial", forecastRow(uniform, polynomial(ORDER)));
  for (const adds of ["alone", "along gaps"] as const) {
    for (const power of POWERS) {
      const row = leastPathRow(input, fills, sensitivity, power, adds);
      if (row) add(`path, errors ${adds}, sensitivity^${power}`, row);
    }
  }
  return found;
}

/** Every n-th step and the last, as published, for the shortest interval that is within the number; what is left over computes at the start. */
function uniformWithin(steps: number, fills: number): readonly boolean[] {
  for (let interval = 1; ; interval++) {
    const rows = Array.from({ length: fills }, (_, i) => uniformSteps(steps, { interval, warmup: fills - i, phase: "smoothcache" }));
    const row = rows.find((computes) => computes.filter(Boolean).length <= fills);
    if (row) return row;
    if (interval >= steps) return Array.from({ length: steps }, (_, k) => k < fills);
  }
}

/** How the errors of a path's cells add up: each by itself, or as vectors from one computed step to the next, as those of neighbours point the same way. */
type Sum = "alone" | "along gaps";

/** The row of the path with the least expected error; undefined where the calibration does not look back far enough. */
export function leastPathRow(
  input: PolicyInput,
  fills: number,
  sensitivity: Sensitivity,
  power = 0.25,
  adds: Sum = "alone",
): readonly ScheduleCell[] | undefined {
  const path = leastPath(input, fills, (key, step) => at(sensitivity.get(key) ?? [], step) ** power, adds);
  return path && forecastRow(path, polynomial(ORDER));
}

/** The steps to compute so that the sum of squared relative forecast errors is least, each weighted by its step. */
function leastPath(
  { steps, sites }: PolicyInput,
  fills: number,
  weightOf: (key: string, step: number) => number,
  adds: Sum,
): readonly boolean[] | undefined {
  const groups = groupBranches(sites).map(({ key, sites: members }) => ({ key, pooled: pooled(statisticsOf(members)) }));
  const longest = Math.ceil((LONGEST_GAP * steps) / fills) + 1;
  const costs = new Map<number, number>();
  const cost = (before: number | undefined, from: number, to: number): number => {
    const nodes = [from, ...(before === undefined ? [] : [before, 2 * before - from])].filter((node) => node >= 0);
    return groups.reduce((sum, { key, pooled }) => {
      const errors = Array.from({ length: to - from - 1 }, (_, i): { readonly weight: number; readonly terms: readonly Term[] } => {
        const step = from + 1 + i;
        const weight = weightOf(key, step) / Math.sqrt(innerProduct(pooled, step, step));
        return { weight, terms: [{ step, weight: -1 }, ...polynomial(ORDER)(step, nodes)] };
      });
      const vectors = adds === "alone" ? errors.map((error) => [error]) : [errors];
      return vectors.reduce((total, vector) => total + squaredNorm(pooled, sumOfTerms(vector)), sum);
    }, 0);
  };
  const edge = (before: number | undefined, from: number, to: number): number => {
    if (to - from > longest || from - (before ?? from) > longest) return NaN;
    const key = (from * steps + (before ?? from)) * (steps + 1) + to;
    const known = costs.get(key) ?? cost(before, from, to);
    costs.set(key, known);
    return known;
  };
  const path = bestFills({ steps, fills, forced: new Set([0]), edge, order: SUM });
  return path && Array.from({ length: steps }, (_, step) => path.includes(step));
}

/** The longest gap that is tried, in mean gaps. */
const LONGEST_GAP = 2.5;

/** Inner products of several branches at once, each as large as the others on the whole. */
function pooled(sites: readonly SiteStatistics[]): Pick<SiteStatistics, "gram"> {
  const lags = Math.min(...sites.map(({ gram }) => gram.length));
  const steps = sites[0]?.norm.length ?? 0;
  const sizes = sites.map(({ gram }) => at(gram, 0).reduce((sum, value) => sum + value, 0));
  const entry = (lag: number, step: number): number => sites.reduce((sum, { gram }, i) => sum + at(at(gram, lag), step) / at(sizes, i), 0);
  return { gram: Array.from({ length: lags }, (_, lag) => Array.from({ length: steps }, (_, step) => entry(lag, step))) };
}
