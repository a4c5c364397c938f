/**
 * Heun's method on rectified flow (arXiv 2206.00364, algorithm 1, without churn), as diffusers'
 * `schedulers/scheduling_flow_match_heun_discrete.py` runs it.
 */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { flowGrid, flowGridKeys, flowLevel, velocityStep } from "../solvers/flow.js";
import type { Row, Sampler } from "../sampler.js";

const className = "FlowMatchHeunDiscreteScheduler";

const config = z.object({ num_train_timesteps: flowGridKeys.num_train_timesteps, shift: flowGridKeys.shift });

export default {
  name: "flow-match-heun-discrete",
  className,
  config,
  takes: [],
  /** Two rows a step: Euler's step, then the same step with the mean of the velocities at its ends. The last step is Euler's alone. */
  table(config, { steps }) {
    const { times, sigmas } = flowGrid(className, { ...plainGrid, ...config }, { steps });
    const rows = times.flatMap((time, i): Row[] => {
      const [sigma, nextSigma] = [entryAt(sigmas, i), entryAt(sigmas, i + 1)];
      const k = 2 * i;
      const predictor = { ...velocityStep(k, time, sigma, nextSigma), level: flowLevel(sigma) };
      const nextTime = times[i + 1];
      if (nextTime === undefined) return [predictor];
      const half = (nextSigma - sigma) / 2;
      const mean = [
        { step: k + 1, weight: half },
        { step: k, weight: half },
      ];
      const next = { x: [{ step: k, weight: 1 }], m: mean, noise: 0 };
      return [predictor, { ...predictor, timestep: nextTime, sigma: nextSigma, level: flowLevel(nextSigma), next }];
    });
    return { name: "flow-match-heun-discrete", prediction: "flow", initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;

const plainGrid = z.object(flowGridKeys).parse({});
