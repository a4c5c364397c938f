/**
 * Consistency models on EDM's scalings (arXiv 2303.01469, algorithm 1),
 * as diffusers' `schedulers/scheduling_consistency_models.py` samples them.
 */
import { z } from "zod";
import { MAX_TRAIN_TIMES } from "../../ir/limits.js";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { clampedStep } from "../solvers/clipping.js";
import type { Row, Sampler } from "../sampler.js";
import { karrasSigmas } from "../solvers/sigma-grid.js";
import { checkFallingTimes } from "../solvers/spacing.js";
import { noiseLevel } from "../solvers/levels.js";

const className = "CMStochasticIterativeScheduler";

const config = z.object({
  num_train_timesteps: z.int().min(2).max(MAX_TRAIN_TIMES).default(40),
  sigma_min: z.number().positive().default(0.002),
  sigma_max: z.number().positive().default(80),
  sigma_data: z.number().positive().default(0.5),
  s_noise: z.number().default(1),
  rho: z.number().default(7),
  clip_denoised: z.boolean().default(true),
});

export default {
  name: "consistency-models",
  className,
  config,
  takes: ["timesteps"],
  table({ num_train_timesteps: trainTimes, sigma_min: min, sigma_max: max, sigma_data: data, s_noise, rho, clip_denoised }, options) {
    const { steps, timesteps } = options;
    if (steps > trainTimes) throw samplerOption(className, "steps", `takes at most ${trainTimes} steps`);
    if (timesteps) checkFallingTimes(className, timesteps, steps, trainTimes);
    const stride = Math.floor(trainTimes / steps);
    // Indices into the training grid, whose sigmas fall: index 0 is the noisiest.
    const places = [...(timesteps ?? Array.from({ length: steps }, (_, k) => (steps - 1 - k) * stride))].reverse();
    const trained = karrasSigmas(max, min, trainTimes, rho);
    const sigmas = places.map((place) => entryAt(trained, place));
    const rows = sigmas.map((sigma, k): Row => {
      const to = Math.min(Math.max(sigmas[k + 1] ?? min, min), max);
      const norm = Math.sqrt(sigma ** 2 + data ** 2);
      // With these scalings the result at sigma_min is the network's input itself (eq. 5 and appendix C).
      const sample = { x: data ** 2 / ((sigma - min) ** 2 + data ** 2), out: ((sigma - min) * data) / norm };
      const noise = steps > 1 ? s_noise * Math.sqrt(to ** 2 - min ** 2) : 0;
      return {
        timestep: 250 * Math.log(sigma),
        sigma,
        level: noiseLevel({ sigma }),
        inputScale: 1 / norm,
        ...clampedStep({ clip_sample: clip_denoised, clip_sample_range: 1 }, { k, sample, weights: { x: 0, sample: 1, out: 0, noise } }),
      };
    });
    return { name: "consistency-models", prediction: "sample", initialScale: max, rows };
  },
} satisfies Sampler<typeof config>;
