/**
 * Improved PNDM (arXiv 2202.09778, appendix) on v-predictions: Adams–Bashforth weights on the predicted noise, as diffusers'
 * `schedulers/scheduling_ipndm.py` runs it.
 */
import { z } from "zod";
import { MAX_TRAIN_TIMES } from "../../ir/limits.js";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { adamsBashforthWeights } from "../solvers/quadrature.js";
import type { Row, Sampler } from "../sampler.js";
import { linspace } from "../solvers/spacing.js";
import { noiseLevel } from "../solvers/levels.js";

const className = "IPNDMScheduler";

const config = z.object({
  num_train_timesteps: z.int().min(1).max(MAX_TRAIN_TIMES).default(1000),
  /** Noise levels of the run, one more than its steps, in place of the usual ones. */
  trained_betas: z.array(z.number()).min(2).nullable().default(null),
});

/** Predicted noises that a step takes. */
const ORDER = 4;

export default {
  name: "ipndm",
  className,
  config,
  takes: [],
  table({ trained_betas }, { steps }) {
    if (trained_betas && trained_betas.length !== steps + 1)
      throw samplerOption(className, "steps", `with ${trained_betas.length} trained_betas takes ${trained_betas.length - 1} steps`);
    const sigmas = trained_betas ?? linspace(1, 0, steps + 1).map((u) => Math.sin((u * Math.PI) / 2) ** 2);
    const levels = sigmas.map((sigma) => ({ alpha: Math.sqrt(1 - sigma ** 2), sigma }));
    const rows = levels.slice(0, steps).map(({ alpha, sigma }, k): Row => {
      const to = entryAt(levels, k + 1);
      // Where there is no signal the predicted sample is 0; the library divides 0 by 1e-8 there.
      const x = alpha === 0 ? 0 : to.alpha / alpha;
      const noise = to.sigma - x * sigma;
      const weights = adamsBashforthWeights(Math.min(k + 1, ORDER));
      return {
        timestep: (Math.atan2(sigma, alpha) / Math.PI) * 2,
        level: noiseLevel({ alpha, sigma }),
        inputScale: 1,
        m: { x: sigma, out: alpha },
        next: { x: [{ step: k, weight: x }], m: weights.map((weight, back) => ({ step: k - back, weight: noise * weight })), noise: 0 },
      };
    });
    return { name: "ipndm", prediction: "v_prediction", initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
