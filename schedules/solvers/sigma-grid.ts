/** Grids of noise levels sigma = √((1 − alphaBar) / alphaBar), and the way back from a sigma to a training time. */
import { z } from "zod";
import { unsupportedScheduler } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { linspace } from "./spacing.js";

/** The keys by which a configuration names one of the grids below. */
export const namedGridKeys = {
  use_karras_sigmas: z.boolean().nullable().default(false),
  use_exponential_sigmas: z.boolean().nullable().default(false),
  use_beta_sigmas: z.boolean().nullable().default(false),
};

export type GridName = "karras" | "exponential" | "beta";

/** Karras et al., arXiv 2206.00364, eq. 5: evenly spaced in sigma^(1/rho), from `max` to `min`. */
export function karrasSigmas(max: number, min: number, count: number, rho = 7): number[] {
  return evenlyIn(
    max,
    min,
    count,
    (sigma) => sigma ** (1 / rho),
    (root) => root ** rho,
  );
}

/** Evenly spaced in ln sigma, from `max` to `min`. */
export function exponentialSigmas(max: number, min: number, count: number): number[] {
  return evenlyIn(max, min, count, Math.log, Math.exp);
}

/** The exponential grid with the place in it to the power `rho` (k-diffusion's `get_sigmas_polyexponential`). */
export function polyexponentialSigmas(max: number, min: number, count: number, rho: number): number[] {
  return linspace(1, 0, count).map((u) => min * (max / min) ** (u ** rho));
}

/** Quantiles of the beta distribution with both shapes 0.6, stretched over [min, max] (arXiv 2407.12173). */
export function betaSigmas(max: number, min: number, count: number, shape = 0.6): number[] {
  return linspace(0, 1, count).map((u) => min + symmetricBetaQuantile(1 - u, shape) * (max - min));
}

/** Which of the grids above the configuration names. Throws UNSUPPORTED_SCHEDULER if it is more than one. */
export function namedGrid(
  className: string,
  config: { readonly [Key in `use_${GridName}_sigmas`]?: boolean | null },
): GridName | undefined {
  const asked = (["karras", "exponential", "beta"] as const).filter((grid) => config[`use_${grid}_sigmas`]);
  if (asked.length > 1)
    throw unsupportedScheduler(className, `${asked.join(" and ")} sigmas`, "they exclude each other", "Choose one grid.");
  return asked[0];
}

/** `count` sigmas of a named grid. Lu et al.'s (arXiv 2206.00927) is the exponential one. */
export function namedSigmas(grid: GridName | "lu", max: number, min: number, count: number): number[] {
  const grids = { karras: karrasSigmas, exponential: exponentialSigmas, beta: betaSigmas, lu: exponentialSigmas };
  return grids[grid](max, min, count);
}

/** Rectified flow: u in (0, 1) shifted towards noise, shift · u / (1 + (shift − 1) · u) (arXiv 2403.03206, eq. 23). */
export function shiftedSigma(u: number, shift: number): number {
  return (shift * u) / (1 + (shift - 1) * u);
}

/** The ends are exact: a grid starts and ends at a training time, and a repeated last sigma is an interval of 0. */
function evenlyIn(max: number, min: number, count: number, forward: (sigma: number) => number, back: (value: number) => number): number[] {
  return linspace(forward(max), forward(min), count).map((value, i) => (i === 0 ? max : i === count - 1 ? min : back(value)));
}

/** The value at `position` between the entries of `values`, linear, the ends held (numpy's `interp`). */
export function interpolate(values: readonly number[], position: number): number {
  if (Number.isNaN(position)) return NaN;
  const low = Math.min(Math.max(Math.floor(position), 0), values.length - 1);
  const below = entryAt(values, low);
  const above = entryAt(values, Math.min(low + 1, values.length - 1));
  return position <= 0 ? below : below + (position - low) * (above - below);
}

/** Fractional training time of a sigma: linear in ln sigma between the training sigmas, which rise (diffusers `_sigma_to_t`). */
export function timeOfSigma(sigma: number, logSigmas: readonly number[]): number {
  if (logSigmas.length === 1) return 0;
  const wanted = Math.log(Math.max(sigma, 1e-10));
  const found = logSigmas.findLastIndex((logSigma) => wanted - logSigma >= 0);
  const low = Math.min(Math.max(found, 0), logSigmas.length - 2);
  const below = entryAt(logSigmas, low);
  const above = entryAt(logSigmas, low + 1);
  const weight = Math.min(Math.max((below - wanted) / (below - above), 0), 1);
  return (1 - weight) * low + weight * (low + 1);
}

/** The p-quantile of the beta distribution whose two shapes are both `shape`, by bisection. */
function symmetricBetaQuantile(p: number, shape: number): number {
  if (p > 0.5) return 1 - symmetricBetaQuantile(1 - p, shape);
  const target = p * 2 * betaIntegral(0.5, shape);
  let low = 0;
  let high = 0.5;
  for (let middle = 0.25; low < middle && middle < high; middle = (low + high) / 2) {
    if (betaIntegral(middle, shape) < target) low = middle;
    else high = middle;
  }
  return high;
}

/** ∫ t^(a−1) (1−t)^(a−1) dt from 0 to x ≤ ½, by its power series. */
function betaIntegral(x: number, a: number): number {
  let sum = 1 / a;
  let power = 1;
  for (let n = 1; power > 1e-18; n++) {
    power *= ((n - a) / n) * x;
    sum += power / (a + n);
  }
  return x ** a * sum;
}
