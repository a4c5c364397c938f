/** The SDE form of DPM-Solver++ (2M) on CogVideoX's schedule, as diffusers' `schedulers/scheduling_dpm_cogvideox.py` runs it. */
import { z } from "zod";
import { cogVideoXKeys, cogVideoXSteps } from "../solvers/cogvideox.js";
import { dpmStep } from "../solvers/dpm-solver.js";
import { noiseLevel, sampleOf } from "../solvers/levels.js";
import type { Row, Sampler } from "../sampler.js";

const className = "CogVideoXDPMScheduler";

const config = z.object(cogVideoXKeys);

export default {
  name: "dpm-cogvideox",
  className,
  config,
  takes: [],
  table(config, { steps }) {
    const run = cogVideoXSteps(className, config, steps);
    const rows = run.map(({ time, from, to, isLast }, k): Row => {
      const previous = run[k - 1];
      const nodes = previous && !isLast ? [from, previous.from] : [from];
      const { x, m, noise } = dpmStep("sde-dpmsolver++", "midpoint", nodes, to, 1);
      return {
        timestep: time,
        level: noiseLevel(from),
        inputScale: 1,
        m: sampleOf(config.prediction_type, from),
        next: { x: [{ step: k, weight: x }], m: m.map((weight, back) => ({ step: k - back, weight })), noise },
      };
    });
    return { name: "dpm-cogvideox", prediction: config.prediction_type, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
