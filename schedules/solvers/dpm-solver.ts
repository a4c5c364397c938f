/** One step of the DPM-Solver family (arXiv 2206.00927, 2211.01095), in all variants of diffusers. */
import { z } from "zod";
import { unsupportedScheduler } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { lambdaStep, type LambdaStep, type Moments, slopeOfMean } from "./lambda-step.js";
import { type Level, noiseOf, type PredictionType, sampleOf } from "./levels.js";

/** In terms of predicted samples (`++`) or predicted noise; as an ODE or, with fresh noise at every step, as an SDE. */
export type DpmAlgorithm = "dpmsolver" | "dpmsolver++" | "sde-dpmsolver" | "sde-dpmsolver++";

/** The algorithm of a configuration. `deis` belongs to another class; the library uses `dpmsolver++` for it. */
export function algorithmOf<A extends DpmAlgorithm>(named: A | "deis"): A | "dpmsolver++" {
  return named === "deis" ? "dpmsolver++" : named;
}

/** `solver_type` of a configuration. The last three belong to other classes; the library uses midpoint for them. */
export const dpmSolverType = z
  .enum(["midpoint", "heun", "logrho", "bh1", "bh2"])
  .default("midpoint")
  .transform((type) => (type === "heun" ? type : "midpoint"));

/** How an SDE goes: `eta` is its noise as a multiple of the reverse diffusion's. */
export interface SdeForm {
  readonly eta: number;
  /** Whether the third order over samples has −½ where the expansion has +½, as in diffusers: runs must reproduce it. */
  readonly hasSlip: boolean;
}

const DIFFUSERS_SDE: SdeForm = { eta: 1, hasSlip: true };

/**
 * A step from the first of the levels `nodes` to the level `to` with predictions at the nodes.
 * The polynomial through them replaces the prediction under the integral; `midpoint` takes a coarser integral of its slope.
 * `curveShare` is the share of the curvature's integral that the solver takes.
 */
export function dpmStep(
  algorithm: DpmAlgorithm,
  solverType: "midpoint" | "heun",
  nodes: readonly Level[],
  to: Level,
  curveShare: number,
  { eta, hasSlip }: SdeForm = DIFFUSERS_SDE,
): LambdaStep {
  const isSde = algorithm === "sde-dpmsolver" || algorithm === "sde-dpmsolver++";
  const slips = hasSlip && algorithm === "sde-dpmsolver++";
  const moments: Moments = (exact, length, reach) => {
    const [mean = NaN, slope = NaN, curve] = exact;
    if (curve !== undefined) return [mean, slope, curveShare * (slips ? curve - 2 * length ** 2 : curve)];
    return solverType === "midpoint" ? slopeOfMean(exact, length, reach) : exact;
  };
  const keeps = predictsNoise(algorithm) ? "noise" : "sample";
  return lambdaStep({ keeps, tau: isSde ? Math.sqrt(eta) : 0 }, entryAt(nodes, 0), to, nodes, moments);
}

/** What a solver keeps of the model's output: the predicted sample, or the predicted noise. */
export function dpmPrediction(algorithm: DpmAlgorithm): typeof sampleOf {
  return predictsNoise(algorithm) ? noiseOf : sampleOf;
}

/** Throws UNSUPPORTED_SCHEDULER for what the library refuses of the solvers in terms of noise. */
export function refuseDpmSettings(
  className: string,
  algorithm: DpmAlgorithm,
  config: { readonly final_sigmas_type: string; readonly prediction_type: PredictionType },
): void {
  if (!predictsNoise(algorithm)) return;
  const hint = `Set "algorithm_type": "${algorithm}++", which diffusers recommends in its place.`;
  const setting = `"algorithm_type": "${algorithm}"`;
  if (config.final_sigmas_type === "zero")
    throw unsupportedScheduler(className, `${setting} and "final_sigmas_type": "zero"`, "noise cannot be told from nothing", hint);
  if (config.prediction_type === "flow_prediction")
    throw unsupportedScheduler(className, `${setting} and "prediction_type": "flow_prediction"`, "diffusers does not define it", hint);
}

function predictsNoise(algorithm: DpmAlgorithm): boolean {
  return algorithm === "dpmsolver" || algorithm === "sde-dpmsolver";
}

/** The order at a step: limited by the number of earlier steps in this run, and lowered at the end if the configuration asks for it. */
export function dpmOrder(
  k: number,
  steps: number,
  config: {
    readonly solver_order: number;
    readonly lower_order_final: boolean;
    readonly euler_at_final: boolean;
    readonly final_sigmas_type: "zero" | "sigma_min";
  },
  start = 0,
): number {
  const lowersEnd = config.lower_order_final && steps < 15;
  const lastIsFirst = config.euler_at_final || lowersEnd || config.final_sigmas_type === "zero";
  const left = steps - k;
  const cap = left === 1 && lastIsFirst ? 1 : left === 2 && lowersEnd ? 2 : 3;
  return Math.min(config.solver_order, Math.max(k - start, 0) + 1, cap);
}
