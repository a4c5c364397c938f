/** The calibration statistics of a branch, and what follows from them: error curves and errors of forecasts. */
import type { Term } from "../sampler.js";

/**
 * Statistics of one branch over the steps of uncached runs. F_s is its value at step s: all rows of the network's batch, or those of
 * its half if guidance makes two calls. Sums run over samples, so statistics of different samples can be added. Entries with s < l are 0.
 */
export interface SiteStatistics {
  /** Σ ‖F_s‖₁. */
  readonly norm: readonly number[];
  /** `[l − 1][s]`: Σ ‖F_s − F_{s−l}‖₁. */
  readonly diff: ErrorBands;
  /** `[sample][l − 1][s]`: ‖F_s − F_{s−l}‖₁ / ‖F_s‖₁ of each sample (SmoothCache, arXiv 2411.10510, §3.2), to 7 digits. */
  readonly ratio: readonly ErrorBands[];
  /** `[l][s]`: Σ ⟨F_s, F_{s−l}⟩. Precise enough that the squared norm of a difference, computed from them, has single precision. */
  readonly gram: ErrorBands;
  /**
   * Σ of the mean over tokens of ‖F_s[token]‖₂ / ‖F_{s−1}[token]‖₂, tokens being lines along the last axis (MagCache,
   * arXiv 2506.09045: γ). A token that was 0 counts as 1. 0 at s = 0.
   */
  readonly gain: readonly number[];
}

/**
 * Relative L1 errors of reusing a value: `[lag − 1][step]` is ‖F_step − F_{step−lag}‖₁ / ‖F_step‖₁ of the branches of a group. Entries
 * with step < lag are undefined. There is one row per lag, up to the longest measured one.
 */
export type ErrorBands = readonly (readonly number[])[];

export interface ErrorCurves {
  /** Mean over branches and samples of the ratio (SmoothCache's paper, arXiv 2411.10510, eq. 4). */
  readonly mean: ErrorBands;
  /** Mean over branches of Σ‖F_step − F_{step−lag}‖₁ / Σ‖F_step‖₁ over samples (SmoothCache's code: one ratio for the whole batch). */
  readonly pooled: ErrorBands;
}

/** Error curves of a group of branches: means over branches and samples. */
export function errorCurves(sites: readonly SiteStatistics[]): ErrorCurves {
  return {
    mean: bandsOf(sites, (lag, step) => mean(depthMeans(sites, lag, step))),
    pooled: bandsOf(sites, (lag, step) => mean(sites.map(({ diff, norm }) => measuredAt(diff[lag - 1], step) / measuredAt(norm, step)))),
  };
}

/**
 * Half-widths of the 95 % confidence intervals over samples of the mean curves' entries, `[l − 1][s]`: Student's t with n − 1
 * degrees of freedom times the standard error of the samples' means over depth. Undefined for a single sample.
 */
export function confidence(sites: readonly SiteStatistics[]): ErrorBands | undefined {
  const samples = sites[0]?.ratio.length ?? 0;
  if (samples < 2) return undefined;
  return bandsOf(sites, (lag, step) => halfWidth(depthMeans(sites, lag, step)) ?? NaN);
}

/**
 * Half-width of the 95 % confidence interval of a mean: Student's t with n − 1 degrees of freedom times the standard error.
 * Undefined for a single value.
 */
export function halfWidth(values: readonly number[]): number | undefined {
  const error = standardError(values);
  return error === undefined ? undefined : studentQuantile(values.length - 1) * error;
}

/** The standard error of the mean. Undefined for a single value. */
export function standardError(values: readonly number[]): number | undefined {
  return values.length < 2 ? undefined : deviation(values) / Math.sqrt(values.length);
}

/** t with P(|T| ≤ t) = 0.95 for a whole number of degrees of freedom, from the closed forms of Abramowitz & Stegun, 26.7.3 and 26.7.4. */
export function studentQuantile(freedom: number): number {
  // With t = √ν · tan θ the probability rises from 0 at θ = 0 to 1 at θ = π/2.
  let [low, high] = [0, Math.PI / 2];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (probabilityWithin(middle, freedom) < CONFIDENCE) low = middle;
    else high = middle;
  }
  return Math.sqrt(freedom) * Math.tan(low);
}

const CONFIDENCE = 0.95;

function probabilityWithin(angle: number, freedom: number): number {
  const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
  const isOdd = freedom % 2 === 1;
  let term = isOdd ? cos : 1;
  let sum = 0;
  for (let power = isOdd ? 1 : 0; power <= freedom - 2; power += 2) {
    sum += term;
    term *= ((power + 1) / (power + 2)) * cos * cos;
  }
  return isOdd ? (2 / Math.PI) * (angle + sin * sum) : sin * sum;
}

/** Σ ⟨F_i, F_j⟩ over samples; NaN if the steps are further apart than the calibration looked back. */
export function innerProduct({ gram }: Pick<SiteStatistics, "gram">, i: number, j: number): number {
  return gram[Math.abs(i - j)]?.[Math.max(i, j)] ?? NaN;
}

/**
 * Relative L2 error ‖F_step − Σ w·F‖ / ‖F_step‖ of a weighted sum of earlier values, pooled over samples, mean over branches. NaN if
 * a term is further back than the calibration looked.
 */
export function forecastError(sites: readonly SiteStatistics[], step: number, terms: readonly Term[]): number {
  const parts = [{ step, weight: -1 }, ...terms];
  return mean(sites.map((site) => Math.sqrt(squaredNorm(site, parts) / innerProduct(site, step, step))));
}

/** ‖Σ weight · F_step‖² over samples, from inner products alone: Σ c_i c_j ⟨F_i, F_j⟩. */
export function squaredNorm(site: Pick<SiteStatistics, "gram">, parts: readonly Term[]): number {
  let square = 0;
  for (const a of parts) for (const b of parts) square += a.weight * b.weight * innerProduct(site, a.step, b.step);
  return Math.max(0, square);
}

/** Fills bands by lag and step, for all lags that every site has. */
function bandsOf(sites: readonly SiteStatistics[], valueOf: (lag: number, step: number) => number): ErrorBands {
  const lags = Math.min(...sites.map(({ diff }) => diff.length));
  const steps = sites[0]?.norm.length ?? 0;
  return Array.from({ length: lags }, (_, i) => Array.from({ length: steps }, (_, step) => (step <= i ? 0 : valueOf(i + 1, step))));
}

/** For every sample, the mean ratio over the sites. */
function depthMeans(sites: readonly SiteStatistics[], lag: number, step: number): readonly number[] {
  const samples = sites[0]?.ratio ?? [];
  return samples.map((_, sample) => mean(sites.map(({ ratio }) => measuredAt(ratio[sample]?.[lag - 1], step))));
}

/** NaN where nothing was measured: policies check the curves that they use. */
function measuredAt(values: readonly number[] | undefined, step: number): number {
  return values?.[step] ?? NaN;
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The sample standard deviation, with n − 1. */
function deviation(values: readonly number[]): number {
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}
