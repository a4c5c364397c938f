/** UniPC, predictor and corrector (arXiv 2302.04867), as diffusers' `schedulers/scheduling_unipc_multistep.py` runs them. */
import { z } from "zod";
import { samplerOption, unsupportedScheduler } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { refuseThresholding, thresholdingKeys } from "../solvers/clipping.js";
import { fromPredicted, type LinearStep } from "../solvers/corrector.js";
import { type Grid, lambdaGrid, lambdaGridKeys, predictionLabel } from "../solvers/lambda-grid.js";
import { lambdaStep, slopeOfMean, slopeUndecayed } from "../solvers/lambda-step.js";
import { levelOf, noiseLevel, noiseOf, sampleOf } from "../solvers/levels.js";
import { noiseScheduleKeys } from "../solvers/noise-schedule.js";
import type { Row, Sampler, SamplerOptions } from "../sampler.js";
import { namedGrid, shiftedSigma } from "../solvers/sigma-grid.js";
import { linspace, timestepSpacing } from "../solvers/spacing.js";

const className = "UniPCMultistepScheduler";

const config = z.object({
  ...noiseScheduleKeys,
  ...lambdaGridKeys,
  ...thresholdingKeys,
  solver_order: z.int().min(1).max(9).default(2),
  predict_x0: z.boolean().default(true),
  /** The last three belong to other classes; the library uses bh2 for them. */
  solver_type: z.enum(["bh1", "bh2", "midpoint", "heun", "logrho"]).default("bh2"),
  lower_order_final: z.boolean().default(true),
  /** Entry i is the evaluation before the one that is not corrected. */
  disable_corrector: z.array(z.int()).default([]),
  solver_p: z.unknown().optional(),
  timestep_spacing: timestepSpacing.default("linspace"),
  steps_offset: z.int().default(0),
  final_sigmas_type: z.enum(["zero", "sigma_min"]).default("zero"),
  use_dynamic_shifting: z.boolean().default(false),
  time_shift_type: z.enum(["exponential", "linear"]).default("exponential"),
  sigma_min: z.number().nullable().default(null),
  sigma_max: z.number().nullable().default(null),
  shift_terminal: z.number().nullable().default(null),
});
type Config = z.output<typeof config>;

export default {
  name: "unipc-multistep",
  className,
  config,
  takes: ["sigmas", "mu"],
  table(config, options) {
    refuseThresholding(className, config);
    refuseSettings(config, options);
    const keeps = config.predict_x0 ? "sample" : "noise";
    const { times, sigmas } = gridOf(config, options);
    const levels = sigmas.map((sigma) => levelOf(sigma, config.use_flow_sigmas));
    const orders = times.map((_, k) => Math.min(config.solver_order, k + 1, config.lower_order_final ? times.length - k : Infinity));
    // The polynomial through the outputs is integrated exactly, as the solution of the paper's linear system does. Where it has
    // two, the paper takes ½ for the solution, and B(h) stays: the difference between bh1 and bh2.
    const coarse = config.solver_type === "bh1" ? slopeUndecayed : slopeOfMean;
    const stepOver = (k: number, steps: readonly number[]): LinearStep => {
      const nodes = steps.map((step) => entryAt(levels, step));
      const { x, m } = lambdaStep(
        { keeps, tau: 0 },
        entryAt(levels, k),
        entryAt(levels, k + 1),
        nodes,
        steps.length === 2 ? coarse : undefined,
      );
      return { x, m: steps.map((step, i) => ({ step, weight: entryAt(m, i) })), noise: 0 };
    };
    const past = (k: number): number[] => Array.from({ length: entryAt(orders, k) }, (_, back) => k - back);
    const predictors = times.map((_, k) => stepOver(k, past(k)));
    const rows = times.map((time, k): Row => {
      const before = k - 1;
      const isCorrected = k > 0 && !config.disable_corrector.includes(before);
      const corrected = isCorrected
        ? { predictor: entryAt(predictors, before), corrector: stepOver(before, [...past(before), k]) }
        : undefined;
      const { x, m, noise } = fromPredicted(entryAt(predictors, k), corrected);
      return {
        timestep: time,
        sigma: entryAt(sigmas, k),
        level: noiseLevel(entryAt(levels, k)),
        inputScale: 1,
        m: (config.predict_x0 ? sampleOf : noiseOf)(config.prediction_type, entryAt(levels, k), entryAt(sigmas, k)),
        next: { x: [{ step: k, weight: x }], m, noise },
      };
    });
    return { name: "unipc-multistep", prediction: predictionLabel(config.prediction_type), initialScale: 1, corrects: true, rows };
  },
} satisfies Sampler<typeof config>;

