/**
 * DPCache (arXiv 2602.22654): the steps that compute are a path through the run; what lies between two of them is forecast from
 * the last two, and the path with the least sum of forecast errors is found by dynamic programming.
 *
 * This differs from the paper in two ways. The paper's error is the L1 distance of the last layer's features; here it is the relative
 * L2 error, mean over branches, which follows from inner products (with `--cut stack` there is one branch, the input of the last layer).
 * The paper's recursion keeps one path for each last fill; here one is kept for each pair of last fills, as the cost depends on both.
 */
import { z } from "zod";
import { badCurves } from "../diagnostics.js";
import { bestFills, budgetOf, SUM } from "../planning/fills.js";
import { difference } from "../planning/forecast.js";
import { everywhere, type Policy, statisticsOf } from "../policy.js";
import { cellOf, type ScheduleCell } from "../plan.js";
import { placeAt } from "../run.js";
import { sumOfTerms, type Term } from "../sampler.js";
import { forecastError, type SiteStatistics } from "../planning/statistics.js";

const options = z
  .object({
    fills: z.coerce.number().int().min(1).optional().describe("how many steps compute"),
    share: z.coerce.number().positive().max(1).optional().describe("share of the cacheable compute to keep"),
    warmup: z.coerce.number().int().min(1).default(3).describe("compute all of the first n steps"),
  })
  .refine(({ fills, share }) => (fills === undefined) !== (share === undefined), { message: "needs either fills or share" });

export default {
  name: "dpcache",
  summary: "the best steps to compute under a budget, with linear forecasts between them",
  needs: ["trace"],
  options,
  choose({ steps, sites, borders = [], progress }, { fills, share, warmup }) {
    const forced = new Set([
      ...Array.from({ length: Math.min(warmup, steps) }, (_, k) => k),
      ...borders.filter((border) => border < steps),
    ]);
    const budget = budgetOf("dpcache", { fills, share }, steps, forced.size);
    const costs = forecastCosts(statisticsOf(sites), steps, progress);
    const path = bestFills({ steps, fills: budget.fills, forced, edge: costs, order: SUM });
    if (!path) throw badCurves("all branches", `they do not reach back far enough for ${budget.fills} computed steps`);
    const row = Array.from({ length: steps }, (_, step): ScheduleCell => {
      if (path.includes(step)) return 1;
      const [from = 0, before] = path.filter((fill) => fill < step && placeAt(borders, fill) === placeAt(borders, step)).reverse();
      return before === undefined ? 0 : cellOf(linear(before, from, step));
    });
    return { cells: everywhere(sites, row), warnings: budget.warnings };
  },
} satisfies Policy<typeof options>;

/** The line through the last two fills, or just the last value if there is only one. */
function linear(before: number | undefined, from: number, step: number): readonly Term[] {
  if (before === undefined) return difference(0, [from]);
  return sumOfTerms([
    { weight: 1, terms: difference(0, [from]) },
    { weight: step - from, terms: difference(1, [from, before]) },
  ]);
}

/** The paper's C[i, j, k]: the errors of all forecasts from the fills i and j, up to the next fill k. */
function forecastCosts(
  sites: readonly SiteStatistics[],
  steps: number,
  progress: (done: number, total: number) => void,
): (before: number | undefined, from: number, to: number) => number {
  const sums = new Map<number, readonly number[]>();
  const sumsFrom = (before: number | undefined, from: number): readonly number[] => {
    let sum = 0;
    const errors = Array.from(
      { length: steps - from - 1 },
      (_, i) => (sum += forecastError(sites, from + 1 + i, linear(before, from, from + 1 + i))),
    );
    return [0, ...errors];
  };
  for (let from = 0; from < steps; from++) {
    for (let before = 0; before < Math.max(1, from); before++) {
      sums.set(from * steps + before, sumsFrom(from === 0 ? undefined : before, from));
    }
    progress(from + 1, steps);
  }
  return (before, from, to) => sums.get(from * steps + (before ?? 0))?.[to - from - 1] ?? NaN;
}
