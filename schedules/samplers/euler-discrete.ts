/**
 * Euler steps in sigma (arXiv 2206.00364, algorithm 2 without churn), as diffusers' `schedulers/scheduling_euler_discrete.py` runs them.
 */
import { z } from "zod";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { noiseScheduleKeys, trainedSigmas } from "../solvers/noise-schedule.js";
import type { Row, Sampler, SamplerOptions } from "../sampler.js";
import { namedGridKeys, timeOfSigma } from "../solvers/sigma-grid.js";
import { eulerStep, initialScale, inputScaleAt, sigmaGrid, sigmaSpaceKeys, slopeAt } from "../solvers/sigma-space.js";
import { linspace } from "../solvers/spacing.js";
import { noiseLevel } from "../solvers/levels.js";

const className = "EulerDiscreteScheduler";

const config = z.object({
  ...sigmaSpaceKeys,
  ...noiseScheduleKeys,
  ...namedGridKeys,
  /** The last two are the same. */
  prediction_type: z.enum(["epsilon", "v_prediction", "sample", "original_sample"]).default("epsilon"),
  interpolation_type: z.enum(["linear", "log_linear"]).default("linear"),
  sigma_min: z.number().nullable().default(null),
  sigma_max: z.number().nullable().default(null),
  timestep_type: z.enum(["discrete", "continuous"]).default("discrete"),
  final_sigmas_type: z.enum(["zero", "sigma_min"]).default("zero"),
});
type Config = z.output<typeof config>;

export default {
  name: "euler-discrete",
  className,
  config,
  takes: ["sigmas", "timesteps"],
  table(config, options) {
    const prediction = config.prediction_type === "original_sample" ? "sample" : config.prediction_type;
    const isContinuous = config.timestep_type === "continuous" && prediction === "v_prediction";
    if (isContinuous && options.timesteps)
      throw samplerOption(className, "timesteps", "has continuous times, which follow from its sigmas");
    const { times, sigmas } = gridOf(config, options);
    const rows = times.map((time, k): Row => {
      const sigma = entryAt(sigmas, k);
      return {
        timestep: isContinuous ? Math.log(sigma) / 4 : time,
        sigma,
        level: noiseLevel({ sigma }),
        inputScale: inputScaleAt(sigma),
        m: slopeAt(prediction, sigma),
        next: eulerStep(k, k, sigma, entryAt(sigmas, k + 1)),
      };
    });
    return { name: "euler-discrete", prediction, initialScale: initialScale(sigmas, config.timestep_spacing), rows };
  },
} satisfies Sampler<typeof config>;

/** Times, and sigmas: one more than times, as the last is where the run ends. */
function gridOf(config: Config, options: SamplerOptions): { readonly times: readonly number[]; readonly sigmas: readonly number[] } {
  const { steps, sigmas: given, timesteps } = options;
  if (given) {
    if (timesteps) throw samplerOption(className, "sigmas", "takes sigmas or timesteps, not both");
    if (given.length !== steps + 1)
      throw samplerOption(className, "sigmas", `needs ${steps + 1} sigmas for ${steps} steps, the last where the run ends`);
    const logSigmas = trainedSigmas(config).map(Math.log);
    return { times: given.slice(0, steps).map((sigma) => timeOfSigma(sigma, logSigmas)), sigmas: given };
  }
  // The library lays out one sigma more than steps here, and appends the end after it, where no step goes.
  const sigmasAt = (_: readonly number[], trained: readonly number[]): readonly number[] =>
    linspace(Math.log(entryAt(trained, trained.length - 1)), Math.log(entryAt(trained, 0)), steps + 1).map(Math.exp);
  const { times, sigmas } = sigmaGrid(className, config, options, config.interpolation_type === "log_linear" ? { sigmasAt } : {});
  return { times, sigmas: [...sigmas, config.final_sigmas_type === "zero" ? 0 : entryAt(trainedSigmas(config), 0)] };
}
