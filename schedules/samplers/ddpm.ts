/** DDPM, ancestral sampling (arXiv 2006.11239), as diffusers' `schedulers/scheduling_ddpm.py` runs it. */
import { z } from "zod";
import { samplerOption, unsupportedScheduler } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { clippingKeys, refuseThresholding, thresholdingKeys } from "../solvers/clipping.js";
import { ddpmRows, fixedVariances } from "../solvers/ddpm.js";
import { alphaBars, noiseScheduleKeys } from "../solvers/noise-schedule.js";
import type { Sampler } from "../sampler.js";
import { checkFallingTimes, spacedTimes, timestepSpacing } from "../solvers/spacing.js";

const className = "DDPMScheduler";

const config = z.object({
  ...noiseScheduleKeys,
  ...clippingKeys,
  ...thresholdingKeys,
  beta_schedule: z.enum(["linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid"]).default("linear"),
  variance_type: z.enum([...fixedVariances, "fixed_large_log", "learned", "learned_range"]).default("fixed_small"),
  prediction_type: z.enum(["epsilon", "v_prediction", "sample"]).default("epsilon"),
  timestep_spacing: timestepSpacing.default("leading"),
  steps_offset: z.int().default(0),
});

export default {
  name: "ddpm",
  className,
  config,
  takes: ["timesteps"],
  table(config, { steps, timesteps }) {
    refuseThresholding(className, config);
    const { variance_type: variance, prediction_type: prediction } = config;
    if (variance === "fixed_large_log" || variance === "learned") {
      const reason =
        variance === "learned"
          ? "diffusers takes the model's output for the variance itself"
          : "diffusers takes a root of a negative logarithm";
      const hint = 'Set "variance_type": "learned_range" or "fixed_large".';
      throw unsupportedScheduler(className, `"variance_type": "${variance}"`, reason, hint);
    }
    const trainTimes = config.num_train_timesteps;
    if (steps > trainTimes) throw samplerOption(className, "steps", `takes at most ${trainTimes} steps`);
    if (timesteps) checkFallingTimes(className, timesteps, steps, trainTimes);
    const spaced = { spacing: config.timestep_spacing, trainTimes, steps, offset: config.steps_offset };
    const times = timesteps ?? spacedTimes(spaced);
    const bars = alphaBars(config);
    const rows = ddpmRows({ times, bars: times.map((time) => entryAt(bars, time)), variance, prediction, clamping: config });
    return { name: "ddpm", prediction, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
