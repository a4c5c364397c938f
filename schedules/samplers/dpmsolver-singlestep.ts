/**
 * DPM-Solver singlestep, its `++` and its SDE forms (arXiv 2206.00927, 2211.01095), as diffusers'
 * `schedulers/scheduling_dpmsolver_singlestep.py` runs them.
 */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { refuseThresholding, thresholdingKeys } from "../solvers/clipping.js";
import { algorithmOf, dpmPrediction, dpmSolverType, dpmStep, refuseDpmSettings } from "../solvers/dpm-solver.js";
import { lambdaGrid, lambdaGridKeys, lambdaMinClipped, predictionLabel, refuseIdleMu } from "../solvers/lambda-grid.js";
import { levelOf, noiseLevel } from "../solvers/levels.js";
import { betaKeys } from "../solvers/noise-schedule.js";
import type { Row, Sampler } from "../sampler.js";

const className = "DPMSolverSinglestepScheduler";

const config = z.object({
  ...betaKeys,
  ...lambdaGridKeys,
  ...thresholdingKeys,
  solver_order: z.int().min(1).max(3).default(2),
  algorithm_type: z.enum(["dpmsolver", "dpmsolver++", "sde-dpmsolver++", "deis"]).default("dpmsolver++"),
  solver_type: dpmSolverType,
  lower_order_final: z.boolean().default(false),
  final_sigmas_type: z.enum(["zero", "sigma_min"]).default("zero"),
  lambda_min_clipped: lambdaMinClipped,
  /** Which channels are the prediction is the recipe's to say. */
  variance_type: z.enum(["learned", "learned_range"]).nullable().default(null),
  use_dynamic_shifting: z.boolean().default(false),
  time_shift_type: z.literal("exponential").default("exponential"),
});
type Config = z.output<typeof config>;

export default {
  name: "dpmsolver-singlestep",
  className,
  config,
  takes: ["timesteps", "mu"],
  table(config, options) {
    refuseThresholding(className, config);
    refuseIdleMu(className, config, options);
    const algorithm = algorithmOf(config.algorithm_type);
    refuseDpmSettings(className, algorithm, config);
    const { times, sigmas } = lambdaGrid(className, config, options);
    const levels = sigmas.map((sigma) => levelOf(sigma, config.use_flow_sigmas));
    const orders = ordersOf(times.length, config);
    const rows = times.map((time, k): Row => {
      const order = entryAt(orders, k);
      const base = k - order + 1;
      const isHeun = config.solver_type === "heun";
      // The base first; the third order with midpoints leaves out the evaluation in between, and takes the exact slope.
      const steps = order === 3 && !isHeun ? [base, k] : Array.from({ length: order }, (_, i) => base + i);
      const nodes = steps.map((step) => entryAt(levels, step));
      const { x, m, noise } = dpmStep(algorithm, isHeun || order === 3 ? "heun" : "midpoint", nodes, entryAt(levels, k + 1), 1);
      return {
        timestep: time,
        sigma: entryAt(sigmas, k),
        level: noiseLevel(entryAt(levels, k)),
        inputScale: 1,
        m: dpmPrediction(algorithm)(config.prediction_type, entryAt(levels, k), entryAt(sigmas, k)),
        next: { x: [{ step: base, weight: x }], m: steps.map((step, i) => ({ step, weight: entryAt(m, i) })), noise },
      };
    });
    return { name: "dpmsolver-singlestep", prediction: predictionLabel(config.prediction_type), initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;

/** The order of every evaluation: 1 to the solver's over and over, each from the base of the first (diffusers `get_order_list`). */
function ordersOf(steps: number, config: Config): readonly number[] {
  const { solver_order: order } = config;
  const endsAtZero = config.final_sigmas_type === "zero";
  const orders = Array.from({ length: steps }, (_, k) => (k % order) + 1);
  // A run that does not end with a full round is left as it is; one that does, or that ends at 0, ends with a lower order.
  const lowersEnd = endsAtZero || (config.lower_order_final && steps % order === 0);
  return lowersEnd ? [...orders.slice(0, -1), 1] : orders;
}
