/** Clamping of the predicted sample: the keys that ask for it, and its refusal, as it is no weighted sum. */
import { z } from "zod";
import { unsupportedScheduler } from "../ir/diagnostics.js";

export const thresholdingKeys = {
  thresholding: z.boolean().default(false),
  dynamic_thresholding_ratio: z.number().default(0.995),
  sample_max_value: z.number().default(1),
};

/** Throws UNSUPPORTED_SCHEDULER if the configuration asks for thresholding or clipping. */
export function refuseClamping(className: string, config: { readonly thresholding?: boolean; readonly clip_sample?: boolean }): void {
  const refuse = (key: string, setting: string, reason: string): void => {
    const hint = `Models on latents do without: set "${key}": false in scheduler_config.json if yours does.`;
    throw unsupportedScheduler(className, setting, reason, hint);
  };
  if (config.thresholding) refuse("thresholding", '"thresholding": true', "the limit is a quantile of the data at every step");
  if (config.clip_sample)
    refuse(
      "clip_sample",
      '"clip_sample": true',
      "clamping the predicted sample is no weighted sum (where the key is absent, its default holds)",
    );
}
