/** How steps chain: a sampler as a table of numbers. */
import type { z } from "zod";
import type { Named } from "../ir/registry.js";

/** One summand of a weighted sum over steps: `weight` times the value of step `step` (0 = first executed). */
export interface Term {
  readonly step: number;
  readonly weight: number;
}

/** One model evaluation. */
export interface Row {
  /** What the model is told as time. */
  readonly timestep: number;
  /** The model sees `inputScale` · x_k. */
  readonly inputScale: number;
  /** The history value m_k = x · x_k + out · out_k, clamped to ±clip where given; out_k is the model's output after guidance. */
  readonly m: { readonly x: number; readonly out: number; readonly clip?: number | undefined };
  /** x_{k+1} = Σ weight · x_step + Σ weight · m_step + Σ weight · out_step + noise · z_k, with z_k a fresh normal. */
  readonly next: {
    readonly x: readonly Term[];
    readonly m: readonly Term[];
    /** Outputs themselves, beside m: where m is clamped. */
    readonly out?: readonly Term[] | undefined;
    readonly noise: number;
    readonly learned?: LearnedVariance | undefined;
  };
}

/**
 * The noise has the deviation exp(½ (f · max + (1 − f) · min)) with f = (v + 1) / 2 and v the model's variance: the channels right
 * after the prediction's, of the conditional half (arXiv 2102.09672, eq. 15; `learned_range` of diffusers' DDPM). `min` and `max`
 * are logarithms of variances. z_k is a unit normal where nothing is learned.
 */
export interface LearnedVariance {
  readonly min: number;
  readonly max: number;
}

/** What the model predicts; a label for people, as the rows already turn it into the next latent. */
export type Prediction = "epsilon" | "v_prediction" | "sample" | "flow";

/** A sampler, whole: x_0 = `initialScale` · unit normal noise, then one row per model evaluation. */
export interface SamplerTable {
  readonly name: string;
  readonly prediction: Prediction;
  readonly initialScale: number;
  readonly rows: readonly Row[];
}

/** The settings of one sampling run, beside the scheduler's own configuration. */
export interface SamplerOptions {
  readonly steps: number;
  /** The grid of noise levels in sampling order, as long as `steps`. */
  readonly sigmas?: readonly number[] | undefined;
  /** The grid of times in sampling order, as long as `steps`. */
  readonly timesteps?: readonly number[] | undefined;
  /** Logarithm of the time shift under dynamic shifting. */
  readonly mu?: number | undefined;
  /** Share of fresh noise in DDIM: 0 none, 1 as much as DDPM. */
  readonly eta?: number | undefined;
}

export type SamplerSetting = Exclude<keyof SamplerOptions, "steps">;

/** One class of schedulers: a file of `samplers/`, named as diffusers names the file of the class. */
export interface Sampler<Config extends z.ZodObject = z.ZodObject> extends Named {
  /** `_class_name` in the scheduler's configuration. */
  readonly className: string;
  /** The keys of the configuration that this class knows, with the library's defaults. */
  readonly config: Config;
  /** The settings beside `steps` that it takes; others are refused. */
  readonly takes: readonly SamplerSetting[];
  /** The table. Throws UNSUPPORTED_SCHEDULER for what is no linear row, and SAMPLER_OPTION for settings that do not fit. */
  table(config: z.output<Config>, options: SamplerOptions): SamplerTable;
}
