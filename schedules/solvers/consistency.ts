/** Models distilled to few steps on a variance-preserving schedule (LCM, TCD): their keys, and the times that they were distilled for. */
import { z } from "zod";
import { badJsonField, samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { thresholdingKeys } from "./clipping.js";
import { noiseScheduleKeys } from "./noise-schedule.js";
import type { SamplerOptions } from "../sampler.js";
import { checkFallingTimes, timestepSpacing } from "./spacing.js";

export const consistencyKeys = {
  ...noiseScheduleKeys,
  beta_start: noiseScheduleKeys.beta_start.default(0.00085),
  beta_end: noiseScheduleKeys.beta_end.default(0.012),
  beta_schedule: noiseScheduleKeys.beta_schedule.default("scaled_linear"),
  ...thresholdingKeys,
  /** Steps of the sampler that the distillation skipped through. */
  original_inference_steps: z.int().min(1).default(50),
  clip_sample: z.boolean().default(false),
  clip_sample_range: z.number().default(1),
  prediction_type: z.enum(["epsilon", "v_prediction", "sample"]).default("epsilon"),
  /** How quickly LCM's boundary condition fades out as the time grows. */
  timestep_scaling: z.number().default(10),
  /** These three have no effect: the times are given by the distillation, and none of them is before the first training time. */
  set_alpha_to_one: z.boolean().default(true),
  steps_offset: z.int().default(0),
  timestep_spacing: timestepSpacing.default("leading"),
};

export type ConsistencyConfig = z.output<z.ZodObject<typeof consistencyKeys>>;

/**
 * Training times in sampling order: those given, or evenly chosen among the distilled ones (arXiv 2310.04378, section 4.3), as
 * `set_timesteps` of diffusers' `schedulers/scheduling_lcm.py` does. Throws SAMPLER_OPTION, BAD_JSON_FIELD.
 */
export function distilledTimes(className: string, config: ConsistencyConfig, { steps, timesteps }: SamplerOptions): readonly number[] {
  const { num_train_timesteps: trainTimes, original_inference_steps: original } = config;
  if (original > trainTimes)
    throw badJsonField(className, "original_inference_steps", `is ${original}, more than the ${trainTimes} training times`);
  if (timesteps) {
    checkFallingTimes(className, timesteps, steps, trainTimes);
    return timesteps;
  }
  if (steps > original) throw samplerOption(className, "steps", `takes at most the ${original} steps that it was distilled from`);
  const stride = Math.floor(trainTimes / original);
  const distilled = Array.from({ length: original }, (_, i) => (original - i) * stride - 1);
  return Array.from({ length: steps }, (_, k) => entryAt(distilled, Math.floor(k * (original / steps))));
}
