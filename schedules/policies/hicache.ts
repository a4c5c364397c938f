/**
 * HiCache (arXiv 2508.16984): TaylorSeer with scaled Hermite polynomials in place of powers, which grow more slowly: σ^i H_i(σx) / i!
 * and σ = ½ as in `models/hicache_fast_impl.py` of yiming-l21/CFGCache, whose README is HiCache's. Its forecasts lag behind:
 * the first-order term is 2σ²x, half of what a straight line needs at σ = ½.
 */
import { z } from "zod";
import { differenceSeries, forecastRow } from "../planning/forecast.js";
import { uniformOptions, uniformSteps } from "../planning/interval.js";
import { everywhere, type Policy } from "../policy.js";

const options = z.object({
  ...uniformOptions({ interval: 4, warmup: 2, phase: "taylorseer" }),
  order: z.coerce.number().int().min(0).max(4).default(2).describe("highest polynomial; 0 reuses"),
  sigma: z.coerce.number().positive().max(1).default(0.5).describe("scale of the polynomials and of their argument"),
});

export default {
  name: "hicache",
  summary: "compute every branch at every n-th step, and continue it by Hermite polynomials between",
  needs: [],
  options,
  choose({ steps, sites, borders }, { order, sigma, ...uniform }) {
    const series = differenceSeries(order, uniform.warmup, (i, x) => sigma ** i * hermite(i, sigma * x));
    return { cells: everywhere(sites, forecastRow(uniformSteps(steps, uniform), series, borders)) };
  },
} satisfies Policy<typeof options>;

/** The physicists' Hermite polynomials: 1, 2x, 4x² − 2, … */
function hermite(n: number, x: number): number {
  if (n === 0) return 1;
  return 2 * x * hermite(n - 1, x) - (n > 1 ? 2 * (n - 1) * hermite(n - 2, x) : 0);
}
