/** SA-Solver, stochastic Adams predictor and corrector (arXiv 2309.05019), as diffusers' `schedulers/scheduling_sasolver.py` runs them. */
import { z } from "zod";
import { unsupportedScheduler } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { refuseThresholding, thresholdingKeys } from "../solvers/clipping.js";
import { fromPredicted, type LinearStep } from "../solvers/corrector.js";
import { lambdaGrid, lambdaGridKeys, lambdaMinClipped, predictionLabel } from "../solvers/lambda-grid.js";
import { lambdaStep, slopeUndecayed } from "../solvers/lambda-step.js";
import { levelOf, noiseLevel, noiseOf, sampleOf } from "../solvers/levels.js";
import { betaKeys } from "../solvers/noise-schedule.js";
import type { Row, Sampler } from "../sampler.js";
import { timestepSpacing } from "../solvers/spacing.js";

const className = "SASolverScheduler";

const config = z.object({
  ...betaKeys,
  ...lambdaGridKeys,
  ...thresholdingKeys,
  predictor_order: z.int().min(1).max(4).default(2),
  corrector_order: z.int().min(1).max(4).default(2),
  /** A function, which a file cannot hold. The default adds the noise of the reverse diffusion at times from 200 to 800. */
  tau_func: z.null().default(null),
  algorithm_type: z.enum(["data_prediction", "noise_prediction"]).default("data_prediction"),
  lower_order_final: z.boolean().default(true),
  lambda_min_clipped: lambdaMinClipped,
  /** Which channels are the prediction is the recipe's to say. */
  variance_type: z.string().nullable().default(null),
  timestep_spacing: timestepSpacing.default("linspace"),
  steps_offset: z.int().default(0),
});

export default {
  name: "sasolver",
  className,
  config,
  takes: [],
  table(config, options) {
    refuseThresholding(className, config);
    const keeps = config.algorithm_type === "data_prediction" ? "sample" : "noise";
    if (keeps === "noise" && config.prediction_type === "flow_prediction") {
      const hint = 'Set "algorithm_type": "data_prediction".';
      throw unsupportedScheduler(className, '"prediction_type": "flow_prediction" in terms of noise', "diffusers does not define it", hint);
    }
    const { times, sigmas } = lambdaGrid(className, config, options, { repeatsLast: true });
    const levels = sigmas.map((sigma) => levelOf(sigma, config.use_flow_sigmas));
    // Predictor and corrector of one step share its tau, so that they share its noise.
    const stepOver = (k: number, steps: readonly number[]): LinearStep => {
      const nodes = steps.map((step) => entryAt(levels, step));
      const time = entryAt(times, k);
      const tau = time >= 200 && time <= 800 ? 1 : 0;
      const moments = keeps === "sample" && steps.length === 2 ? slopeUndecayed : undefined;
      const { x, m, noise } = lambdaStep({ keeps, tau }, entryAt(levels, k), entryAt(levels, k + 1), nodes, moments);
      return { x, m: steps.map((step, i) => ({ step, weight: entryAt(m, i) })), noise };
    };
    const history = Math.max(config.predictor_order, config.corrector_order - 1);
    const left = (k: number): number => (config.lower_order_final ? times.length - k : Infinity);
    const back = (k: number, count: number): number[] => Array.from({ length: count }, (_, i) => k - i);
    const isIdle = (k: number): boolean => entryAt(levels, k).lambda === entryAt(levels, k + 1).lambda;
    const predictors = times.map((_, k) =>
      // A last sigma that is repeated makes a step of no length: no order tells it from the first.
      stepOver(k, back(k, isIdle(k) ? 1 : Math.min(config.predictor_order, left(k), Math.min(k, history) + 1))),
    );
    const rows = times.map((time, k): Row => {
      const before = k - 1;
      const order = Math.min(config.corrector_order, left(before) + 1, Math.min(before, history) + 2);
      const corrected = k > 0 ? { predictor: entryAt(predictors, before), corrector: stepOver(before, back(k, order)) } : undefined;
      const { x, m, noise } = fromPredicted(entryAt(predictors, k), corrected);
      return {
        timestep: time,
        sigma: entryAt(sigmas, k),
        level: noiseLevel(entryAt(levels, k)),
        inputScale: 1,
        m: (keeps === "sample" ? sampleOf : noiseOf)(config.prediction_type, entryAt(levels, k), entryAt(sigmas, k)),
        next: { x: [{ step: k, weight: x }], m, noise },
      };
    });
    return { name: "sasolver", prediction: predictionLabel(config.prediction_type), initialScale: 1, corrects: true, rows };
  },
} satisfies Sampler<typeof config>;
