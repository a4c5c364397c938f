/**
 * AB-Cache (arXiv 2504.10540): the k-th difference of consecutive outputs is O(h^k), as in Adams–Bashforth methods of order k. The
 * forecast makes this difference vanish: Σ (−1)^i C(k, i + 1) · F_i over the latest k values, newest first. O(h^k) is from the abstract.
 * The code (aSleepyTree/AB-Cache) is only known from the docstring of a port to another field. It quotes orders 2 and 5 (2, −1 and
 * 5, −10, 10, −5, 1; `flux_our.py`), there on the network's output, and computes the first five steps and every sixth. As in the port,
 * computed values are treated as consecutive, whatever their distance: over its own forecasts the rule would multiply their error by
 * n − 1 from one fill to the next.
 */
import { z } from "zod";
import { type Forecaster, forecastRow } from "../planning/forecast.js";
import { uniformOptions, uniformSteps } from "../planning/interval.js";
import { everywhere, type Policy } from "../policy.js";

const options = z.object({
  ...uniformOptions({ interval: 6, warmup: 5, phase: "ab-cache" }),
  order: z.coerce.number().int().min(1).max(5).default(2).describe("how many computed values are read; 1 reuses"),
});

export default {
  name: "ab-cache",
  summary: "compute every branch at every n-th step, and continue it as an Adams–Bashforth method does between",
  needs: [],
  options,
  choose({ steps, sites, borders }, { order, ...uniform }) {
    const forecast: Forecaster = (_, fills) => {
      const read = fills.slice(0, order);
      let binomial = -1;
      return read.map((step, i) => {
        binomial *= (i - read.length) / (i + 1);
        return { step, weight: binomial };
      });
    };
    return { cells: everywhere(sites, forecastRow(uniformSteps(steps, uniform), forecast, borders)) };
  },
} satisfies Policy<typeof options>;
