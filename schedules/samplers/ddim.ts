/** DDIM (arXiv 2010.02502), as diffusers' `schedulers/scheduling_ddim.py` runs it. */
import { z } from "zod";
import { samplerOption } from "../../ir/diagnostics.js";
import { refuseClamping, thresholdingKeys } from "../clipping.js";
import { alphaBars, noiseScheduleKeys } from "../noise-schedule.js";
import type { Prediction, Row, Sampler } from "../sampler.js";
import { spacedTimes, timestepSpacing } from "../spacing.js";

const className = "DDIMScheduler";

const config = z.object({
  ...noiseScheduleKeys,
  /** Absent means true. */
  clip_sample: z.boolean().default(true),
  clip_sample_range: z.number().default(1),
  set_alpha_to_one: z.boolean().default(true),
  steps_offset: z.int().default(0),
  prediction_type: z.enum(["epsilon", "v_prediction", "sample"]).default("epsilon"),
  ...thresholdingKeys,
  timestep_spacing: timestepSpacing.default("leading"),
});

export default {
  name: "ddim",
  className,
  config,
  takes: ["eta"],
  table(config, { steps, eta = 0 }) {
    refuseClamping(className, config);
    if (!(eta >= 0)) throw samplerOption(className, "eta", "takes a share of noise from 0 up");
    const trainTimes = config.num_train_timesteps;
    if (steps > trainTimes) throw samplerOption(className, "steps", `takes at most ${trainTimes} steps`);
    const bars = alphaBars(config);
    const finalBar = config.set_alpha_to_one ? 1 : (bars[0] ?? NaN);
    const times = spacedTimes({ spacing: config.timestep_spacing, trainTimes, steps, offset: config.steps_offset });
    // The time before t is t − ⌊N/n⌋, not the next entry of the list.
    const stride = Math.floor(trainTimes / steps);
    const rows = times.map((time, k): Row => {
      const bar = bars[time] ?? NaN;
      const nextBar = time >= stride ? (bars[time - stride] ?? NaN) : finalBar;
      const { x, out, noise } = ddimStep(config.prediction_type, bar, nextBar, eta);
      return {
        timestep: time,
        inputScale: 1,
        m: { x: 0, out: 1 },
        next: { x: [{ step: k, weight: x }], m: [{ step: k, weight: out }], noise },
      };
    });
    return { name: "ddim", prediction: config.prediction_type, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;

/** x' = x·x_k + out·out_k + noise·z: eq. 12 with sigma from eq. 16, the predicted x_0 and noise put in. */
function ddimStep(prediction: Prediction, bar: number, nextBar: number, eta: number): { x: number; out: number; noise: number } {
  const noise = eta * Math.sqrt(((1 - nextBar) / (1 - bar)) * (1 - bar / nextBar));
  const direction = Math.sqrt(1 - nextBar - noise * noise);
  const signal = Math.sqrt(nextBar);
  const alpha = Math.sqrt(bar);
  const sigma = Math.sqrt(1 - bar);
  switch (prediction) {
    case "epsilon": // x_0 = (x − sigma·out) / alpha, noise = out
      return { x: signal / alpha, out: direction - (signal * sigma) / alpha, noise };
    case "v_prediction": // x_0 = alpha·x − sigma·out, noise = alpha·out + sigma·x
      return { x: signal * alpha + direction * sigma, out: direction * alpha - signal * sigma, noise };
    case "sample": // x_0 = out, noise = (x − alpha·out) / sigma
      return { x: direction / sigma, out: signal - (direction * alpha) / sigma, noise };
    default:
      throw new Error(`internal: DDIM does not know the prediction '${prediction}'`);
  }
}
