/**
 * Block Caching ("Cache Me if You Can", arXiv 2312.03209): a branch is reused while its changes from step to step add up to less than a
 * threshold. Each branch decides by itself.
 */
import { z } from "zod";
import { badCurves, policyNeedsModel } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { type Choice, groupBranches, groupOption, type Policy, type PolicyInput, statisticsOf } from "../policy.js";
import { fitAdjustments } from "../planning/fit-adjustment.js";
import { errorCurves } from "../planning/statistics.js";
import { nearestToShare, reuseWhile, type StepMask, thresholdsBetween } from "../planning/threshold.js";

/** The paper's, for LDM-512. */
const DELTA = 0.5;

const options = z
  .object({
    delta: z.coerce.number().positive().optional().describe(`largest accumulated error of reuse; ${DELTA} if absent`),
    share: z.coerce.number().positive().max(1).optional().describe("share of the cacheable compute to keep: finds delta"),
    group: groupOption("site"),
    adjust: z
      .enum(["none", "scale-shift"])
      .default("none")
      .describe("whether what is reused is scaled and shifted, channel by channel, as fits runs of the model best"),
  })
  .refine(({ delta, share }) => delta === undefined || share === undefined, { message: "takes delta or share, not both" });

export default {
  name: "block-caching",
  summary: "reuse each branch until its changes from step to step have added up",
  needs: ({ adjust }) => (adjust === "none" ? ["trace"] : ["trace", "runs"]),
  options,
  async choose(input, { adjust, ...rule }) {
    const choice = schedule(input, rule);
    if (adjust === "none") return choice;
    if (!input.runs) throw policyNeedsModel("block-caching");
    return { ...choice, adjustments: await fitAdjustments(input, input.runs, choice.cells) };
  },
} satisfies Policy<typeof options>;

/** Which steps compute. Throws BAD_CURVES. */
function schedule(input: PolicyInput, { delta = DELTA, share, group }: Omit<z.output<typeof options>, "adjust">): Choice {
  const { steps } = input;
  const groups = groupBranches(input.sites, group).map(({ key, sites }) => {
    const changes = errorCurves(statisticsOf(sites)).mean[0]?.slice(1) ?? [];
    if (changes.length !== steps - 1 || !changes.every((change) => Number.isFinite(change) && change >= 0))
      throw badCurves(key, "some are not finite numbers from 0 up");
    return { key, totals: runningTotals(changes) };
  });
  const rowsAt = (threshold: number): Map<string, StepMask> =>
    new Map(groups.map(({ key, totals }) => [key, reuseWhile(steps, (step, filled) => changeBetween(totals, filled, step) <= threshold)]));
  if (share === undefined) return { cells: rowsAt(delta) };
  const sums = groups.flatMap(({ totals }) =>
    totals.flatMap((_, from) => totals.slice(from + 1).map((_, i) => changeBetween(totals, from, from + 1 + i))),
  );
  return nearestToShare(input, share, "delta", thresholdsBetween(sums), rowsAt);
}

/** For every step, Σ of the changes from the first step up to it. */
function runningTotals(changes: readonly number[]): readonly number[] {
  let sum = 0;
  return [0, ...changes.map((change) => (sum += change))];
}

/** Σ of the changes from the step that was computed to this one. */
function changeBetween(totals: readonly number[], filled: number, step: number): number {
  return entryAt(totals, step) - entryAt(totals, filled);
}
