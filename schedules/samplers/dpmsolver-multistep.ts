/**
 * DPM-Solver multistep, its `++` and its SDE forms (arXiv 2206.00927, 2211.01095), as diffusers'
 * `schedulers/scheduling_dpmsolver_multistep.py` runs them.
 */
import { z } from "zod";
import { unsupportedScheduler } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { refuseThresholding, thresholdingKeys } from "../solvers/clipping.js";
import { algorithmOf, dpmOrder, dpmPrediction, dpmSolverType, dpmStep, refuseDpmSettings } from "../solvers/dpm-solver.js";
import { lambdaGrid, lambdaGridKeys, lambdaMinClipped, predictionLabel, refuseIdleMu } from "../solvers/lambda-grid.js";
import { levelOf, noiseLevel } from "../solvers/levels.js";
import { noiseScheduleKeys } from "../solvers/noise-schedule.js";
import type { Row, Sampler } from "../sampler.js";
import { timestepSpacing } from "../solvers/spacing.js";

const className = "DPMSolverMultistepScheduler";

const config = z.object({
  ...noiseScheduleKeys,
  ...lambdaGridKeys,
  ...thresholdingKeys,
  solver_order: z.int().min(1).max(3).default(2),
  algorithm_type: z.enum(["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"]).default("dpmsolver++"),
  solver_type: dpmSolverType,
  lower_order_final: z.boolean().default(true),
  euler_at_final: z.boolean().default(false),
  use_lu_lambdas: z.boolean().default(false),
  final_sigmas_type: z.enum(["zero", "sigma_min"]).default("zero"),
  lambda_min_clipped: lambdaMinClipped,
  /** Which channels are the prediction is the recipe's to say. */
  variance_type: z.enum(["learned", "learned_range"]).nullable().default(null),
  timestep_spacing: timestepSpacing.default("linspace"),
  steps_offset: z.int().default(0),
  use_dynamic_shifting: z.boolean().default(false),
  time_shift_type: z.literal("exponential").default("exponential"),
});

export default {
  name: "dpmsolver-multistep",
  className,
  config,
  takes: ["timesteps", "mu"],
  table(config, options) {
    refuseThresholding(className, config);
    refuseIdleMu(className, config, options);
    const algorithm = algorithmOf(config.algorithm_type);
    refuseDpmSettings(className, algorithm, config);
    if (algorithm === "sde-dpmsolver" && config.solver_order === 3) {
      const hint = 'Set "solver_order": 2, or "algorithm_type": "sde-dpmsolver++".';
      throw unsupportedScheduler(className, '"solver_order": 3', "sde-dpmsolver is not defined at this order", hint);
    }
    const { times, sigmas } = lambdaGrid(className, config, options, { truncatesOnCosine: true });
    const levels = sigmas.map((sigma) => levelOf(sigma, config.use_flow_sigmas));
    const rows = times.map((time, k): Row => {
      const nodes = Array.from({ length: dpmOrder(k, times.length, config, options.start) }, (_, back) => entryAt(levels, k - back));
      // The third order takes half of the curvature's integral, as its authors' code does.
      const { x, m, noise } = dpmStep(algorithm, config.solver_type, nodes, entryAt(levels, k + 1), 1 / 2);
      return {
        timestep: time,
        sigma: entryAt(sigmas, k),
        level: noiseLevel(entryAt(levels, k)),
        inputScale: 1,
        m: dpmPrediction(algorithm)(config.prediction_type, entryAt(levels, k), entryAt(sigmas, k)),
        next: { x: [{ step: k, weight: x }], m: m.map((weight, back) => ({ step: k - back, weight })), noise },
      };
    });
    return { name: "dpmsolver-multistep", prediction: predictionLabel(config.prediction_type), initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
