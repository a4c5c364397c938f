/**
 * One step of an exponential integrator:
 * it solves the linear part of the diffusion exactly and interpolates past predictions by a polynomial in lambda.
 */
import { type Level, mirrored } from "./levels.js";
import { exponentialMoments, interpolationWeights } from "./quadrature.js";

/**
 * What is kept of the model's output (sample or noise), and how much fresh noise a step adds: `tau`² times that of the reverse diffusion.
 */
export interface Integrator {
  readonly keeps: "sample" | "noise";
  readonly tau: number;
}

export interface LambdaStep {
  /** Weight of the latent at the step's base. */
  readonly x: number;
  /** Weights of the predictions at the given nodes, in their order. */
  readonly m: readonly number[];
  readonly noise: number;
}

/**
 * Replaces the exact integrals by coarser ones: `exact[n]` is the integral of (lambda − lambda_base)^n;
 * `reach` as in `exponentialMoments`.
 */
export type Moments = (exact: readonly number[], length: number, reach: number) => readonly number[];

/**
 * A step between two levels with predictions at `nodes` (arXiv 2309.05019, proposition 4.2; tau = 0 is DPM-Solver's ODE, 1 its SDE).
 * In terms of noise it is the same step on mirrored levels.
 */
export function lambdaStep(
  { keeps, tau }: Integrator,
  from: Level,
  to: Level,
  nodes: readonly Level[],
  moments: Moments = (exact) => exact,
): LambdaStep {
  const isNoise = keeps === "noise";
  const [base, end] = isNoise ? [mirrored(from), mirrored(to)] : [from, to];
  const length = end.lambda - base.lambda;
  const spread = 1 + tau ** 2;
  const reach = isNoise ? length : spread * length;
  const places = nodes.map((node) => (node === from ? 0 : (isNoise ? -node.lambda : node.lambda) - base.lambda));
  // A node without any signal, as the first of a run may be, is infinitely far away and has no weight.
  const isAway = (place: number): boolean => Math.abs(place) === Infinity;
  const scale = end.alpha * (isNoise ? spread : 1);
  const exact = exponentialMoments(length, reach, nodes.length);
  const fade = isNoise || tau === 0 ? 1 : Math.exp(-(tau ** 2) * length);
  const gain = isNoise ? tau ** 2 * Math.expm1(-2 * length) : -Math.expm1(-2 * tau ** 2 * length);
  const weights = interpolationWeights(
    places.filter((place) => !isAway(place)),
    moments(exact, length, reach),
  ).values();
  return {
    x: (end.sigma / base.sigma) * fade,
    m: places.map((place) => (isAway(place) ? 0 : scale * (weights.next().value ?? NaN))),
    noise: tau === 0 ? 0 : to.sigma * Math.sqrt(gain),
  };
}

/** Evaluates the slope of two predictions at the middle of the step: DPM-Solver's midpoint, UniPC's B₂. */
export const slopeOfMean: Moments = ([mean = NaN], length) => [mean, (length * mean) / 2];

/** Integrates the slope of two predictions without the exponential decay: UniPC's B₁, SA-Solver at order 2. */
export const slopeUndecayed: Moments = ([mean = NaN], length, reach) => [mean, (length * reach) / 2];
