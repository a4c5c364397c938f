/** Time grids: which training times a run of n steps visits, with numpy's rounding. */
import { z } from "zod";
import { degenerateTimes, samplerOption } from "../diagnostics.js";

/** arXiv 2305.08891, table 2. */
export const timestepSpacing = z.enum(["linspace", "leading", "trailing"]);
export type TimestepSpacing = z.output<typeof timestepSpacing>;

/** `count` values from `from` to `to`, both included, as numpy spaces them; one value is `from`. */
export function linspace(from: number, to: number, count: number): number[] {
  const step = (to - from) / (count - 1);
  return Array.from({ length: count }, (_, i) => (i > 0 && i === count - 1 ? to : from + (i === 0 ? 0 : i * step)));
}

/** Rounds to the nearest integer, halves to the even one, as numpy does. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

export interface SpacingRequest {
  readonly spacing: TimestepSpacing;
  /** Training times are 0 … trainTimes − 1. */
  readonly trainTimes: number;
  readonly steps: number;
  /** Added to the times under `leading` spacing. */
  readonly offset: number;
  /** The end of the grid if the noisiest times are left out. Default: `trainTimes`. */
  readonly lastTime?: number;
  /** Whether linspace and leading spacing lay out one point more than steps and drop time 0 (DPM-Solver, UniPC, DEIS). */
  readonly extraPoint?: boolean;
  /** Whether linspace times stay fractions (the samplers that step in sigma). */
  readonly fractional?: boolean;
}

/**
 * Training times in sampling order, integers unless `fractional`, as diffusers' `set_timesteps` lays them out.
 * Throws DEGENERATE_TIMES where the library's own grid falls off the training times or does not move.
 */
export function spacedTimes(request: SpacingRequest): readonly number[] {
  const { trainTimes, steps } = request;
  const times = layOut(request);
  const last = times.at(-1) ?? 0;
  // Trailing spacing is a floating-point range: for some counts it has an entry too many, and ends at −1.
  if (times.length !== steps || last < 0) throw degenerateTimes(steps, `the ${request.spacing} grid ends at time ${last}`);
  if ((times[0] ?? 0) >= trainTimes) throw degenerateTimes(steps, `the grid starts at time ${times[0] ?? 0}, after the last training time`);
  if (steps > 1 && times[0] === last) throw degenerateTimes(steps, `every step has time ${last}`);
  return times;
}

/** Throws SAMPLER_OPTION unless the given times are `steps` training times that fall. */
export function checkFallingTimes(className: string, times: readonly number[], steps: number, trainTimes: number): void {
  const falls = times.every((time, k) => Number.isInteger(time) && time >= 0 && time < (times[k - 1] ?? trainTimes));
  if (times.length !== steps || !falls)
    throw samplerOption(className, "timesteps", `needs ${steps} falling training times for ${steps} steps`);
}

function layOut({
  spacing,
  trainTimes,
  steps,
  offset,
  lastTime = trainTimes,
  extraPoint = false,
  fractional = false,
}: SpacingRequest): readonly number[] {
  const points = extraPoint ? steps + 1 : steps;
  switch (spacing) {
    case "linspace":
      return linspace(0, lastTime - 1, points)
        .map((time) => (fractional ? time : roundHalfEven(time)))
        .reverse()
        .slice(0, steps);
    case "leading": {
      const stride = Math.floor(lastTime / points);
      return Array.from({ length: steps }, (_, k) => (points - 1 - k) * stride + offset);
    }
    case "trailing":
      return descending(lastTime, trainTimes / steps).map((time) => roundHalfEven(time) - 1);
    default:
      throw new Error(`internal: spacing ${String(spacing satisfies never)}`);
  }
}

/** numpy's arange(from, 0, −step), with its count and its accumulation of rounding. */
function descending(from: number, step: number): readonly number[] {
  const delta = from - step - from;
  return Array.from({ length: Math.ceil(-from / -step) }, (_, i) => from + i * delta);
}
