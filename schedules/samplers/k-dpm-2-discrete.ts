/** DPM-Solver-2 in sigma, a midpoint rule (arXiv 2206.00927), as diffusers' `schedulers/scheduling_k_dpm_2_discrete.py` runs it. */
import { z } from "zod";
import type { Sampler } from "../sampler.js";
import { initialScale, midpointKeys, midpointRows, sigmaGrid } from "../solvers/sigma-space.js";

const className = "KDPM2DiscreteScheduler";

const config = z.object(midpointKeys);

export default {
  name: "k-dpm-2-discrete",
  className,
  config,
  takes: [],
  table(config, options) {
    const grid = sigmaGrid(className, config, options, { roundsKarras: true });
    const rows = midpointRows(config.prediction_type, grid, (_, to) => ({ down: to, up: 0 }));
    const scale = initialScale(grid.sigmas, config.timestep_spacing);
    return { name: "k-dpm-2-discrete", prediction: config.prediction_type, initialScale: scale, rows };
  },
} satisfies Sampler<typeof config>;
