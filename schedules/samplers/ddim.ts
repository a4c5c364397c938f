/** DDIM (arXiv 2010.02502), as diffusers' `schedulers/scheduling_ddim.py` runs it. */
import { z } from "zod";
import { samplerOption } from "../diagnostics.js";
import { clampedStep, clippingKeys, refuseThresholding, thresholdingKeys } from "../solvers/clipping.js";
import { ddimStep } from "../solvers/ddim.js";
import { alphaBars, noiseScheduleKeys } from "../solvers/noise-schedule.js";
import type { Row, Sampler } from "../sampler.js";
import { spacedTimes, timestepSpacing } from "../solvers/spacing.js";
import { levelOfBar, noiseLevel } from "../solvers/levels.js";

const className = "DDIMScheduler";

const config = z.object({
  ...noiseScheduleKeys,
  ...clippingKeys,
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
    refuseThresholding(className, config);
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
      const step = ddimStep(config.prediction_type, bar, nextBar, eta);
      return { timestep: time, level: noiseLevel(levelOfBar(bar)), inputScale: 1, ...clampedStep(config, { k, ...step }) };
    });
    return { name: "ddim", prediction: config.prediction_type, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
