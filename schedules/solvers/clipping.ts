/** The non-linear parts of samplers: clamping of the predicted sample and learned variance, their configuration keys, and their refusal. */
import { z } from "zod";
import { unsupportedScheduler } from "../diagnostics.js";
import type { Row, SamplerTable, Term } from "../sampler.js";

export const thresholdingKeys = {
  thresholding: z.boolean().default(false),
  dynamic_thresholding_ratio: z.number().default(0.995),
  sample_max_value: z.number().default(1),
};

export const clippingKeys = {
  /** Absent means true. */
  clip_sample: z.boolean().default(true),
  clip_sample_range: z.number().default(1),
};

export interface Clamping {
  readonly clip_sample: boolean;
  readonly clip_sample_range: number;
}

export interface ClampedStep {
  /** Which row it is. */
  readonly k: number;
  /** The predicted sample by the latent and the output. */
  readonly sample: { readonly x: number; readonly out: number };
  /** x_{k+1} = x · x_k + sample · clamped sample + out · out_k + noise · z_k. */
  readonly weights: { readonly x: number; readonly sample: number; readonly out: number; readonly noise: number };
}

/** A row's sums for a step that uses one predicted sample. Without clamping they only use the raw output. */
export function clampedStep({ clip_sample, clip_sample_range }: Clamping, { k, sample, weights }: ClampedStep): Pick<Row, "m" | "next"> {
  const term = (weight: number): Term[] => [{ step: k, weight }];
  const { noise } = weights;
  if (!clip_sample) {
    const x = term(weights.x + weights.sample * sample.x);
    return { m: { x: 0, out: 1 }, next: { x, m: term(weights.out + weights.sample * sample.out), noise } };
  }
  const next = { x: term(weights.x), m: term(weights.sample), out: term(weights.out), noise };
  return { m: { ...sample, clip: clip_sample_range }, next };
}

/** Throws UNSUPPORTED_SCHEDULER if the configuration asks for thresholding. */
export function refuseThresholding(className: string, config: { readonly thresholding: boolean }): void {
  if (!config.thresholding) return;
  const hint = 'Models on latents do without: set "thresholding": false in scheduler_config.json if yours does.';
  throw unsupportedScheduler(className, '"thresholding": true', "the limit is a quantile of the data at every step", hint);
}

/** Throws UNSUPPORTED_SCHEDULER if a row is more than a weighted sum. */
export function refuseNonlinear(className: string, { rows }: SamplerTable): void {
  const option = "pass { nonlinear: true } to samplerTable if what you build emits them as nodes";
  if (rows.some(({ m }) => m.clip !== undefined)) {
    const reason = "clamping the predicted sample is no weighted sum (where the key is absent, its default holds)";
    const hint = `Models on latents do without: set "clip_sample": false in scheduler_config.json if yours does, or ${option}.`;
    throw unsupportedScheduler(className, '"clip_sample": true', reason, hint);
  }
  if (rows.some(({ next }) => next.learned !== undefined)) {
    const reason = "the weight of the noise is an output of the model";
    const hint = `Set "variance_type": "fixed_small" to leave out what the model says of the variance, or ${option}.`;
    throw unsupportedScheduler(className, "a learned variance", reason, hint);
  }
}
