/**
 * Pseudo numerical methods (arXiv 2202.09778), Runge–Kutta then linear multistep,
 * as diffusers' `schedulers/scheduling_pndm.py` runs them.
 */
import { z } from "zod";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { alphaBars, betaKeys } from "../solvers/noise-schedule.js";
import { adamsBashforthWeights } from "../solvers/quadrature.js";
import type { Row, Sampler, Term } from "../sampler.js";
import { spacedTimes, timestepSpacing } from "../solvers/spacing.js";
import { levelOfBar, noiseLevel } from "../solvers/levels.js";

const className = "PNDMScheduler";

const config = z.object({
  ...betaKeys,
  skip_prk_steps: z.boolean().default(false),
  set_alpha_to_one: z.boolean().default(false),
  prediction_type: z.enum(["epsilon", "v_prediction"]).default("epsilon"),
  timestep_spacing: timestepSpacing.default("leading"),
  steps_offset: z.int().default(0),
});

/** One evaluation: where the model is, and from where to where its step goes with which outputs. */
interface Move {
  readonly time: number;
  /** The evaluation whose latent the step starts from. */
  readonly base: number;
  readonly from: number;
  readonly to: number;
  readonly outs: readonly Term[];
}

/** Outputs that a multistep move takes. */
const ORDER = 4;

/** Runge–Kutta steps before the multistep ones have a history, four evaluations each. */
const WARM_UP = ORDER - 1;

export default {
  name: "pndm",
  className,
  config,
  takes: [],
  table(config, { steps }) {
    const trainTimes = config.num_train_timesteps;
    const spaced = { spacing: config.timestep_spacing, trainTimes, steps, offset: config.steps_offset };
    const times = spacedTimes(spaced);
    const bars = alphaBars(config);
    const finalBar = config.set_alpha_to_one ? 1 : entryAt(bars, 0);
    const barAt = (time: number): number => (time >= 0 ? (bars[time] ?? NaN) : finalBar);
    const stride = Math.floor(trainTimes / steps);
    if (!config.skip_prk_steps && steps <= WARM_UP)
      throw samplerOption(className, "steps", `takes more than ${WARM_UP} steps, or "skip_prk_steps": true`);
    const moves = config.skip_prk_steps ? skippingWarmUp(times, stride) : warmingUp(times, stride);
    const rows = moves.map(({ time, base, from, to, outs }): Row => {
      const transfer = transferBetween(barAt(from), barAt(to));
      // A v-prediction v is the predicted noise alpha · v + sigma · x, with x the latent at the step's base.
      const isV = config.prediction_type === "v_prediction";
      const scale = transfer.noise * (isV ? Math.sqrt(barAt(from)) : 1);
      const x = transfer.x + (isV ? transfer.noise * Math.sqrt(1 - barAt(from)) : 0);
      const m = outs.map(({ step, weight }) => ({ step, weight: scale * weight }));
      const level = noiseLevel(levelOfBar(barAt(time)));
      return { timestep: time, level, inputScale: 1, m: { x: 0, out: 1 }, next: { x: [{ step: base, weight: x }], m, noise: 0 } };
    });
    return { name: "pndm", prediction: config.prediction_type, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;

/** x' = x · x_base + noise · predicted noise (eq. 11). */
function transferBetween(bar: number, nextBar: number): { readonly x: number; readonly noise: number } {
  const divisor = bar * Math.sqrt(1 - nextBar) + Math.sqrt(bar * (1 - bar) * nextBar);
  return { x: Math.sqrt(nextBar / bar), noise: -(nextBar - bar) / divisor };
}

/** A multistep move at evaluation k with the outputs of these evaluations, the newest last. */
function multistep(k: number, time: number, stride: number, history: readonly number[]): Move {
  const newestFirst = history.slice(-ORDER).reverse();
  const weights = adamsBashforthWeights(newestFirst.length);
  return { time, base: k, from: time, to: time - stride, outs: newestFirst.map((step, i) => ({ step, weight: entryAt(weights, i) })) };
}

/** Multistep moves only; the first step is evaluated at both ends, whose mean it takes. */
function skippingWarmUp(times: readonly number[], stride: number): readonly Move[] {
  const [, second] = times;
  const first = multistep(0, entryAt(times, 0), stride, [0]);
  if (second === undefined) return [first];
  const mean = [0, 1].map((step) => ({ step, weight: 1 / 2 }));
  const again: Move = { time: second, base: 0, from: second + stride, to: second, outs: mean };
  // The evaluation at the end of the first step leaves the history: the one after it is at the same time.
  const rest = times
    .slice(1)
    .map((time, i) => multistep(i + 2, time, stride, [0, ...Array.from({ length: i + 1 }, (_, j) => j + 2)].slice(-4)));
  return [first, again, ...rest];
}

/** Three Runge–Kutta steps of four evaluations each, then multistep moves. */
function warmingUp(times: readonly number[], stride: number): readonly Move[] {
  const half = Math.floor(stride / 2);
  const starts = Array.from({ length: WARM_UP }, (_, step) => 4 * step);
  const warmUp = starts.flatMap((base, step): Move[] => {
    const from = entryAt(times, step);
    const end = entryAt(times, step + 1);
    const move = (time: number, to: number, outs: readonly Term[]): Move => ({ time, base, from, to, outs });
    const only = (step: number): Term[] => [{ step, weight: 1 }];
    const whole = [1, 2, 2, 1].map((share, i) => ({ step: base + i, weight: share / 6 }));
    return [
      move(from, from - half, only(base)),
      move(end + half, end + half, only(base + 1)),
      move(end + half, end, only(base + 2)),
      move(end, end, whole),
    ];
  });
  const rest = times.slice(WARM_UP).map((time, i) => {
    const k = 4 * WARM_UP + i;
    return multistep(k, time, stride, [...starts, ...Array.from({ length: i + 1 }, (_, j) => 4 * WARM_UP + j)].slice(-4));
  });
  return [...warmUp, ...rest];
}
