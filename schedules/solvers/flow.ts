/** Rectified flow, x = (1 − sigma) · x_0 + sigma · noise with the output noise − x_0: grids of sigmas, and steps. */
import { z } from "zod";
import { MAX_TRAIN_TIMES } from "../../ir/limits.js";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import type { Grid } from "./lambda-grid.js";
import type { NoiseLevel, Row, SamplerOptions } from "../sampler.js";
import { namedGrid, namedGridKeys, namedSigmas, shiftedSigma } from "./sigma-grid.js";
import { linspace } from "./spacing.js";

/** The keys of diffusers' flow-matching classes, with their defaults. */
export const flowGridKeys = {
  num_train_timesteps: z.int().min(1).max(MAX_TRAIN_TIMES).default(1000),
  /** Without effect under dynamic shifting. */
  shift: z.number().positive().default(1),
  use_dynamic_shifting: z.boolean().default(false),
  /** These four say how a pipeline finds `mu` from the size of the latent. */
  base_shift: z.number().nullable().default(0.5),
  max_shift: z.number().nullable().default(1.15),
  base_image_seq_len: z.int().nullable().default(256),
  max_image_seq_len: z.int().nullable().default(4096),
  invert_sigmas: z.boolean().default(false),
  shift_terminal: z.number().nullable().default(null),
  ...namedGridKeys,
  time_shift_type: z.enum(["exponential", "linear"]).default("exponential"),
};

export type FlowGridConfig = z.output<z.ZodObject<typeof flowGridKeys>>;

/**
 * Times and sigmas of a run, as `set_timesteps` of diffusers' `schedulers/scheduling_flow_match_euler_discrete.py` lays them out;
 * sigmas have one more entry, the end. Order: shift, stretch to the terminal, named grid, invert.
 * Throws SAMPLER_OPTION for settings that do not fit.
 */
export function flowGrid(
  className: string,
  config: FlowGridConfig,
  { steps, sigmas: givenSigmas, timesteps: givenTimes, mu }: SamplerOptions,
): Grid {
  const trainTimes = config.num_train_timesteps;
  for (const [setting, values] of Object.entries({ sigmas: givenSigmas, timesteps: givenTimes }))
    if (values && values.length !== steps) throw samplerOption(className, setting, `needs ${steps} ${setting} for ${steps} steps`);
  const isDynamic = config.use_dynamic_shifting;
  if (isDynamic && mu === undefined) throw samplerOption(className, "mu", 'needs mu with "use_dynamic_shifting": true');
  // Without dynamic shifting the library accepts mu but ignores it.
  const shift = isDynamic ? (config.time_shift_type === "exponential" ? Math.exp(mu ?? 0) : (mu ?? 0)) : config.shift;
  // The lower end of the default grid is shifted twice, unless the shift is dynamic.
  const lowest = isDynamic ? 1 / trainTimes : shiftedSigma(1 / trainTimes, shift);
  const base = givenSigmas ?? givenTimes?.map((time) => time / trainTimes) ?? linspace(1, lowest, steps);
  const shifted = base.map((sigma) => shiftedSigma(sigma, shift));
  const ended = stretched(shifted, config.shift_terminal);
  const named = namedGrid(className, config);
  const sigmas = named ? namedSigmas(named, entryAt(ended, 0), entryAt(ended, steps - 1), steps) : ended;
  if (config.invert_sigmas) {
    const inverted = sigmas.map((sigma) => 1 - sigma);
    return { times: inverted.map((sigma) => sigma * trainTimes), sigmas: [...inverted, 1] };
  }
  return { times: givenTimes ?? sigmas.map((sigma) => sigma * trainTimes), sigmas: [...sigmas, 0] };
}

/** Scales 1 − sigma so that the last sigma is the terminal one (as LTX-Video does). */
function stretched(sigmas: readonly number[], terminal: number | null): readonly number[] {
  if (!terminal) return sigmas;
  const scale = (1 - (sigmas.at(-1) ?? 0)) / (1 - terminal);
  return sigmas.map((sigma) => 1 - (1 - sigma) / scale);
}

/** One row an interval of the grid. `isInverted`: its sigmas are shares of signal (`invert_sigmas`). */
export function flowRows(
  { times, sigmas }: Grid,
  step: (k: number, time: number, sigma: number, nextSigma: number) => Row,
  isInverted = false,
): readonly Row[] {
  return times.map((time, k) => {
    const sigma = entryAt(sigmas, k);
    return { ...step(k, time, sigma, entryAt(sigmas, k + 1)), level: flowLevel(isInverted ? 1 - sigma : sigma) };
  });
}

export function flowLevel(sigma: number): NoiseLevel {
  return { signal: 1 - sigma, noise: sigma };
}

/** Euler's step along the velocity: x' = x + (sigma' − sigma) · out. */
export function velocityStep(k: number, timestep: number, sigma: number, nextSigma: number): Row {
  return {
    timestep,
    sigma,
    inputScale: 1,
    m: { x: 0, out: 1 },
    next: { x: [{ step: k, weight: 1 }], m: [{ step: k, weight: nextSigma - sigma }], noise: 0 },
  };
}

/** The same for the opposite output, x_0 − noise. */
export function reverseVelocityStep(k: number, timestep: number, sigma: number, nextSigma: number): Row {
  return { ...velocityStep(k, timestep, sigma, nextSigma), m: { x: 0, out: -1 } };
}

/** To the predicted x_0 and back to `nextSigma` with fresh noise (arXiv 2303.01469, algorithm 1). */
export function renoisingStep(k: number, timestep: number, sigma: number, nextSigma: number): Row {
  return {
    timestep,
    sigma,
    inputScale: 1,
    m: { x: 1, out: -sigma },
    next: { x: [], m: [{ step: k, weight: 1 - nextSigma }], noise: nextSigma },
  };
}
