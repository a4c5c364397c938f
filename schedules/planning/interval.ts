/** Uniform schedules: every n-th step computes, after a warm-up in which all of them do. */
import { z } from "zod";

/** The conventions for counting steps (`UniformSchedule.phase`). */
const PHASES = ["smoothcache", "fora", "taylorseer", "ab-cache"] as const;

export interface UniformSchedule {
  readonly interval: number;
  readonly warmup: number;
  /**
   * `smoothcache`: Roblox/SmoothCache's <T>-N-<n>-fora.json. `fora`: prathebaselva/FORA's `src/models.py`, whose counter runs down.
   * `taylorseer`: Shenyi-Z/TaylorSeer's `cal_type.py`. `ab-cache`: step % n, as ports of aSleepyTree/AB-Cache document it.
   */
  readonly phase: (typeof PHASES)[number];
}

/** The options of a policy that computes every n-th step, with the given defaults. */
export function uniformOptions(
  defaults: UniformSchedule,
): Readonly<{ interval: z.ZodType<number>; warmup: z.ZodType<number>; phase: z.ZodType<UniformSchedule["phase"]> }> {
  return {
    interval: z.coerce.number().int().min(1).default(defaults.interval).describe("compute every n-th step"),
    warmup: z.coerce.number().int().min(1).default(defaults.warmup).describe("compute all of the first n steps"),
    phase: z
      .enum(PHASES)
      .default(defaults.phase)
      .describe(
        "smoothcache: count from the first step and compute the last too; fora: count back from the last; taylorseer: count from the last step of the warm-up; ab-cache: count from the first",
      ),
  };
}

/** Which of the steps compute; the first one always does. */
export function uniformSteps(steps: number, { interval, warmup, phase }: UniformSchedule): readonly boolean[] {
  const last = steps - 1;
  const origin = { smoothcache: 0, fora: last, taylorseer: warmup - 1, "ab-cache": 0 }[phase];
  return Array.from({ length: steps }, (_, k) => k < warmup || (k - origin) % interval === 0 || (phase === "smoothcache" && k === last));
}
