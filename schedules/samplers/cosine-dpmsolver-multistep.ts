/**
 * The SDE form of DPM-Solver++ on v-diffusion's angles (Stable Audio), as diffusers'
 * `schedulers/scheduling_cosine_dpmsolver_multistep.py` runs it.
 */
import { z } from "zod";
import { unsupportedScheduler } from "../diagnostics.js";
import { dpmOrder, dpmStep } from "../solvers/dpm-solver.js";
import { angularTime, edmInitialScale, edmKeys, edmPrediction, edmRows, edmSigmas, edmSolverKeys } from "../solvers/edm.js";
import type { Sampler } from "../sampler.js";

const className = "CosineDPMSolverMultistepScheduler";

const config = z.object({
  ...edmKeys,
  ...edmSolverKeys,
  sigma_min: edmKeys.sigma_min.default(0.3),
  sigma_max: edmKeys.sigma_max.default(500),
  sigma_data: edmKeys.sigma_data.default(1),
  sigma_schedule: edmKeys.sigma_schedule.default("exponential"),
  prediction_type: edmKeys.prediction_type.default("v_prediction"),
});

export default {
  name: "cosine-dpmsolver-multistep",
  className,
  config,
  takes: [],
  /** The library draws from a Brownian tree: over steps that do not overlap, that is a unit normal each. */
  table(config, { start, steps }) {
    if (config.solver_order === 3)
      throw unsupportedScheduler(className, '"solver_order": 3', "the library does not define it", 'Set "solver_order": 2.');
    const prediction = edmPrediction(className, config);
    const rows = edmRows({
      sigmas: edmSigmas(config, steps),
      sigmaData: config.sigma_data,
      prediction,
      timeOf: angularTime,
      orderAt: (k) => dpmOrder(k, steps, config, start),
      solve: (nodes, to) => dpmStep("sde-dpmsolver++", config.solver_type, nodes, to, 1 / 2),
    });
    return { name: "cosine-dpmsolver-multistep", prediction, initialScale: edmInitialScale(config), rows };
  },
} satisfies Sampler<typeof config>;
