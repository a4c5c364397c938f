/** F5-TTS (arXiv 2410.06885): Euler's method on flow matching with sway sampling, as `f5_tts/model/cfm.py` runs it. */
import { z } from "zod";
import { flowRows, reverseVelocityStep } from "../solvers/flow.js";
import type { Sampler } from "../sampler.js";
import { linspace } from "../solvers/spacing.js";

/** The project has no file for the scheduler: the keys are the arguments of its `CFM.sample`. */
const config = z.object({
  /** Below 0 it puts more steps where there is most noise; null leaves the grid as it is. The project's inference passes −1. */
  sway_sampling_coef: z.number().nullable().default(-1),
  /** Whether runs of 5, 6, 7, 10, 12 or 16 steps take the grids of `PRUNED`. */
  use_epss: z.boolean().default(true),
});

/**
 * Empirically pruned step sampling (arXiv 2505.19931): kept times of a run of 32 steps (`get_epss_timesteps` in `f5_tts/model/utils.py`).
 */
const PRUNED: ReadonlyMap<number, readonly number[]> = new Map(
  [
    [0, 2, 4, 8, 16, 32],
    [0, 2, 4, 6, 8, 16, 32],
    [0, 2, 4, 6, 8, 16, 24, 32],
    [0, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32],
    [0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32],
  ].map((times) => [times.length - 1, times]),
);

export default {
  name: "f5-tts",
  className: "F5TTSEuler",
  config,
  takes: [],
  /** Times rise from 0, the noise, to 1; the output is data − noise. */
  table({ sway_sampling_coef: sway, use_epss }, { steps }) {
    const pruned = use_epss ? PRUNED.get(steps)?.map((time) => time / 32) : undefined;
    const times = (pruned ?? linspace(0, 1, steps + 1)).map((t) => t + (sway ?? 0) * (Math.cos((Math.PI / 2) * t) - 1 + t));
    const sigmas = times.map((t) => 1 - t);
    const rows = flowRows({ times: times.slice(0, steps), sigmas }, reverseVelocityStep);
    return { name: "f5-tts", prediction: "flow", initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
