/** Grids of the solvers that step in lambda (DPM-Solver, DEIS, UniPC, SA-Solver): the times that the model gets, and their sigmas. */
import { z } from "zod";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import type { PredictionType } from "./levels.js";
import { type NoiseScheduleConfig, trainedSigmas } from "./noise-schedule.js";
import type { Prediction, SamplerOptions } from "../sampler.js";
import { interpolate, namedGrid, namedGridKeys, namedSigmas, shiftedSigma, timeOfSigma } from "./sigma-grid.js";
import { linspace, roundHalfEven, spacedTimes, type TimestepSpacing } from "./spacing.js";

/** The times that the model gets, and sigmas: one more than times, as the last is where the run ends. */
export interface Grid {
  readonly times: readonly number[];
  readonly sigmas: readonly number[];
}

/** The keys that every class of this family has, with diffusers' defaults. */
export const lambdaGridKeys = {
  prediction_type: z.enum(["epsilon", "v_prediction", "sample", "flow_prediction"]).default("epsilon"),
  ...namedGridKeys,
  use_flow_sigmas: z.boolean().default(false),
  flow_shift: z.number().positive().default(1),
};

/** Logarithm of the least signal-to-noise ratio that spaced times start from; saved as a bare `-Infinity`. */
export const lambdaMinClipped = z.union([z.number(), z.literal([-Infinity, "-Infinity"])]).default(-Infinity);

export type LambdaGridConfig = NoiseScheduleConfig &
  z.output<z.ZodObject<typeof lambdaGridKeys>> & {
    readonly use_lu_lambdas?: boolean;
    /** Absent: the run ends at the least training sigma. */
    readonly final_sigmas_type?: "zero" | "sigma_min";
    readonly lambda_min_clipped?: z.output<typeof lambdaMinClipped>;
    readonly timestep_spacing?: TimestepSpacing;
    readonly steps_offset?: number;
    readonly use_dynamic_shifting?: boolean;
    readonly sigma_min?: number | null;
    readonly sigma_max?: number | null;
  };

/** The differences between the classes. */
export interface LambdaGridForm {
  /** Whether times of Karras and Lu sigmas are left unrounded (and then truncated) on the cosine schedule. */
  readonly truncatesOnCosine?: boolean;
  /** Whether a named grid that does not end at 0 repeats its own last sigma; in other classes it ends at the smallest training sigma. */
  readonly repeatsLast?: boolean;
  /** Sigmas of a flow where they are not DPM-Solver's. */
  readonly flowSigmas?: () => readonly number[];
}

/** The grid as diffusers' `set_timesteps` lays it out. Throws UNSUPPORTED_SCHEDULER, SAMPLER_OPTION, DEGENERATE_TIMES. */
export function lambdaGrid(
  className: string,
  config: LambdaGridConfig,
  { steps, timesteps, mu }: SamplerOptions,
  form: LambdaGridForm = {},
): Grid {
  const trainTimes = config.num_train_timesteps;
  const trained = trainedSigmas(config);
  const min = entryAt(trained, 0);
  const max = entryAt(trained, trained.length - 1);
  const named = namedGrid(className, config) ?? (config.use_lu_lambdas ? "lu" : undefined);
  if (timesteps) {
    const laidOut = named ?? (config.use_flow_sigmas ? "flow" : undefined);
    if (laidOut) throw samplerOption(className, "timesteps", `lays out its own times with ${laidOut} sigmas`);
    if (timesteps.length !== steps) throw samplerOption(className, "timesteps", `needs ${steps} times for ${steps} steps`);
  }
  const ended = (sigmas: readonly number[], last = min): readonly number[] => [...sigmas, config.final_sigmas_type === "zero" ? 0 : last];
  const endedAsNamed = (sigmas: readonly number[]): readonly number[] => ended(sigmas, form.repeatsLast ? sigmas.at(-1) : min);
  const flowTimes = (sigmas: readonly number[]): readonly number[] => sigmas.map((sigma) => Math.trunc(sigma * trainTimes));
  if (named) {
    const sigmas = namedSigmas(named, config.sigma_max ?? max, config.sigma_min ?? min, steps);
    const logSigmas = trained.map(Math.log);
    const rounds = (named === "karras" || named === "lu") && !(form.truncatesOnCosine && config.beta_schedule === "squaredcos_cap_v2");
    const toInteger = rounds ? roundHalfEven : Math.trunc;
    return { times: sigmas.map((sigma) => toInteger(timeOfSigma(sigma, logSigmas))), sigmas: endedAsNamed(sigmas) };
  }
  if (config.use_flow_sigmas) {
    const sigmas = form.flowSigmas?.() ?? flowSigmas(steps, trainTimes, mu === undefined ? config.flow_shift : Math.exp(mu));
    return { times: flowTimes(sigmas), sigmas: endedAsNamed(sigmas) };
  }
  const clip = Number(config.lambda_min_clipped ?? -Infinity);
  const times =
    timesteps?.map(Math.trunc) ??
    spacedTimes({
      spacing: config.timestep_spacing ?? "linspace",
      trainTimes,
      steps,
      offset: config.steps_offset ?? 0,
      lastTime: trainTimes - trained.filter((sigma) => -Math.log(sigma) < clip).length,
      extraPoint: true,
    });
  return { times, sigmas: ended(times.map((time) => interpolate(trained, time))) };
}

/** DPM-Solver's grid of a rectified flow: evenly spaced from just below 1 towards 0, shifted towards noise. */
function flowSigmas(steps: number, trainTimes: number, shift: number): readonly number[] {
  return linspace(1, 1 / trainTimes, steps + 1)
    .map((alpha) => shiftedSigma(1 - alpha, shift))
    .reverse()
    .slice(0, steps);
}

/** Throws SAMPLER_OPTION if mu is given without dynamic shifting, which alone uses it (as the logarithm of the flow's shift). */
export function refuseIdleMu(className: string, config: { readonly use_dynamic_shifting: boolean }, { mu }: SamplerOptions): void {
  if (mu !== undefined && !config.use_dynamic_shifting)
    throw samplerOption(className, "mu", 'takes mu only with "use_dynamic_shifting": true');
}

/** The label in a table for the prediction type of a configuration. */
export function predictionLabel(prediction: PredictionType): Prediction {
  return prediction === "flow_prediction" ? "flow" : prediction;
}
