/** Euler's method on rectified flow (arXiv 2403.03206), as diffusers' `schedulers/scheduling_flow_match_euler_discrete.py` runs it. */
import { z } from "zod";
import { flowGrid, flowGridKeys, flowRows, renoisingStep, velocityStep } from "../solvers/flow.js";
import type { Sampler } from "../sampler.js";

const className = "FlowMatchEulerDiscreteScheduler";

const config = z.object({
  ...flowGridKeys,
  /** Goes to x_0 and back with fresh noise at every step. */
  stochastic_sampling: z.boolean().default(false),
});

export default {
  name: "flow-match-euler-discrete",
  className,
  config,
  takes: ["sigmas", "timesteps", "mu"],
  table(config, options) {
    const step = config.stochastic_sampling ? renoisingStep : velocityStep;
    const rows = flowRows(flowGrid(className, config, options), step, config.invert_sigmas);
    return { name: "flow-match-euler-discrete", prediction: "flow", initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
