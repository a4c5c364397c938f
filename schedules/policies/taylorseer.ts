/**
 * TaylorSeer (arXiv 2503.06923): between computed steps every branch is
 * forecast by a Taylor series with backward differences as derivatives.
 */
import { z } from "zod";
import { differenceSeries, forecastRow } from "../planning/forecast.js";
import { uniformOptions, uniformSteps } from "../planning/interval.js";
import { everywhere, type Policy } from "../policy.js";

const options = z.object({
  ...uniformOptions({ interval: 4, warmup: 2, phase: "taylorseer" }),
  order: z.coerce.number().int().min(0).max(4).default(2).describe("highest derivative; 0 reuses"),
});

export default {
  name: "taylorseer",
  summary: "compute every branch at every n-th step, and continue it by a Taylor series between",
  needs: [],
  options,
  choose({ steps, sites, borders }, { order, ...uniform }) {
    const series = differenceSeries(order, uniform.warmup, (i, x) => x ** i);
    return { cells: everywhere(sites, forecastRow(uniformSteps(steps, uniform), series, borders)) };
  },
} satisfies Policy<typeof options>;
