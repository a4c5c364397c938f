/** A sampler as a table of numbers, which says how each latent follows from earlier values. */
import type { z } from "zod";
import type { Named } from "../ir/registry.js";

/** One summand of a weighted sum over steps: `weight` times the value of step `step` (0 = first executed). */
export interface Term {
  readonly step: number;
  readonly weight: number;
}

/** The weighted sum of several sums as one sum in which every step occurs once. */
export function sumOfTerms(parts: readonly { readonly weight: number; readonly terms: readonly Term[] }[]): readonly Term[] {
  const weights = new Map<number, number>();
  for (const part of parts) {
    for (const { step, weight } of part.terms) weights.set(step, (weights.get(step) ?? 0) + part.weight * weight);
  }
  return [...weights].map(([step, weight]) => ({ step, weight }));
}

/** How much of the sample and of unit normal noise a latent holds: x = signal · sample + noise · unit normal. */
export interface NoiseLevel {
  readonly signal: number;
  readonly noise: number;
}

/** One evaluation of the network. */
export interface Row {
  /** The time that the network gets. */
  readonly timestep: number;
  /** What x_k holds, for what takes its place (`startLevel`, `levelsBehind`). Absent where a table does not say. */
  readonly level?: NoiseLevel | undefined;
  /**
   * The noise level of x_k, in the class's own terms: x = sample + sigma · noise (where alpha is not 1, of x / alpha), in flows
   * x = (1 − sigma) · sample + sigma · noise. Absent in classes without one. Only for display: nothing is computed from it.
   */
  readonly sigma?: number | undefined;
  /** The model sees `inputScale` · x_k. */
  readonly inputScale: number;
  /** The history value m_k = x · x_k + out · out_k, where out_k is the model's output after guidance; clamped to ± clip where given. */
  readonly m: { readonly x: number; readonly out: number; readonly clip?: number | undefined };
  /** x_{k+1} = Σ weight · x_step + Σ weight · m_step + Σ weight · out_step + noise · std · z_k, with z_k a fresh unit normal. */
  readonly next: {
    readonly x: readonly Term[];
    readonly m: readonly Term[];
    /** Raw outputs: only needed if m is clamped but another term needs the value before clamping. */
    readonly out?: readonly Term[] | undefined;
    readonly noise: number;
    /** Present if the model predicts std, interpolated between two logarithms of a variance; else std is 1. */
    readonly learned?: LearnedVariance | undefined;
  };
}

/**
 * std = exp(½ (f · max + (1 − f) · min)) with f = (v + 1) / 2 (arXiv 2102.09672, eq. 15), where v is the output's variance: the
 * channels right after the prediction's, under guidance those of the conditional half.
 */
export interface LearnedVariance {
  readonly min: number;
  readonly max: number;
}

/** What the model predicts. Only a label, as the rows already contain the conversion. */
export type Prediction = "epsilon" | "v_prediction" | "sample" | "flow";

/** A whole sampler: x_0 = `initialScale` · unit normal noise, then one row per evaluation of the network. */
export interface SamplerTable {
  readonly name: string;
  readonly prediction: Prediction;
  readonly initialScale: number;
  /** Present if rows also correct the latent that they start from: in diffusers' classes what takes its place has no effect on that. */
  readonly corrects?: true | undefined;
  readonly rows: readonly Row[];
}

/**
 * The level that a run starts at which begins with the sample it is given and not with noise alone, as diffusers' image-to-image pipelines
 * bring an image to it (`scale_noise`, `add_noise`). Undefined if the table does not say.
 */
export function startLevel({ rows: [first] }: SamplerTable): NoiseLevel | undefined {
  return first?.level;
}

/**
 * For each row the level of the latent that it leads to: that of the next row, and behind the last one the sample alone, as in diffusers'
 * inpaint pipelines. Undefined if the table does not say, or if latents cannot be replaced.
 */
export function levelsBehind({ rows, corrects }: SamplerTable): readonly NoiseLevel[] | undefined {
  if (corrects) return undefined;
  const levels = [...rows.slice(1).map(({ level }) => level), { signal: 1, noise: 0 }];
  return levels.every((level) => level !== undefined) ? levels : undefined;
}

/** The rows whose network output has an effect on a later latent. A step of length 0 or without signal has none. */
export function evaluationsThatCount({ rows }: SamplerTable): ReadonlySet<number> {
  const counts = rows.flatMap(({ next }, k) => [
    ...(next.learned ? [{ step: k }] : []),
    ...next.m.filter(({ step, weight }) => weight !== 0 && rows[step]?.m.out !== 0),
    ...(next.out ?? []).filter(({ weight }) => weight !== 0),
  ]);
  return new Set(counts.map(({ step }) => step));
}

/**
 * The rows of a table from `start` on, for a run that is given x_start. Undefined if a row reads values from before `start`; a sampler
 * with a history avoids that by starting its history at `options.start`.
 */
export function tableFrom(table: SamplerTable, start: number): SamplerTable | undefined {
  if (start === 0) return table;
  const moved = (terms: readonly Term[]): readonly Term[] => terms.map(({ step, weight }) => ({ step: step - start, weight }));
  const rows = table.rows.slice(start).map(({ next, ...row }) => ({
    ...row,
    next: { ...next, x: moved(next.x), m: moved(next.m), ...(next.out && { out: moved(next.out) }) },
  }));
  const reachesBack = rows.some(({ next }) => [...next.x, ...next.m, ...(next.out ?? [])].some(({ step }) => step < 0));
  return reachesBack ? undefined : { ...table, initialScale: 1, rows };
}

/** The settings of one sampling run, besides the scheduler's configuration. */
export interface SamplerOptions {
  readonly steps: number;
  /** The grid of noise levels in sampling order, as long as `steps`. */
  readonly sigmas?: readonly number[] | undefined;
  /** The grid of times in sampling order, as long as `steps`. */
  readonly timesteps?: readonly number[] | undefined;
  /** Logarithm of the time shift under dynamic shifting. */
  readonly mu?: number | undefined;
  /** The share of fresh noise in DDIM: 0 for none, 1 for as much as DDPM. */
  readonly eta?: number | undefined;
  /** The first step that is run, counted from 0. The run starts from the latent of that step, as in image-to-image. */
  readonly start?: number | undefined;
  /** Whether rows may be more than weighted sums (`clip`, `learned`). If not set, such samplers are refused. */
  readonly nonlinear?: boolean | undefined;
}

export type SamplerSetting = Exclude<keyof SamplerOptions, "steps" | "start" | "nonlinear">;

/**
 * One class of schedulers: the default export of a file of `samplers/`. Its `name` is the name of that file, which is the one that
 * diffusers gives the file of the class.
 */
export interface Sampler<Config extends z.ZodObject = z.ZodObject> extends Named {
  /** `_class_name` in the scheduler's configuration. */
  readonly className: string;
  /** Other class names for it in configurations. */
  readonly aliases?: readonly string[] | undefined;
  /** The keys of the configuration that this class knows, with the library's defaults. */
  readonly config: Config;
  /** The settings beside `steps` that it takes; others are refused. */
  readonly takes: readonly SamplerSetting[];
  /** The table. Throws UNSUPPORTED_SCHEDULER for what a row cannot express, and SAMPLER_OPTION for settings that do not fit. */
  table(config: z.output<Config>, options: SamplerOptions): SamplerTable;
}
