/** DEIS, multistep in ln rho (arXiv 2204.13902), as diffusers' `schedulers/scheduling_deis_multistep.py` runs it. */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { refuseThresholding, thresholdingKeys } from "../solvers/clipping.js";
import { lambdaGrid, lambdaGridKeys, predictionLabel, refuseIdleMu } from "../solvers/lambda-grid.js";
import { lambdaStep } from "../solvers/lambda-step.js";
import { levelOf, noiseLevel, noiseOf } from "../solvers/levels.js";
import { betaKeys } from "../solvers/noise-schedule.js";
import type { Row, Sampler } from "../sampler.js";
import { timestepSpacing } from "../solvers/spacing.js";

const className = "DEISMultistepScheduler";

const config = z.object({
  ...betaKeys,
  ...lambdaGridKeys,
  ...thresholdingKeys,
  solver_order: z.int().min(1).max(3).default(2),
  /** All but the first of each belong to other classes; the library uses the first for them. */
  algorithm_type: z.enum(["deis", "dpmsolver", "dpmsolver++"]).default("deis"),
  solver_type: z.enum(["logrho", "midpoint", "heun", "bh1", "bh2"]).default("logrho"),
  lower_order_final: z.boolean().default(true),
  timestep_spacing: timestepSpacing.default("linspace"),
  steps_offset: z.int().default(0),
  use_dynamic_shifting: z.boolean().default(false),
  time_shift_type: z.literal("exponential").default("exponential"),
});

export default {
  name: "deis-multistep",
  className,
  config,
  takes: ["mu"],
  table(config, options) {
    refuseThresholding(className, config);
    refuseIdleMu(className, config, options);
    const { times, sigmas } = lambdaGrid(className, config, options, { repeatsLast: true });
    const levels = sigmas.map((sigma) => levelOf(sigma, config.use_flow_sigmas));
    const lowersEnd = config.lower_order_final && times.length < 15;
    const rows = times.map((time, k): Row => {
      const [from, to] = [entryAt(levels, k), entryAt(levels, k + 1)];
      // A last sigma that is repeated makes a step of no length: no order tells it from the first.
      const cap = from.lambda === to.lambda ? 1 : lowersEnd ? times.length - k : Infinity;
      const nodes = Array.from({ length: Math.min(config.solver_order, k + 1, cap) }, (_, back) => entryAt(levels, k - back));
      // Interpolating in ln rho = −lambda is what any multistep solver in terms of noise does; DEIS integrates exactly.
      const { x, m } = lambdaStep({ keeps: "noise", tau: 0 }, from, to, nodes);
      return {
        timestep: time,
        sigma: entryAt(sigmas, k),
        level: noiseLevel(from),
        inputScale: 1,
        m: noiseOf(config.prediction_type, from, entryAt(sigmas, k)),
        next: { x: [{ step: k, weight: x }], m: m.map((weight, back) => ({ step: k - back, weight })), noise: 0 },
      };
    });
    return { name: "deis-multistep", prediction: predictionLabel(config.prediction_type), initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
