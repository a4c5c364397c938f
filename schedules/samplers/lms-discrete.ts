/**
 * Linear multistep in sigma, order 4 (Adams–Bashforth on an uneven grid), as diffusers' `schedulers/scheduling_lms_discrete.py` runs it.
 */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { interpolationWeights } from "../solvers/quadrature.js";
import type { Row, Sampler } from "../sampler.js";
import { namedGridKeys } from "../solvers/sigma-grid.js";
import { initialScale, inputScaleAt, sigmaGrid, sigmaSpaceKeys, slopeAt } from "../solvers/sigma-space.js";
import { noiseLevel } from "../solvers/levels.js";

const className = "LMSDiscreteScheduler";
const ORDER = 4;

const config = z.object({
  ...sigmaSpaceKeys,
  ...namedGridKeys,
  prediction_type: z.enum(["epsilon", "v_prediction", "sample"]).default("epsilon"),
});

export default {
  name: "lms-discrete",
  className,
  config,
  takes: [],
  table(config, options) {
    const { times, sigmas } = sigmaGrid(className, config, options);
    const rows = times.map((time, k): Row => {
      const sigma = entryAt(sigmas, k);
      const length = (sigmas[k + 1] ?? 0) - sigma;
      const nodes = Array.from({ length: Math.min(k + 1, ORDER) }, (_, back) => entryAt(sigmas, k - back) - sigma);
      // ∫ u^n du over the step.
      const moments = nodes.map((_, n) => length ** (n + 1) / (n + 1));
      const m = interpolationWeights(nodes, moments).map((weight, back) => ({ step: k - back, weight }));
      return {
        timestep: time,
        sigma,
        level: noiseLevel({ sigma }),
        inputScale: inputScaleAt(sigma),
        m: slopeAt(config.prediction_type, sigma),
        next: { x: [{ step: k, weight: 1 }], m, noise: 0 },
      };
    });
    const scale = initialScale(sigmas, config.timestep_spacing);
    return { name: "lms-discrete", prediction: config.prediction_type, initialScale: scale, rows };
  },
} satisfies Sampler<typeof config>;
