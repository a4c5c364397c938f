/** DDIM on CogVideoX's schedule, as diffusers' `schedulers/scheduling_ddim_cogvideox.py` runs it. */
import { z } from "zod";
import { cogVideoXKeys, cogVideoXSteps } from "../solvers/cogvideox.js";
import { noiseLevel, sampleOf } from "../solvers/levels.js";
import type { Row, Sampler } from "../sampler.js";

const className = "CogVideoXDDIMScheduler";

const config = z.object(cogVideoXKeys);

export default {
  name: "ddim-cogvideox",
  className,
  config,
  takes: [],
  table(config, { steps }) {
    const rows = cogVideoXSteps(className, config, steps).map(({ time, from, to }, k): Row => {
      const x = to.sigma / from.sigma;
      return {
        timestep: time,
        level: noiseLevel(from),
        inputScale: 1,
        m: sampleOf(config.prediction_type, from),
        next: { x: [{ step: k, weight: x }], m: [{ step: k, weight: to.alpha - x * from.alpha }], noise: 0 },
      };
    });
    return { name: "ddim-cogvideox", prediction: config.prediction_type, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
