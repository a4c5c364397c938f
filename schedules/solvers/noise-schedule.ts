/** Variance-preserving noise schedules: from a scheduler's configuration to alphaBar, the share of signal left at each training time. */
import { z } from "zod";
import { badJsonField } from "../diagnostics.js";
import { MAX_TRAIN_TIMES } from "../../ir/limits.js";
import { linspace } from "./spacing.js";

/** The variance that a training time adds, as a share. */
const beta = z.number().min(0).max(1);

/** The keys that every class of this family has, with diffusers' defaults. */
export const betaKeys = {
  num_train_timesteps: z.int().min(1).max(MAX_TRAIN_TIMES).default(1000),
  beta_start: beta.default(0.0001),
  beta_end: beta.default(0.02),
  beta_schedule: z.enum(["linear", "scaled_linear", "squaredcos_cap_v2"]).default("linear"),
  trained_betas: z.array(beta).min(1).nullable().default(null),
};

/** The same with the key that some classes lack. */
export const noiseScheduleKeys = { ...betaKeys, rescale_betas_zero_snr: z.boolean().default(false) };

export type NoiseScheduleConfig = Omit<z.output<z.ZodObject<typeof betaKeys>>, "beta_schedule"> & {
  /** The last three are of single classes. */
  readonly beta_schedule: "linear" | "scaled_linear" | "squaredcos_cap_v2" | "exp" | "laplace" | "sigmoid";
  readonly rescale_betas_zero_snr?: boolean;
};

/** Noise variances β_t (arXiv 2006.11239), one a training time. Throws BAD_JSON_FIELD if as many are not given. */
function betas(config: NoiseScheduleConfig): readonly number[] {
  const { num_train_timesteps: count, beta_start: start, beta_end: end, trained_betas: trained } = config;
  if (trained && trained.length !== count)
    throw badJsonField("scheduler configuration", "trained_betas", `has ${trained.length} numbers for ${count} training times`);
  if (trained) return trained;
  switch (config.beta_schedule) {
    case "linear":
      return linspace(start, end, count);
    case "scaled_linear":
      return linspace(Math.sqrt(start), Math.sqrt(end), count).map((root) => root * root);
    case "squaredcos_cap_v2":
      return betasFromAlphaBar(count, (u) => Math.cos(((u + 0.008) / 1.008) * (Math.PI / 2)) ** 2);
    case "exp":
      return betasFromAlphaBar(count, (u) => Math.exp(-12 * u));
    case "laplace":
      return betasFromAlphaBar(count, laplaceAlphaBar);
    case "sigmoid":
      return linspace(-6, 6, count).map((u) => start + (end - start) / (1 + Math.exp(-u)));
    default:
      throw new Error(`internal: beta schedule ${String(config.beta_schedule satisfies never)}`);
  }
}

/** β_t of a continuous alphaBar on [0, 1], at most 0.999 (diffusers `betas_for_alpha_bar`; arXiv 2102.09672, eq. 17). */
export function betasFromAlphaBar(count: number, alphaBar: (u: number) => number): readonly number[] {
  return Array.from({ length: count }, (_, t) => Math.min(1 - alphaBar((t + 1) / count) / alphaBar(t / count), 0.999));
}

/** diffusers `betas_for_alpha_bar` with "laplace" (arXiv 2407.03297). */
function laplaceAlphaBar(u: number): number {
  const lambda = -0.5 * (u > 0.5 ? -1 : 1) * Math.log(1 - 2 * Math.abs(0.5 - u) + 1e-6);
  return Math.sqrt(1 / (1 + Math.exp(-lambda)));
}

/**
 * alphaBar_t = Π (1 − β_s), s ≤ t, one a training time; the last is exactly 0 under `rescale_betas_zero_snr`.
 * `snrShift` divides the signal-to-noise ratio alphaBar / (1 − alphaBar). Throws BAD_JSON_FIELD.
 */
export function alphaBars(config: NoiseScheduleConfig, snrShift = 1): readonly number[] {
  let product = 1;
  const bars = betas(config).map((beta) => {
    product *= 1 - beta;
    return product / (snrShift + (1 - snrShift) * product);
  });
  return config.rescale_betas_zero_snr ? rescaledToZeroSnr(bars) : bars;
}

/** Noise over signal at each training time. Where zero SNR leaves no signal, the library uses alphaBar = 2⁻²⁴. */
export function trainedSigmas(config: NoiseScheduleConfig): readonly number[] {
  return alphaBars(config)
    .map((bar) => (bar === 0 ? 2 ** -24 : bar))
    .map((bar) => Math.sqrt((1 - bar) / bar));
}

/** Shifts and scales √alphaBar so that the last is 0 and the first stays (arXiv 2305.08891, algorithm 1). */
function rescaledToZeroSnr(bars: readonly number[]): readonly number[] {
  const roots = bars.map(Math.sqrt);
  const first = roots[0] ?? 1;
  const last = roots.at(-1) ?? 0;
  return roots.map((root) => ((root - last) * (first / (first - last))) ** 2);
}
