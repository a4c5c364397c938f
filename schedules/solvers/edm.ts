/** EDM (arXiv 2206.00364): x = sample + sigma · noise, the scalings by sigma around the network, and multistep rows. */
import { z } from "zod";
import { MAX_TRAIN_TIMES } from "../../ir/limits.js";
import { dpmSolverType } from "./dpm-solver.js";
import { unsupportedScheduler } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import type { LambdaStep } from "./lambda-step.js";
import { type Level, noiseLevel } from "./levels.js";
import type { Row } from "../sampler.js";
import { exponentialSigmas, karrasSigmas } from "./sigma-grid.js";

/** The keys that diffusers' classes of this family have, with the defaults of most. */
export const edmKeys = {
  sigma_min: z.number().positive().default(0.002),
  sigma_max: z.number().positive().default(80),
  /** Standard deviation of the data. */
  sigma_data: z.number().positive().default(0.5),
  sigma_schedule: z.enum(["karras", "exponential"]).default("karras"),
  num_train_timesteps: z.int().min(1).max(MAX_TRAIN_TIMES).default(1000),
  prediction_type: z.enum(["epsilon", "v_prediction", "sample"]).default("epsilon"),
  rho: z.number().default(7),
  final_sigmas_type: z.enum(["zero", "sigma_min"]).default("zero"),
};

export type EdmConfig = z.output<z.ZodObject<typeof edmKeys>>;

/** The keys of its multistep solvers. */
export const edmSolverKeys = {
  solver_order: z.int().min(1).max(3).default(2),
  solver_type: dpmSolverType,
  lower_order_final: z.boolean().default(true),
  euler_at_final: z.boolean().default(false),
};

/**
 * Sigmas of a run, one more than its steps,
 * as `set_timesteps` of diffusers' `schedulers/scheduling_edm_dpmsolver_multistep.py` lays them out.
 */
export function edmSigmas({ sigma_schedule, sigma_min, sigma_max, rho, final_sigmas_type }: EdmConfig, steps: number): readonly number[] {
  const last = final_sigmas_type === "zero" ? 0 : sigma_min;
  if (sigma_schedule === "karras") return [...karrasSigmas(sigma_max, sigma_min, steps, rho), last];
  // The library fills this grid from its lower end, so a single step is at sigma_min.
  return [...exponentialSigmas(steps === 1 ? sigma_min : sigma_max, sigma_min, steps), last];
}

/** Deviation of the initial latent: the library adds the noise to data of unit variance. */
export function edmInitialScale({ sigma_max }: { readonly sigma_max: number }): number {
  return Math.sqrt(sigma_max ** 2 + 1);
}

/** Throws UNSUPPORTED_SCHEDULER for the prediction type that the library lists but does not define. */
export function edmPrediction(className: string, { prediction_type: prediction }: EdmConfig): "epsilon" | "v_prediction" {
  if (prediction !== "sample") return prediction;
  const hint = 'EDM networks predict "epsilon" or "v_prediction".';
  throw unsupportedScheduler(className, '"prediction_type": "sample"', "the library does not define it", hint);
}

export interface EdmRun {
  /** One more than rows. */
  readonly sigmas: readonly number[];
  readonly sigmaData: number;
  readonly prediction: "epsilon" | "v_prediction";
  /** The time that the model gets at a sigma. */
  readonly timeOf: (sigma: number) => number;
  /** How many predicted samples row k uses, at most k + 1. */
  readonly orderAt: (k: number) => number;
  /** The step between two levels with predictions at nodes, the nearest first. */
  readonly solve: (nodes: readonly Level[], to: Level) => LambdaStep;
}

/** Rows that keep predicted samples (table 1: c_skip · x + c_out · out of a network that sees c_in · x). */
export function edmRows({ sigmas, sigmaData, prediction, timeOf, orderAt, solve }: EdmRun): readonly Row[] {
  const levels = sigmas.map((sigma): Level => ({ alpha: 1, sigma, lambda: -Math.log(sigma) }));
  return sigmas.slice(0, -1).map((sigma, k): Row => {
    const nodes = Array.from({ length: orderAt(k) }, (_, back) => entryAt(levels, k - back));
    const { x, m, noise } = solve(nodes, entryAt(levels, k + 1));
    const variance = sigma ** 2 + sigmaData ** 2;
    const out = (sigma * sigmaData) / Math.sqrt(variance);
    return {
      timestep: timeOf(sigma),
      sigma,
      level: noiseLevel({ sigma }),
      inputScale: 1 / Math.sqrt(variance),
      m: { x: sigmaData ** 2 / variance, out: prediction === "epsilon" ? out : -out },
      next: { x: [{ step: k, weight: x }], m: m.map((weight, back) => ({ step: k - back, weight })), noise },
    };
  });
}

/** c_noise of table 1. */
export function logTime(sigma: number): number {
  return Math.log(sigma) / 4;
}

/** The angle of signal and noise as a share of a quarter turn: v-diffusion's time. */
export function angularTime(sigma: number): number {
  return (Math.atan(sigma) / Math.PI) * 2;
}
