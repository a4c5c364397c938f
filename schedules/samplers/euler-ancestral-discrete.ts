/** Euler steps in sigma with fresh noise at every step, as diffusers' `schedulers/scheduling_euler_ancestral_discrete.py` runs them. */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { noiseScheduleKeys } from "../solvers/noise-schedule.js";
import type { Row, Sampler } from "../sampler.js";
import { ancestralSigmas, eulerStep, initialScale, inputScaleAt, sigmaGrid, sigmaSpaceKeys, slopeAt } from "../solvers/sigma-space.js";
import { noiseLevel } from "../solvers/levels.js";

const className = "EulerAncestralDiscreteScheduler";

const config = z.object({
  ...sigmaSpaceKeys,
  ...noiseScheduleKeys,
  prediction_type: z.enum(["epsilon", "v_prediction"]).default("epsilon"),
});

export default {
  name: "euler-ancestral-discrete",
  className,
  config,
  takes: [],
  table(config, options) {
    const { times, sigmas } = sigmaGrid(className, config, options);
    const rows = times.map((time, k): Row => {
      const sigma = entryAt(sigmas, k);
      const { down, up } = ancestralSigmas(sigma, sigmas[k + 1] ?? 0);
      return {
        timestep: time,
        sigma,
        level: noiseLevel({ sigma }),
        inputScale: inputScaleAt(sigma),
        m: slopeAt(config.prediction_type, sigma),
        next: eulerStep(k, k, sigma, down, up),
      };
    });
    const scale = initialScale(sigmas, config.timestep_spacing);
    return { name: "euler-ancestral-discrete", prediction: config.prediction_type, initialScale: scale, rows };
  },
} satisfies Sampler<typeof config>;
