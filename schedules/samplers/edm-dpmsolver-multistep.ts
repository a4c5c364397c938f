/**
 * DPM-Solver++ multistep (arXiv 2211.01095) on EDM's noise levels,
 * as diffusers' `schedulers/scheduling_edm_dpmsolver_multistep.py` runs it.
 */
import { z } from "zod";
import { unsupportedScheduler } from "../diagnostics.js";
import { refuseThresholding, thresholdingKeys } from "../solvers/clipping.js";
import { algorithmOf, dpmOrder, dpmStep } from "../solvers/dpm-solver.js";
import { edmInitialScale, edmKeys, edmPrediction, edmRows, edmSigmas, edmSolverKeys, logTime } from "../solvers/edm.js";
import type { Sampler } from "../sampler.js";

const className = "EDMDPMSolverMultistepScheduler";

const config = z.object({
  ...edmKeys,
  ...edmSolverKeys,
  ...thresholdingKeys,
  /** The last belongs to another class; the library uses the first for it. */
  algorithm_type: z.enum(["dpmsolver++", "sde-dpmsolver++", "deis"]).default("dpmsolver++"),
});

export default {
  name: "edm-dpmsolver-multistep",
  className,
  config,
  takes: [],
  table(config, { start, steps }) {
    refuseThresholding(className, config);
    const algorithm = algorithmOf(config.algorithm_type);
    if (algorithm === "sde-dpmsolver++" && config.solver_order === 3) {
      const hint = 'Set "solver_order": 2, or "algorithm_type": "dpmsolver++".';
      throw unsupportedScheduler(className, '"solver_order": 3', "sde-dpmsolver++ is not defined at this order", hint);
    }
    const prediction = edmPrediction(className, config);
    const rows = edmRows({
      sigmas: edmSigmas(config, steps),
      sigmaData: config.sigma_data,
      prediction,
      timeOf: logTime,
      orderAt: (k) => dpmOrder(k, steps, config, start),
      solve: (nodes, to) => dpmStep(algorithm, config.solver_type, nodes, to, 1 / 2),
    });
    return { name: "edm-dpmsolver-multistep", prediction, initialScale: edmInitialScale(config), rows };
  },
} satisfies Sampler<typeof config>;
