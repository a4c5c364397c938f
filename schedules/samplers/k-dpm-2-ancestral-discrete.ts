/** DPM-Solver-2 in sigma with fresh noise at every step, as diffusers' `schedulers/scheduling_k_dpm_2_ancestral_discrete.py` runs it. */
import { z } from "zod";
import type { Sampler } from "../sampler.js";
import { ancestralSigmas, initialScale, midpointKeys, midpointRows, sigmaGrid } from "../solvers/sigma-space.js";

const className = "KDPM2AncestralDiscreteScheduler";

const config = z.object(midpointKeys);

export default {
  name: "k-dpm-2-ancestral-discrete",
  className,
  config,
  takes: [],
  table(config, options) {
    const grid = sigmaGrid(className, config, options, { roundsKarras: true });
    const rows = midpointRows(config.prediction_type, grid, ancestralSigmas);
    const scale = initialScale(grid.sigmas, config.timestep_spacing);
    return { name: "k-dpm-2-ancestral-discrete", prediction: config.prediction_type, initialScale: scale, rows };
  },
} satisfies Sampler<typeof config>;
