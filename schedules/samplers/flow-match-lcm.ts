/** Consistency sampling of distilled rectified flows, as diffusers' `schedulers/scheduling_flow_match_lcm.py` runs it. */
import { z } from "zod";
import { unsupportedScheduler } from "../diagnostics.js";
import { flowGrid, flowGridKeys, flowRows, renoisingStep } from "../solvers/flow.js";
import type { Sampler } from "../sampler.js";

const className = "FlowMatchLCMScheduler";

const config = z.object({
  ...flowGridKeys,
  scale_factors: z.array(z.number()).nullable().default(null),
  upscale_mode: z.string().nullable().default("bicubic"),
});

export default {
  name: "flow-match-lcm",
  className,
  config,
  takes: ["sigmas", "timesteps", "mu"],
  table(config, options) {
    if (config.scale_factors && config.scale_factors.length > 0 && config.upscale_mode)
      throw unsupportedScheduler(className, '"scale_factors"', "the latent grows during the run", 'Set "scale_factors": null.');
    const rows = flowRows(flowGrid(className, config, options), renoisingStep, config.invert_sigmas);
    return { name: "flow-match-lcm", prediction: "flow", initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