/** Throws for settings that the library refuses or turns into NaN. */
function refuseSettings(config: Config, { steps, sigmas, mu }: SamplerOptions): void {
  const refuse = (setting: string, reason: string, hint: string): void => {
    throw unsupportedScheduler(className, setting, reason, hint);
  };
  if (config.solver_p) refuse('"solver_p"', "the predictor is another scheduler", "Leave the predictor to UniPC.");
  if (!config.predict_x0 && config.prediction_type === "flow_prediction")
    refuse('"predict_x0": false and "prediction_type": "flow_prediction"', "diffusers does not define it", 'Set "predict_x0": true.');
  if (config.shift_terminal !== null && !config.use_flow_sigmas)
    refuse('"shift_terminal"', "only flow sigmas have it", 'Set "use_flow_sigmas": true, or leave it out.');
  if (config.solver_type === "bh1" && config.final_sigmas_type === "zero")
    refuse('"solver_type": "bh1" and "final_sigmas_type": "zero"', "diffusers multiplies 0 by infinity there", 'Set "solver_type": "bh2".');
  if (config.use_dynamic_shifting && mu === undefined) throw samplerOption(className, "mu", "needs mu for dynamic shifting");
  if (sigmas && sigmas.length !== steps) throw samplerOption(className, "sigmas", `needs ${steps} sigmas for ${steps} steps`);
  if (sigmas && namedGrid(className, config)) throw samplerOption(className, "sigmas", "lays out its own sigmas with a named grid");
  if (sigmas && !config.use_flow_sigmas) throw samplerOption(className, "sigmas", 'takes sigmas only with "use_flow_sigmas": true');
}

function gridOf(config: Config, options: SamplerOptions): Grid {
  const trainTimes = config.num_train_timesteps;
  const grid = lambdaGrid(className, config, options, { repeatsLast: true, flowSigmas: () => flowSigmasOf(config, options) });
  if (!config.use_flow_sigmas || !config.use_karras_sigmas) return grid;
  const sigmas = grid.sigmas.map((sigma) => sigma / (sigma + 1));
  return { times: sigmas.slice(0, -1).map((sigma) => Math.trunc(sigma * trainTimes)), sigmas };
}

/** Sigmas of a flow: the given ones or evenly spaced ones, shifted towards noise, stretched so that the last is `shift_terminal`. */
function flowSigmasOf(config: Config, { steps, sigmas: given, mu = 0 }: SamplerOptions): readonly number[] {
  const dynamicShift = config.time_shift_type === "linear" ? mu : Math.exp(mu);
  const shift = config.use_dynamic_shifting ? dynamicShift : config.flow_shift;
  const shifted = (given ?? linspace(1, 1 / config.num_train_timesteps, steps + 1).slice(0, steps)).map((u) => shiftedSigma(u, shift));
  const scale = config.shift_terminal ? (1 - (shifted.at(-1) ?? NaN)) / (1 - config.shift_terminal) : 1;
  // A first sigma of 1 has no signal: the library steps back from it.
  return shifted.map((sigma) => 1 - (1 - sigma) / scale).map((sigma, k) => (k === 0 && Math.abs(sigma - 1) < 1e-6 ? sigma - 1e-6 : sigma));
}
