/**
 * L2P (arXiv 2604.26365): the weights of a forecast are fitted to calibrated trajectories, step by step. The paper fits weights for the
 * network's last feature, one step ahead, over all earlier steps including forecasts. It trains them by gradient descent from plain reuse
 * (Aredstone/L2P-Cache, `predictor/train.py`) and skips steps by a list of its own. Here every group of branches has weights, fitted by
 * ridge regression towards plain reuse. They only read computed steps: fitted one step ahead, errors add up in long gaps.
 */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { difference, type Forecaster, forecastRow } from "../planning/forecast.js";
import { uniformOptions, uniformSteps } from "../planning/interval.js";
import { ridgeWeights } from "../planning/least-squares.js";
import { groupBranches, groupOption, type Policy, statisticsOf } from "../policy.js";
import { innerProduct } from "../planning/statistics.js";

const options = z.object({
  ...uniformOptions({ interval: 4, warmup: 3, phase: "taylorseer" }),
  group: groupOption("site"),
  history: z.coerce.number().int().min(1).default(3).describe("how many computed values are read"),
  ridge: z.coerce.number().min(0).default(1e-4).describe("how firmly weights are held at plain reuse, in mean squares of the values"),
});

export default {
  name: "l2p",
  summary: "compute every branch at every n-th step, and continue it with weights fitted to the calibration between",
  needs: ["trace"],
  options,
  choose({ steps, sites, borders }, { group, history, ridge, ...uniform }) {
    const computes = uniformSteps(steps, uniform);
    let cut = 0;
    const rowOf = (product: (i: number, j: number) => number): ReturnType<typeof forecastRow> => {
      const forecast: Forecaster = (step, fills) => {
        const wanted = fills.slice(0, history);
        const sources = wanted.filter((source) => Number.isFinite(product(step, source)));
        if (sources.length < wanted.length) cut++;
        if (sources.length === 0) return difference(0, fills);
        const weights = ridgeWeights(
          sources.map((i) => sources.map((j) => product(i, j))),
          sources.map((i) => product(step, i)),
          sources.map((_, i) => (i === 0 ? 1 : 0)),
          ridge,
        );
        return sources.map((source, i) => ({ step: source, weight: entryAt(weights, i) }));
      };
      return forecastRow(computes, forecast, borders);
    };
    const cells = new Map(
      groupBranches(sites, group).map(({ key, sites: members }) => {
        const statistics = statisticsOf(members);
        return [key, rowOf((i, j) => statistics.reduce((sum, site) => sum + innerProduct(site, i, j), 0))];
      }),
    );
    const warnings = cut > 0 ? [`${cut} forecasts read fewer values than asked: the calibration does not look back that far.`] : [];
    return { cells, warnings };
  },
} satisfies Policy<typeof options>;
