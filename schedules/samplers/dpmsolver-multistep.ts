/** DPM-Solver++ multistep and its SDE form (arXiv 2211.01095), as diffusers' `schedulers/scheduling_dpmsolver_multistep.py` runs them. */
import { z } from "zod";
import { samplerOption, unsupportedScheduler } from "../../ir/diagnostics.js";
import { refuseClamping, thresholdingKeys } from "../clipping.js";
import { alphaBars, noiseScheduleKeys } from "../noise-schedule.js";
import { betaSigmas, exponentialSigmas, interpolate, karrasSigmas, shiftedSigma, timeOfSigma } from "../sigma-grid.js";
import type { Row, Sampler } from "../sampler.js";
import { linspace, roundHalfEven, spacedTimes, timestepSpacing } from "../spacing.js";

const className = "DPMSolverMultistepScheduler";

const config = z.object({
  ...noiseScheduleKeys,
  ...thresholdingKeys,
  solver_order: z.int().min(1).max(3).default(2),
  prediction_type: z.enum(["epsilon", "v_prediction", "sample", "flow_prediction"]).default("epsilon"),
  algorithm_type: z.enum(["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"]).default("dpmsolver++"),
  /** The last three are other classes' solvers, for which the library takes midpoint. */
  solver_type: z.enum(["midpoint", "heun", "logrho", "bh1", "bh2"]).default("midpoint"),
  lower_order_final: z.boolean().default(true),
  euler_at_final: z.boolean().default(false),
  use_karras_sigmas: z.boolean().default(false),
  use_exponential_sigmas: z.boolean().default(false),
  use_beta_sigmas: z.boolean().default(false),
  use_lu_lambdas: z.boolean().default(false),
  use_flow_sigmas: z.boolean().default(false),
  flow_shift: z.number().default(1),
  final_sigmas_type: z.enum(["zero", "sigma_min"]).default("zero"),
  lambda_min_clipped: z.union([z.number(), z.literal([-Infinity, "-Infinity"])]).default(-Infinity),
  /** Which channels are the prediction is the recipe's to say. */
  variance_type: z.enum(["learned", "learned_range"]).nullable().default(null),
  timestep_spacing: timestepSpacing.default("linspace"),
  steps_offset: z.int().default(0),
  use_dynamic_shifting: z.boolean().default(false),
  time_shift_type: z.literal("exponential").default("exponential"),
});
type Config = z.output<typeof config>;

/** Times that the model is told, and sigmas: one more, the one where the run ends. */
interface Grid {
  readonly times: readonly number[];
  readonly sigmas: readonly number[];
}

