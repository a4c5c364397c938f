/**
 * The SDE form of DPM-Solver-2 in sigma, as diffusers' `schedulers/scheduling_dpmsolver_sde.py` runs it. The two draws of a step
 * are independent here; the library takes them from one Brownian path over overlapping intervals, so that they are correlated.
 */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import type { Row, Sampler } from "../sampler.js";
import { ancestralSigmas, initialScale, inputScaleAt, midpointKeys, sampleAt, sigmaGrid } from "../solvers/sigma-space.js";
import { noiseLevel } from "../solvers/levels.js";

const className = "DPMSolverSDEScheduler";

const config = z.object({ ...midpointKeys, noise_sampler_seed: z.int().nullable().default(null) });

export default {
  name: "dpmsolver-sde",
  className,
  config,
  takes: [],
  table(config, options) {
    const { times, sigmas, timeOf } = sigmaGrid(className, config, options);
    const rows = times.flatMap((time, step): Row[] => {
      const base = 2 * step;
      const from = entryAt(sigmas, step);
      const to = sigmas[step + 1] ?? 0;
      // A step from the base: down to a sigma towards the predicted sample, then up by noise.
      const evaluation = (k: number, time: number, sigma: number, end: number): Row => {
        const { down, up } = ancestralSigmas(from, end);
        const x = [{ step: base, weight: down / from }];
        const m = [{ step: k, weight: 1 - down / from }];
        return {
          timestep: time,
          sigma,
          level: noiseLevel({ sigma }),
          inputScale: inputScaleAt(sigma),
          m: sampleAt(config.prediction_type, sigma),
          next: { x, m, noise: up },
        };
      };
      if (step === times.length - 1) return [evaluation(base, time, from, 0)];
      const middle = Math.sqrt(from * to);
      return [evaluation(base, time, from, middle), evaluation(base + 1, timeOf(middle), middle, to)];
    });
    const scale = initialScale(sigmas, config.timestep_spacing);
    return { name: "dpmsolver-sde", prediction: config.prediction_type, initialScale: scale, rows };
  },
} satisfies Sampler<typeof config>;
