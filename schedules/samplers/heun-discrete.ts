/** Heun's second order in sigma (arXiv 2206.00364, algorithm 1), as diffusers' `schedulers/scheduling_heun_discrete.py` runs it. */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { clippingKeys } from "../solvers/clipping.js";
import type { Row, Sampler } from "../sampler.js";
import { namedGridKeys } from "../solvers/sigma-grid.js";
import { initialScale, inputScaleAt, sampleAt, sigmaGrid, sigmaSpaceKeys, stableDiffusionBetas } from "../solvers/sigma-space.js";
import { noiseLevel } from "../solvers/levels.js";

const className = "HeunDiscreteScheduler";

const config = z.object({
  ...sigmaSpaceKeys,
  ...stableDiffusionBetas,
  ...namedGridKeys,
  ...clippingKeys,
  beta_schedule: z.enum(["linear", "scaled_linear", "squaredcos_cap_v2", "exp"]).default("linear"),
  prediction_type: z.enum(["epsilon", "v_prediction", "sample"]).default("epsilon"),
  /** Absent means false. */
  clip_sample: z.boolean().default(false),
});

export default {
  name: "heun-discrete",
  className,
  config,
  takes: ["timesteps"],
  table(config, options) {
    const { times, sigmas } = sigmaGrid(className, config, options);
    const clip = config.clip_sample ? { clip: config.clip_sample_range } : {};
    // Two evaluations a step, at its ends; the last step goes to 0, where there is none.
    const rows = times.flatMap((time, step): Row[] => {
      const base = 2 * step;
      const seen = (time: number, sigma: number): Omit<Row, "next"> => ({
        timestep: time,
        sigma,
        level: noiseLevel({ sigma }),
        inputScale: inputScaleAt(sigma),
        m: { ...sampleAt(config.prediction_type, sigma), ...clip },
      });
      // dx/dsigma at an evaluation is (x − m) / sigma, with m the predicted sample.
      const from = entryAt(sigmas, step);
      const to = sigmas[step + 1] ?? 0;
      const whole = (to - from) / from;
      const euler: Row = {
        ...seen(time, from),
        next: { x: [{ step: base, weight: 1 + whole }], m: [{ step: base, weight: -whole }], noise: 0 },
      };
      if (step === times.length - 1) return [euler];
      const first = whole / 2;
      const second = (to - from) / to / 2;
      const x = [
        { step: base, weight: 1 + first },
        { step: base + 1, weight: second },
      ];
      const m = [
        { step: base, weight: -first },
        { step: base + 1, weight: -second },
      ];
      return [euler, { ...seen(entryAt(times, step + 1), to), next: { x, m, noise: 0 } }];
    });
    const scale = initialScale(sigmas, config.timestep_spacing);
    return { name: "heun-discrete", prediction: config.prediction_type, initialScale: scale, rows };
  },
} satisfies Sampler<typeof config>;
