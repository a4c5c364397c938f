/** Latent consistency models (arXiv 2310.04378), as diffusers' `schedulers/scheduling_lcm.py` runs them. */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { clampedStep, refuseThresholding } from "../solvers/clipping.js";
import { consistencyKeys, distilledTimes } from "../solvers/consistency.js";
import { levelOfBar, noiseLevel, sampleOf } from "../solvers/levels.js";
import { alphaBars } from "../solvers/noise-schedule.js";
import type { Row, Sampler } from "../sampler.js";

const className = "LCMScheduler";

const config = z.object(consistencyKeys);

/** Deviation of the data, a constant in the library. */
const SIGMA_DATA = 0.5;

export default {
  name: "lcm",
  className,
  config,
  takes: ["timesteps"],
  table(config, options) {
    refuseThresholding(className, config);
    const times = distilledTimes(className, config, options);
    const bars = alphaBars(config);
    const rows = times.map((time, k): Row => {
      const level = levelOfBar(entryAt(bars, time));
      const nextTime = times[k + 1];
      const next = nextTime === undefined ? { alpha: 1, sigma: 0 } : levelOfBar(entryAt(bars, nextTime));
      // The consistency function is skip · x + out · sample (eq. 9).
      const scaled = time * config.timestep_scaling;
      const skip = SIGMA_DATA ** 2 / (scaled ** 2 + SIGMA_DATA ** 2);
      const out = scaled / Math.sqrt(scaled ** 2 + SIGMA_DATA ** 2);
      return {
        timestep: time,
        level: noiseLevel(level),
        inputScale: 1,
        ...clampedStep(config, {
          k,
          sample: sampleOf(config.prediction_type, level),
          weights: { x: next.alpha * skip, sample: next.alpha * out, out: 0, noise: next.sigma },
        }),
      };
    });
    return { name: "lcm", prediction: config.prediction_type, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
