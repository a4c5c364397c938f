/** Trajectory consistency distillation (arXiv 2402.19159), as diffusers' `schedulers/scheduling_tcd.py` runs it. */
import { z } from "zod";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { consistencyKeys, distilledTimes } from "../solvers/consistency.js";
import { levelOfBar, noiseLevel, noiseOf, sampleOf } from "../solvers/levels.js";
import { alphaBars } from "../solvers/noise-schedule.js";
import type { Row, Sampler } from "../sampler.js";

const className = "TCDScheduler";

/** The library accepts keys of clipping and thresholding here but ignores them. */
const config = z.object(consistencyKeys);

export default {
  name: "tcd",
  className,
  config,
  takes: ["timesteps", "eta"],
  table(config, options) {
    const { eta = 0.3 } = options;
    if (!(eta >= 0 && eta <= 1)) throw samplerOption(className, "eta", "takes a share of noise from 0 to 1");
    const times = distilledTimes(className, config, options);
    const bars = alphaBars(config);
    const rows = times.map((time, k): Row => {
      const level = levelOfBar(entryAt(bars, time));
      const nextTime = times[k + 1] ?? 0;
      // Strategic stochastic sampling (algorithm 4): denoise to an earlier time s, then noise up to the next.
      const earlierBar = entryAt(bars, Math.floor((1 - eta) * nextTime));
      const earlier = levelOfBar(earlierBar);
      const share = eta > 0 && k + 1 < times.length ? entryAt(bars, nextTime) / earlierBar : 1;
      const sample = sampleOf(config.prediction_type, level);
      const noise = noiseOf(config.prediction_type, level);
      const weight = (of: "x" | "out"): number => Math.sqrt(share) * (earlier.alpha * sample[of] + earlier.sigma * noise[of]);
      return {
        timestep: time,
        level: noiseLevel(level),
        inputScale: 1,
        m: { x: 0, out: 1 },
        next: { x: [{ step: k, weight: weight("x") }], m: [{ step: k, weight: weight("out") }], noise: Math.sqrt(1 - share) },
      };
    });
    return { name: "tcd", prediction: config.prediction_type, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
