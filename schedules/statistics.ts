/** What calibration measures of one branch over the steps, and what follows from it: error curves, errors of forecasts. */
import type { Term } from "./sampler.js";

/**
 * Sums over the samples of a calibration, with F_s the branch's value at step s (all rows of the network's batch, guidance halves
 * included). Entries with s < l mean nothing.
 */
export interface SiteStatistics {
  /** [s]: Σ ‖F_s‖₁. */
  readonly norm: readonly number[];
  /** [l − 1][s]: Σ ‖F_s − F_{s−l}‖₁. */
  readonly diff: readonly (readonly number[])[];
  /** [sample][l − 1][s]: ‖F_s − F_{s−l}‖₁ / ‖F_s‖₁ (SmoothCache, arXiv 2411.10510, §3.2). */
  readonly ratio: readonly (readonly (readonly number[])[])[];
  /** [l][s]: Σ ⟨F_s, F_{s−l}⟩, as far back as the calibration looked. */
  readonly gram: readonly (readonly number[])[];
  /** [s]: Σ of the mean over tokens of ‖F_s[token]‖₂ / ‖F_{s−1}[token]‖₂ (MagCache, arXiv 2506.09045, eq. 3). */
  readonly gain: readonly number[];
}

/**
 * Relative L1 errors of reusing a value: `[lag − 1][step]` is ‖F_step − F_{step−lag}‖₁ / ‖F_step‖₁ of the branches that
 * decide together; entries with step < lag mean nothing. There is one row a lag, up to the longest that was measured.
 */
export type ErrorBands = readonly (readonly number[])[];

export interface ErrorCurves {
  /** Mean over branches and samples of the ratio (SmoothCache's paper, arXiv 2411.10510, eq. 4). */
  readonly mean: ErrorBands;
  /** Mean over branches of Σ‖F_step − F_{step−lag}‖₁ / Σ‖F_step‖₁ over samples (SmoothCache's code: one ratio for the whole batch). */
  readonly pooled: ErrorBands;
}

/** Error curves of branches that decide together: means over them. */
export function errorCurves(sites: readonly SiteStatistics[]): ErrorCurves {
  const lags = Math.min(...sites.map(({ diff }) => diff.length));
  const steps = sites[0]?.norm.length ?? 0;
  const bands = (errorOf: (site: SiteStatistics, lag: number, step: number) => number): ErrorBands =>
    Array.from({ length: lags }, (_, lag) =>
      Array.from({ length: steps }, (_, step) => (step <= lag ? 0 : mean(sites.map((site) => errorOf(site, lag, step))))),
    );
  return {
    mean: bands(({ ratio }, lag, step) => mean(ratio.map((sample) => sample[lag]?.[step] ?? NaN))),
    pooled: bands(({ diff, norm }, lag, step) => (diff[lag]?.[step] ?? NaN) / (norm[step] ?? NaN)),
  };
}

/** Σ ⟨F_i, F_j⟩ over samples; NaN beyond what the calibration looked back. */
export function innerProduct({ gram }: SiteStatistics, i: number, j: number): number {
  return gram[Math.abs(i - j)]?.[Math.max(i, j)] ?? NaN;
}

/**
 * Relative L2 error ‖F_step − Σ w·F‖ / ‖F_step‖ of a weighted sum of earlier values, pooled over samples, mean over branches. It follows
 * from the inner products alone: ‖Σ c_i F_i‖² = Σ c_i c_j ⟨F_i, F_j⟩. NaN beyond what the calibration looked back.
 */
export function forecastError(sites: readonly SiteStatistics[], step: number, terms: readonly Term[]): number {
  const parts = [{ step, weight: -1 }, ...terms];
  return mean(
    sites.map((site) => {
      let square = 0;
      for (const a of parts) for (const b of parts) square += a.weight * b.weight * innerProduct(site, a.step, b.step);
      return Math.sqrt(Math.max(0, square) / innerProduct(site, step, step));
    }),
  );
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
