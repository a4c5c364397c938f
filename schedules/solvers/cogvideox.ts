/** CogVideoX's noise schedule (arXiv 2408.06072), shifted towards noise, and its steps of ⌊N/n⌋ training times. */
import { z } from "zod";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { type Level, levelOfBar } from "./levels.js";
import { alphaBars, noiseScheduleKeys } from "./noise-schedule.js";
import { spacedTimes, timestepSpacing } from "./spacing.js";

export const cogVideoXKeys = {
  ...noiseScheduleKeys,
  beta_start: noiseScheduleKeys.beta_start.default(0.00085),
  beta_end: noiseScheduleKeys.beta_end.default(0.012),
  beta_schedule: noiseScheduleKeys.beta_schedule.default("scaled_linear"),
  snr_shift_scale: z.number().default(3),
  set_alpha_to_one: z.boolean().default(true),
  steps_offset: z.int().default(0),
  prediction_type: z.enum(["epsilon", "v_prediction", "sample"]).default("epsilon"),
  timestep_spacing: timestepSpacing.default("leading"),
  /** The library accepts these three keys but ignores them. */
  clip_sample: z.boolean().default(true),
  clip_sample_range: z.number().default(1),
  sample_max_value: z.number().default(1),
};

export type CogVideoXConfig = z.output<z.ZodObject<typeof cogVideoXKeys>>;

/** One step: the time that the model gets, the level there, and the level where the step ends. */
export interface CogVideoXStep {
  readonly time: number;
  readonly from: Level;
  readonly to: Level;
  /** Whether the step ends before the first training time. */
  readonly isLast: boolean;
}

/** The steps of a run as diffusers' `schedulers/scheduling_ddim_cogvideox.py` lays them out. Throws SAMPLER_OPTION, DEGENERATE_TIMES. */
export function cogVideoXSteps(className: string, config: CogVideoXConfig, steps: number): readonly CogVideoXStep[] {
  const trainTimes = config.num_train_timesteps;
  if (steps > trainTimes) throw samplerOption(className, "steps", `takes at most ${trainTimes} steps`);
  const bars = alphaBars(config, config.snr_shift_scale);
  const finalBar = config.set_alpha_to_one ? 1 : entryAt(bars, 0);
  // The time before t is t − ⌊N/n⌋, not the next entry of the list.
  const stride = Math.floor(trainTimes / steps);
  return spacedTimes({ spacing: config.timestep_spacing, trainTimes, steps, offset: config.steps_offset }).map((time) => {
    const isLast = time < stride;
    return { time, from: levelOfBar(entryAt(bars, time)), to: levelOfBar(isLast ? finalBar : entryAt(bars, time - stride)), isLast };
  });
}
