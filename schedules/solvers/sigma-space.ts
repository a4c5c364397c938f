/** Shared parts of the samplers from k-diffusion, which step in sigma on latents x = sample + sigma · noise (arXiv 2206.00364). */
import { z } from "zod";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { levelOf, noiseLevel, noiseOf, type PredictionType, sampleOf } from "./levels.js";
import { betaKeys, type NoiseScheduleConfig, trainedSigmas } from "./noise-schedule.js";
import type { Row, SamplerOptions, Term } from "../sampler.js";
import { interpolate, namedGrid, namedGridKeys, namedSigmas, timeOfSigma } from "./sigma-grid.js";
import { roundHalfEven, spacedTimes, timestepSpacing, type TimestepSpacing } from "./spacing.js";

/** The keys that every class of this family has, with diffusers' defaults. */
export const sigmaSpaceKeys = {
  ...betaKeys,
  timestep_spacing: timestepSpacing.default("linspace"),
  steps_offset: z.int().default(0),
};

/** The range of betas that the classes with two evaluations a step have as default. */
export const stableDiffusionBetas = { beta_start: betaKeys.beta_start.default(0.00085), beta_end: betaKeys.beta_end.default(0.012) };

/** The keys of the classes that evaluate in the middle of a step. */
export const midpointKeys = {
  ...sigmaSpaceKeys,
  ...stableDiffusionBetas,
  ...namedGridKeys,
  prediction_type: z.enum(["epsilon", "v_prediction"]).default("epsilon"),
};

export interface SigmaGrid {
  /** The times that the model gets. */
  readonly times: readonly number[];
  /** As many as `times`; the sigma where the run ends is not included. */
  readonly sigmas: readonly number[];
  /** Fractional training time of any sigma. */
  readonly timeOf: (sigma: number) => number;
}

type SigmaGridConfig = NoiseScheduleConfig & {
  readonly timestep_spacing: TimestepSpacing;
  readonly steps_offset: number;
  readonly sigma_min?: number | null;
  readonly sigma_max?: number | null;
} & Partial<z.output<z.ZodObject<typeof namedGridKeys>>>;

export interface SigmaGridForm {
  /** Whether times of Karras sigmas are rounded. */
  readonly roundsKarras?: boolean;
  /** Sigmas in place of those interpolated at the times; the named grids take their ends. */
  readonly sigmasAt?: (times: readonly number[], trained: readonly number[]) => readonly number[];
}

/** The grid as diffusers' `set_timesteps` lays it out. Throws UNSUPPORTED_SCHEDULER, SAMPLER_OPTION, DEGENERATE_TIMES. */
export function sigmaGrid(
  className: string,
  config: SigmaGridConfig,
  { steps, timesteps }: SamplerOptions,
  { roundsKarras = false, sigmasAt = interpolated }: SigmaGridForm = {},
): SigmaGrid {
  const named = namedGrid(className, config);
  if (timesteps && named) throw samplerOption(className, "timesteps", `lays out its own times with ${named} sigmas`);
  if (timesteps && timesteps.length !== steps) throw samplerOption(className, "timesteps", `needs ${steps} times for ${steps} steps`);
  const trained = trainedSigmas(config);
  const logSigmas = trained.map(Math.log);
  const timeOf = (sigma: number): number => timeOfSigma(sigma, logSigmas);
  const spaced = { spacing: config.timestep_spacing, trainTimes: config.num_train_timesteps, offset: config.steps_offset };
  const times = timesteps ?? spacedTimes({ ...spaced, steps, fractional: true });
  const sigmas = sigmasAt(times, trained);
  if (!named) return { times, sigmas, timeOf };
  const grid = namedSigmas(named, config.sigma_max ?? entryAt(sigmas, 0), config.sigma_min ?? entryAt(sigmas, sigmas.length - 1), steps);
  const toTime = (sigma: number): number => (roundsKarras && named === "karras" ? roundHalfEven(timeOf(sigma)) : timeOf(sigma));
  return { times: grid.map(toTime), sigmas: grid, timeOf };
}

function interpolated(times: readonly number[], trained: readonly number[]): readonly number[] {
  return times.map((time) => interpolate(trained, time));
}

/** Scale of the initial latent: the largest sigma, and with leading spacing, which starts below the last training time, a little more. */
export function initialScale(sigmas: readonly number[], spacing: TimestepSpacing): number {
  const max = sigmas.reduce((largest, sigma) => Math.max(largest, sigma), 0);
  return spacing === "leading" ? Math.sqrt(max * max + 1) : max;
}

/** The model was trained on latents of unit variance. */
export function inputScaleAt(sigma: number): number {
  return 1 / Math.sqrt(sigma * sigma + 1);
}

/** The predicted sample by the latent and the output. */
export function sampleAt(prediction: PredictionType, sigma: number): Row["m"] {
  const level = levelOf(sigma, false);
  const { x, out } = sampleOf(prediction, level);
  return { x: x * level.alpha, out };
}

/** dx/dsigma = (x − sample) / sigma, the predicted noise, by the latent and the output. */
export function slopeAt(prediction: PredictionType, sigma: number): Row["m"] {
  const level = levelOf(sigma, false);
  const { x, out } = noiseOf(prediction, level);
  return { x: x * level.alpha, out };
}

/** A step from one sigma to another in two parts: down without noise, then up by fresh noise (k-diffusion `get_ancestral_step`). */
export function ancestralSigmas(from: number, to: number): { readonly down: number; readonly up: number } {
  const up = Math.sqrt((to ** 2 * (from ** 2 - to ** 2)) / from ** 2);
  return { down: Math.sqrt(to ** 2 - up ** 2), up };
}

/** x_base + (to − from) · m_slope, with slopes as history. */
export function eulerStep(base: number, slope: number, from: number, to: number, noise = 0): Row["next"] {
  const term = (step: number, weight: number): Term[] => [{ step, weight }];
  return { x: term(base, 1), m: term(slope, to - from), noise };
}

/**
 * DPM-Solver-2 (arXiv 2206.00927, in k-diffusion's form): a step takes the slope in its middle, halfway in ln sigma on the way
 * `down`; the last one goes to 0, which has no middle, and is Euler's.
 */
export function midpointRows(
  prediction: PredictionType,
  { times, sigmas, timeOf }: SigmaGrid,
  split: typeof ancestralSigmas,
): readonly Row[] {
  return times.flatMap((time, step): Row[] => {
    const base = 2 * step;
    const from = entryAt(sigmas, step);
    const seen = (time: number, sigma: number): Omit<Row, "next"> => ({
      timestep: time,
      sigma,
      level: noiseLevel({ sigma }),
      inputScale: inputScaleAt(sigma),
      m: slopeAt(prediction, sigma),
    });
    const { down, up } = split(from, sigmas[step + 1] ?? 0);
    const middle = Math.sqrt(from * down);
    const first: Row = { ...seen(time, from), next: eulerStep(base, base, from, middle) };
    if (step === times.length - 1) return [first];
    return [first, { ...seen(timeOf(middle), middle), next: eulerStep(base, base + 1, from, down, up) }];
  });
}
