/** One step of the DPM-Solver family (arXiv 2206.00927, 2211.01095), in all the forms in which diffusers has it. */
import { unsupportedScheduler } from "../ir/diagnostics.js";
import { at, mirrored, noiseOf, sampleOf, type Level, type PredictionType } from "./levels.js";
import { exponentialMoments, interpolationWeights } from "./quadrature.js";

/** In terms of predicted samples (`++`) or predicted noise; as an ODE or, with fresh noise at every step, as an SDE. */
export type DpmAlgorithm = "dpmsolver" | "dpmsolver++" | "sde-dpmsolver" | "sde-dpmsolver++";

export interface DpmStep {
  /** Weight of the latent at the step's base. */
  readonly x: number;
  /** Weights of the predictions at the given nodes, in their order. */
  readonly m: readonly number[];
  readonly noise: number;
}

/**
 * A step from the level `base` to the level `to` with predictions at the levels `nodes`, of which `base` is the first.
 * The polynomial through them replaces the prediction under the integral; `midpoint` takes a coarser integral of its slope.
 * `curveShare` is the share of the curvature's integral that the solver takes.
 */
export function dpmStep(
  algorithm: DpmAlgorithm,
  solverType: "midpoint" | "heun",
  nodes: readonly Level[],
  to: Level,
  curveShare: number,
): DpmStep {
  const isNoise = predictsNoise(algorithm);
  const isSde = algorithm === "sde-dpmsolver" || algorithm === "sde-dpmsolver++";
  const seen = isNoise ? mirrored : (level: Level): Level => level;
  const base = seen(at(nodes, 0));
  const end = seen(to);
  const length = end.lambda - base.lambda;
  // The weights of the SDE over samples are those of the ODE at 2h; those of the SDE over noise are twice those of the ODE.
  const moments = [...exponentialMoments(length, algorithm === "sde-dpmsolver++" ? 2 * length : length, nodes.length)];
  const [mean = NaN, , curve = NaN] = moments;
  if (solverType === "midpoint" && nodes.length === 2) moments[1] = (length * mean) / 2;
  // The library's SDE has −½ where the expansion has +½: runs must reproduce the library's.
  if (nodes.length === 3) moments[2] = curveShare * (algorithm === "sde-dpmsolver++" ? curve - 2 * length ** 2 : curve);
  const places = nodes.map((node) => seen(node).lambda - base.lambda);
  const scale = end.alpha * (algorithm === "sde-dpmsolver" ? 2 : 1);
  return {
    x: (end.sigma / base.sigma) * (algorithm === "sde-dpmsolver++" ? Math.exp(-length) : 1),
    m: interpolationWeights(places, moments).map((weight) => scale * weight),
    noise: isSde ? to.sigma * Math.sqrt(Math.abs(Math.expm1(-2 * length))) : 0,
  };
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