export default {
  name: "dpmsolver-multistep",
  className,
  config,
  takes: ["timesteps", "mu"],
  table(config, { steps, timesteps, mu }) {
    refuseClamping(className, config);
    const { algorithm_type: algorithm, prediction_type: prediction } = config;
    if (algorithm === "dpmsolver" || algorithm === "sde-dpmsolver") {
      const hint = `Set "algorithm_type": "${algorithm}++", which diffusers recommends in its place.`;
      throw unsupportedScheduler(className, `"algorithm_type": "${algorithm}"`, "it is deprecated in diffusers", hint);
    }
    const stochastic = algorithm === "sde-dpmsolver++";
    const { times, sigmas } = gridOf(config, steps, timesteps, mu);
    const levels = sigmas.map((sigma) => levelOf(sigma, config.use_flow_sigmas));
    const rows = times.map((time, k): Row => {
      const order = orderAt(k, steps, config);
      const { x, m, noise } = solverStep(levels, k, order, config.solver_type === "heun", stochastic);
      return {
        timestep: time,
        inputScale: 1,
        m: sampleOf(config, at(levels, k), at(sigmas, k)),
        next: { x: [{ step: k, weight: x }], m, noise },
      };
    });
    return { name: "dpmsolver-multistep", prediction: prediction === "flow_prediction" ? "flow" : prediction, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;

function gridOf(config: Config, steps: number, timesteps: readonly number[] | undefined, mu: number | undefined): Grid {
  const trainTimes = config.num_train_timesteps;
  const bars = alphaBars(config).map((bar) => (bar === 0 ? 2 ** -24 : bar));
  const trained = bars.map((bar) => Math.sqrt((1 - bar) / bar));
  const min = at(trained, 0);
  const max = at(trained, trained.length - 1);
  const last = config.final_sigmas_type === "zero" ? 0 : min;
  const asked = (["karras", "exponential", "beta"] as const).filter((grid) => config[`use_${grid}_sigmas`]);
  const named = asked[0] ?? (config.use_lu_lambdas ? "lu" : config.use_flow_sigmas ? "flow" : undefined);
  if (asked.length > 1)
    throw unsupportedScheduler(className, `${asked.join(" and ")} sigmas`, "they exclude each other", "Choose one grid.");
  if (mu !== undefined && !config.use_dynamic_shifting)
    throw samplerOption(className, "mu", 'takes mu only with "use_dynamic_shifting": true');
  if (timesteps) {
    if (named) throw samplerOption(className, "timesteps", `lays out its own times with ${named} sigmas`);
    if (timesteps.length !== steps) throw samplerOption(className, "timesteps", `needs ${steps} times for ${steps} steps`);
  }
  if (named === "flow") {
    const shift = mu === undefined ? config.flow_shift : Math.exp(mu);
    const sigmas = linspace(1, 1 / trainTimes, steps + 1)
      .map((alpha) => shiftedSigma(1 - alpha, shift))
      .reverse()
      .slice(0, steps);
    return { times: sigmas.map((sigma) => Math.trunc(sigma * trainTimes)), sigmas: [...sigmas, last] };
  }
  if (named) {
    const grids = { karras: karrasSigmas, exponential: exponentialSigmas, beta: betaSigmas, lu: exponentialSigmas };
    const sigmas = grids[named](max, min, steps);
    const logSigmas = trained.map(Math.log);
    const rounds = (named === "karras" || named === "lu") && config.beta_schedule !== "squaredcos_cap_v2";
    const toInteger = rounds ? roundHalfEven : Math.trunc;
    return { times: sigmas.map((sigma) => toInteger(timeOfSigma(sigma, logSigmas))), sigmas: [...sigmas, last] };
  }
  const lambdas = trained.map((sigma) => -Math.log(sigma));
  const clip = Number(config.lambda_min_clipped);
  const times =
    timesteps?.map(Math.trunc) ??
    spacedTimes({
      spacing: config.timestep_spacing,
      trainTimes,
      steps,
      offset: config.steps_offset,
      lastTime: trainTimes - lambdas.filter((lambda) => lambda < clip).length,
      extraPoint: true,
    });
  return { times, sigmas: [...times.map((time) => interpolate(trained, time)), last] };
}

/** Signal and noise of x = alpha · x_0 + sigma · noise, and lambda = ln (alpha / sigma). */
interface Level {
  readonly alpha: number;
  readonly sigma: number;
  readonly lambda: number;
}

function levelOf(sigma: number, isFlow: boolean): Level {
  const alpha = isFlow ? 1 - sigma : 1 / Math.sqrt(sigma * sigma + 1);
  const noise = isFlow ? sigma : sigma * alpha;
  return { alpha, sigma: noise, lambda: Math.log(alpha) - Math.log(noise) };
}

/** The predicted sample: x_0 = x · x_k + out · out_k. `gridSigma` is sigma / alpha, or sigma on a flow grid. */
function sampleOf({ prediction_type: prediction }: Config, { alpha, sigma }: Level, gridSigma: number): Row["m"] {
  switch (prediction) {
    case "epsilon":
      return { x: 1 / alpha, out: -sigma / alpha };
    case "v_prediction":
      return { x: alpha, out: -sigma };
    case "sample":
      return { x: 0, out: 1 };
    case "flow_prediction":
      return { x: 1, out: -gridSigma };
    default:
      throw new Error(`internal: prediction ${String(prediction satisfies never)}`);
  }
}

/** Full order needs as many past steps; the ends are lower where the configuration says so. */
function orderAt(k: number, steps: number, config: Config): number {
  const lowersEnd = config.lower_order_final && steps < 15;
  const lastIsFirst = config.euler_at_final || lowersEnd || config.final_sigmas_type === "zero";
  const left = steps - k;
  const cap = left === 1 && lastIsFirst ? 1 : left === 2 && lowersEnd ? 2 : 3;
  return Math.min(config.solver_order, k + 1, cap);
}

/** One step from level k to level k + 1 (arXiv 2211.01095, algorithm 2, and its SDE form). */
function solverStep(
  levels: readonly Level[],
  k: number,
  order: number,
  isHeun: boolean,
  isStochastic: boolean,
): Omit<Row["next"], "x"> & { x: number } {
  const from = at(levels, k);
  const to = at(levels, k + 1);
  const h = to.lambda - from.lambda;
  const weights = sampleWeights(levels, k, order, isHeun, isStochastic);
  return {
    x: (to.sigma / from.sigma) * (isStochastic ? Math.exp(-h) : 1),
    m: weights.map((weight, back) => ({ step: k - back, weight })),
    noise: isStochastic ? to.sigma * Math.sqrt(-Math.expm1(-2 * h)) : 0,
  };
}

/** Weights of the predicted samples m_k, m_{k−1}, …: orders 2 and 3 add their divided differences D1 and D2 over lambda. */
function sampleWeights(levels: readonly Level[], k: number, order: number, isHeun: boolean, isStochastic: boolean): readonly number[] {
  const lambda = (i: number): number => at(levels, i).lambda;
  const { alpha } = at(levels, k + 1);
  const h = lambda(k + 1) - lambda(k);
  // The weights of the SDE are those of the ODE at 2h.
  const reach = isStochastic ? 2 * h : h;
  const decay = Math.expm1(-reach);
  const first = -alpha * decay;
  if (order === 1) return [first];
  const r0 = (lambda(k) - lambda(k - 1)) / h;
  const slope = alpha * (decay / reach + 1);
  if (order === 2) {
    const d1 = (isHeun ? slope : first / 2) / r0;
    return [first + d1, -d1];
  }
  const r1 = (lambda(k - 1) - lambda(k - 2)) / h;
  // The library's SDE has −½ where the expansion has +½: runs must reproduce the library's.
  const curve = -alpha * ((decay + reach) / reach ** 2 + (isStochastic ? 0.5 : -0.5));
  // D1 = D10 + r0/(r0 + r1)·(D10 − D11) and D2 = (D10 − D11)/(r0 + r1), with D10 = (m0 − m1)/r0 and D11 = (m1 − m2)/r1.
  const spread = (slope * r0 + curve) / (r0 + r1);
  const d10 = (slope + spread) / r0;
  const d11 = -spread / r1;
  return [first + d10, d11 - d10, -d11];
}

function at<T>(values: readonly T[], i: number): T {
  const value = values[i];
  if (value === undefined) throw new Error(`internal: there is no level ${i}`);
  return value;
}
