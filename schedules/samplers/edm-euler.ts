/**
 * Euler's method on EDM's probability flow (arXiv 2206.00364, algorithm 1 without the second order), as diffusers'
 * `schedulers/scheduling_edm_euler.py` runs it.
 */
import { z } from "zod";
import { dpmStep } from "../solvers/dpm-solver.js";
import { edmInitialScale, edmKeys, edmPrediction, edmRows, edmSigmas, logTime } from "../solvers/edm.js";
import type { Sampler } from "../sampler.js";

const className = "EDMEulerScheduler";

const config = z.object(edmKeys);

export default {
  name: "edm-euler",
  className,
  config,
  takes: [],
  table(config, { steps }) {
    const prediction = edmPrediction(className, config);
    const rows = edmRows({
      sigmas: edmSigmas(config, steps),
      sigmaData: config.sigma_data,
      prediction,
      timeOf: logTime,
      orderAt: () => 1,
      // With alpha = 1 the first order of DPM-Solver++ is Euler's step.
      solve: (nodes, to) => dpmStep("dpmsolver++", "midpoint", nodes, to, 1),
    });
    return { name: "edm-euler", prediction, initialScale: edmInitialScale(config), rows };
  },
} satisfies Sampler<typeof config>;
