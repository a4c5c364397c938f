/**
 * SmoothCache (arXiv 2411.10510): a value is reused while the calibrated error of reusing it stays below a threshold. The rule of the
 * paper and that of its code (Roblox/SmoothCache, `calibration_helper.py`) differ; both are implemented.
 */
import { z } from "zod";
import { badCurves } from "../diagnostics.js";
import { unknownName } from "../../ir/diagnostics.js";
import { groupBranches, groupOption, type Policy, statisticsOf } from "../policy.js";
import { type ErrorBands, errorCurves } from "../planning/statistics.js";
import { nearestToShare, reuseWhile, type StepMask, thresholdsBetween } from "../planning/threshold.js";

const SHARE = 0.5;

const options = z
  .object({
    alpha: z
      .union([z.coerce.number().positive(), z.string().regex(/^[^=,]+=\d*\.?\d+(,[^=,]+=\d*\.?\d+)*$/, "takes a number, or kind=number,…")])
      .optional()
      .describe("threshold of the relative L1 error; or one for each kind: attn=0.2,mlp=0.1"),
    share: z.coerce
      .number()
      .positive()
      .max(1)
      .optional()
      .describe(`share of the cacheable compute to keep: finds the threshold; ${SHARE} if neither is asked for`),
    k: z.coerce.number().int().min(1).default(3).describe("largest distance from a computed step to one that reuses it"),
    rule: z
      .enum(["paper", "code"])
      .default("paper")
      .describe("paper: test each step against the last computed one; code: test the farthest step of a gap only"),
    group: groupOption("stream"),
  })
  .refine(({ alpha, share }) => alpha === undefined || share === undefined, { message: "takes alpha or share, not both" });

export default {
  name: "smoothcache",
  summary: "reuse while the measured error stays below a threshold",
  needs: ["trace"],
  options,
  threshold: "alpha",
  choose(input, { alpha, share = SHARE, k, rule, group }) {
    const { curves, scan } = RULES[rule];
    const bands = new Map(
      groupBranches(input.sites, group).map(({ key, sites }) => [
        key,
        checked(key, errorCurves(statisticsOf(sites))[curves], k, input.steps),
      ]),
    );
    const rowsAt = (thresholdOf: (key: string) => number): Map<string, StepMask> =>
      new Map([...bands].map(([key, band]) => [key, scan(band, thresholdOf(key), input.steps)]));
    if (alpha !== undefined) return { cells: rowsAt(thresholdsOf(alpha, [...bands.keys()])) };
    const errors = [...bands.values()].flatMap((band) => band.flatMap((row, i) => row.slice(i + 1)));
    return nearestToShare(input, share, "alpha", thresholdsBetween(errors), (threshold) => rowsAt(() => threshold));
  },
} satisfies Policy<typeof options>;

/**
 * The threshold of every group, from one number for all or from `attn=0.2,mlp=0.1`.
 * A kind that is not named is always computed. Throws UNKNOWN_NAME.
 */
function thresholdsOf(alpha: number | string, keys: readonly string[]): (key: string) => number {
  if (typeof alpha === "number") return () => alpha;
  const given = new Map(
    alpha.split(",").map((pair) => {
      const [key = "", threshold] = pair.split("=");
      if (!keys.includes(key)) throw unknownName("group of branches", key, keys);
      return [key, Number(threshold)];
    }),
  );
  return (key) => given.get(key) ?? 0;
}

const RULES = { paper: { curves: "mean", scan: scanByPaper }, code: { curves: "pooled", scan: scanByCode } } as const;

/**
 * Eq. 4: walk the steps; reuse while the error against the last computed step is below alpha and its distance at most k.
 * The paper does not mention the ends: the first step has nothing to reuse, and the last is computed, as in every published schedule.
 */
function scanByPaper(bands: ErrorBands, alpha: number, steps: number): StepMask {
  return reuseWhile(steps, (step, filled) => step < steps - 1 && (bands[step - filled - 1]?.[step] ?? Infinity) < alpha);
}

/** `_scan_nrows_sublists`: from each computed step the largest gap whose farthest error is at most alpha; both ends computed afterwards. */
function scanByCode(bands: ErrorBands, alpha: number, steps: number): StepMask {
  const row = new Array<0 | 1>(steps).fill(0);
  for (let i = 0; i < steps;) {
    row[i] = 1;
    let gap = bands.length;
    while (gap > 0 && !((bands[gap - 1]?.[i + gap] ?? Infinity) <= alpha)) gap--;
    i += gap + 1;
  }
  row[steps - 1] = 1;
  return row;
}

/** The first k bands. Throws BAD_CURVES if they are not usable. */
function checked(key: string, bands: ErrorBands, k: number, steps: number): ErrorBands {
  const needed = Math.min(k, steps - 1);
  const used = bands.slice(0, k);
  if (used.length < needed) throw badCurves(key, `they reach back ${used.length} steps, and ${needed} are asked for`);
  const errors = used.flatMap((band, i) => band.slice(i + 1));
  const short = used.findIndex((band) => band.length !== steps);
  if (short >= 0) throw badCurves(key, `lag ${short + 1} has ${used[short]?.length ?? 0} entries for ${steps} steps`);
  if (!errors.every((error) => Number.isFinite(error) && error >= 0)) throw badCurves(key, "some are not finite numbers from 0 up");
  if (errors.length > 0 && errors.every((error) => error === 0)) throw badCurves(key, "all are 0, as if the branch never changed");
  return used;
}
