/** Open-Sora 1.2's rectified flow (`opensora/schedulers/rf/`, tag v1.2.0): times stretched by the size of the video. */
import { z } from "zod";
import { flowRows, reverseVelocityStep } from "../solvers/flow.js";
import { shiftedSigma } from "../solvers/sigma-grid.js";
import { roundHalfEven } from "../solvers/spacing.js";
import type { Sampler } from "../sampler.js";

/**
 * The project has no file of its own for the scheduler: the keys are the arguments of its `RFLOW` and of its time transform,
 * which takes height, width (pixels) and num_frames (frames before the VAE) of the video.
 */
const config = z.object({
  num_timesteps: z.int().min(1).default(1000),
  use_discrete_timesteps: z.boolean().default(false),
  use_timestep_transform: z.boolean().default(false),
  height: z.number().positive().default(512),
  width: z.number().positive().default(512),
  num_frames: z.int().min(1).default(1),
  /** A training setting: sampling does not pass it on. */
  transform_scale: z.number().default(1),
});

export default {
  name: "open-sora-rflow",
  className: "OpenSoraRFLOW",
  aliases: ["RFLOW"],
  config,
  takes: [],
  table(config, { steps }) {
    const span = config.num_timesteps;
    const shift = config.use_timestep_transform ? sizeShift(config) : 1;
    const times = Array.from({ length: steps }, (_, k) => (1 - k / steps) * span)
      .map((time) => (config.use_discrete_timesteps ? roundHalfEven(time) : time))
      .map((time) => shiftedSigma(time / span, shift) * span);
    const sigmas = [...times, 0].map((time) => time / span);
    return { name: "open-sora-rflow", prediction: "flow", initialScale: 1, rows: flowRows({ times, sigmas }, reverseVelocityStep) };
  },
} satisfies Sampler<typeof config>;

/** `timestep_transform`: √(pixels / 512²) · √(latent frames); the VAE makes 5 latent frames of 17. */
function sizeShift({ height, width, num_frames }: z.output<typeof config>): number {
  const latentFrames = num_frames === 1 ? 1 : Math.floor(num_frames / 17) * 5;
  return Math.sqrt((height * width) / 512 ** 2) * Math.sqrt(latentFrames);
}
