/** Candidate schedules with a given number of computed steps: uniform ones, and paths of least expected error. */
import { entryAt } from "../../ir/entries.js";
import { bestFills, SUM } from "../planning/fills.js";
import { differenceSeries, forecastRow, polynomial } from "../planning/forecast.js";
import { uniformSteps } from "../planning/interval.js";
import type { ScheduleCell } from "../plan.js";
import { groupBranches, type PolicyInput, statisticsOf } from "../policy.js";
import { sumOfTerms, type Term } from "../sampler.js";
import { innerProduct, type SiteStatistics, squaredNorm } from "../planning/statistics.js";
import type { Sensitivity } from "./sensitivity.js";

/** A choice of computed steps, and the name of the method that chose them. */
export interface Filling {
  readonly name: string;
  readonly computes: readonly boolean[];
}

/** The order of the polynomials that forecast from computed steps. */
export const FORECAST_ORDER = 2;

/** Published methods with a uniform schedule: a row for all branches, by the name of the method. */
export function published({ steps, borders }: PolicyInput, fills: number): ReadonlyMap<string, readonly ScheduleCell[]> {
  const uniform = uniformWithin(steps, fills);
  const rows = [0, 1, 2].map((order): [string, readonly ScheduleCell[]] => {
    const series = differenceSeries(order, 1, (n, x) => x ** n);
    return [order === 0 ? "fora" : `taylorseer, order ${order}`, forecastRow(uniform, series, borders)];
  });
  return new Map(rows);
}

/**
 * Exponents of the sensitivity in the cost of a path.
 * With 1, an error counts by its effect on the result; smaller exponents weigh all steps more equally.
 */
const POWERS = [0.25, 1];

/** The uniform filling, the one with two gap lengths, and the paths of least expected error, without duplicates. */
export function fillings(input: PolicyInput, fills: number, sensitivity: Sensitivity): readonly Filling[] {
  const { steps } = input;
  const paths = POWERS.map((power) => ({ name: `path, sensitivity^${power}`, computes: leastPath(input, fills, sensitivity, power) }));
  const found: Filling[] = [{ name: "uniform", computes: uniformWithin(steps, fills) }];
  for (const { name, computes } of [{ name: "two gaps", computes: twoGaps(steps, fills) }, ...paths]) {
    const isNew = computes && !found.some((other) => other.computes.join() === computes.join());
    if (isNew) found.push({ name, computes });
  }
  return found;
}

/**
 * A filling from the first step to the last with two gap lengths that differ by 1, the longer ones first. It uses exactly the given
 * number of fills and changes the spacing only once, as every change makes forecasts worse.
 */
export function twoGaps(steps: number, fills: number): readonly boolean[] {
  const shorter = Math.floor((steps - 1) / Math.max(1, fills - 1));
  const longer = steps - 1 - shorter * (fills - 1);
  const computed = new Set(Array.from({ length: fills }, (_, i) => i * shorter + Math.min(i, longer)));
  return Array.from({ length: steps }, (_, step) => computed.has(step));
}

/**
 * Every n-th step and the last one, as published methods do, with the shortest interval that fits the number of fills. Fills that are
 * left over extend the warm-up.
 */
export function uniformWithin(steps: number, fills: number): readonly boolean[] {
  for (let interval = 1; ; interval++) {
    const rows = Array.from({ length: fills }, (_, i) => uniformSteps(steps, { interval, warmup: fills - i, phase: "smoothcache" }));
    const row = rows.find((computes) => computes.filter(Boolean).length <= fills);
    if (row) return row;
    if (interval >= steps) return Array.from({ length: steps }, (_, k) => k < fills);
  }
}

/**
 * The fills with the least sum of squared expected errors. The relative errors of forecasts, weighted by a power of the sensitivity, are
 * added up as vectors between one fill and the next, as errors of neighbouring steps point in the same direction; then squared.
 * Undefined if the calibration does not look back far enough.
 */
export function leastPath(
  { steps, sites, borders = [] }: PolicyInput,
  fills: number,
  sensitivity: Sensitivity,
  power: number,
): readonly boolean[] | undefined {
  const groups = groupBranches(sites).map(({ key, sites: members }) => ({ key, pooled: pooled(statisticsOf(members)) }));
  const longest = Math.ceil((LONGEST_GAP * steps) / fills) + 1;
  const costs = new Map<number, number>();
  const cost = (before: number | undefined, from: number, to: number): number => {
    const nodes = [from, ...(before === undefined ? [] : [before, 2 * before - from])].filter((node) => node >= 0);
    return groups.reduce((sum, { key, pooled }) => {
      const errors = Array.from({ length: to - from - 1 }, (_, i): { readonly weight: number; readonly terms: readonly Term[] } => {
        const step = from + 1 + i;
        const weight = entryAt(sensitivity.get(key) ?? [], step) ** power / Math.sqrt(innerProduct(pooled, step, step));
        return { weight, terms: [{ step, weight: -1 }, ...polynomial(FORECAST_ORDER)(step, nodes)] };
      });
      return sum + squaredNorm(pooled, sumOfTerms(errors));
    }, 0);
  };
  const edge = (before: number | undefined, from: number, to: number): number => {
    if (to - from > longest || from - (before ?? from) > longest) return NaN;
    const key = (from * steps + (before ?? from)) * (steps + 1) + to;
    const known = costs.get(key) ?? cost(before, from, to);
    costs.set(key, known);
    return known;
  };
  const path = bestFills({ steps, fills, forced: new Set([0, ...borders.filter((border) => border < steps)]), edge, order: SUM });
  return path && Array.from({ length: steps }, (_, step) => path.includes(step));
}

/** The longest gap that is tried, as a multiple of the mean gap. */
const LONGEST_GAP = 2.5;

/** The inner products of several branches, added up after scaling each branch to the same total energy. */
function pooled(sites: readonly SiteStatistics[]): Pick<SiteStatistics, "gram"> {
  const lags = Math.min(...sites.map(({ gram }) => gram.length));
  const steps = sites[0]?.norm.length ?? 0;
  const sizes = sites.map(({ gram }) => entryAt(gram, 0).reduce((sum, value) => sum + value, 0));
  const entry = (lag: number, step: number): number =>
    sites.reduce((sum, { gram }, i) => sum + entryAt(entryAt(gram, lag), step) / entryAt(sizes, i), 0);
  return { gram: Array.from({ length: lags }, (_, lag) => Array.from({ length: steps }, (_, step) => entry(lag, step))) };
}
