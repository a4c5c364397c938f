/** Several budgets for one calibration: the shares of a front, the tiers of a build, and what the policy says of each plan. */
import { z } from "zod";
import { badOption } from "../ir/diagnostics.js";
import { optionWord, policies } from "../schedules/index.js";

/** The policy that plans for them where none is named. */
export const BUDGET = "budget";

/** Shares of the cacheable compute that a front has unless others are named, each about four fifths of the one before. */
export const FRONT_SHARES = [0.7, 0.6, 0.5, 0.42, 0.34, 0.27, 0.2, 0.15] as const;

/** What the tiers ask of the policy. An error of 0.01 (relative L2) lies 40 dB below the latent. */
export const TIERS: ReadonlyMap<string, Readonly<Record<string, string>>> = new Map([
  ["fast", { share: "0.2" }],
  ["balanced", { share: "0.34" }],
  ["lossless", { maxError: "0.01" }],
]);

/** Throws BAD_OPTION where an option that names several budgets (`flag`) meets another policy, or a budget of its own. */
export function assertBudgetsOpen(flag: string, policy: string, options: Readonly<Record<string, unknown>>): void {
  const budgets = policies.get(policy)?.budgets;
  if (!budgets) throw badOption(flag, `is for --policy ${BUDGET}, not for ${policy}`);
  const named = budgets.find((name) => options[name] !== undefined);
  if (named !== undefined) throw badOption(flag, `names its budgets itself; leave out --${optionWord(named)}`);
}

/** JSON has null for numbers that are not finite. */
const measure = z.preprocess(
  (value) => value ?? NaN,
  z.custom<number>((value) => typeof value === "number"),
);

const measuredSchema = z.object({
  /** Relative L2 error of the final latent, mean over the calibration's samples. */
  error: measure,
  /** Half-width of its 95 % confidence interval. */
  interval: z.number().nullish().transform((interval) => interval ?? undefined), // prettier-ignore
});

const comparisonSchema = measuredSchema.extend({
  /** Of the cacheable compute, that is left. */
  computedShare: z.number(),
  /** What the plan was before it was chosen. */
  candidate: z.string(),
  /** By name: all that was measured for this budget, published methods among it. */
  compared: z
    .record(z.string(), measuredSchema.extend({ share: z.number(), samples: z.number(), isPublished: z.boolean() }))
    .transform((all) => new Map(Object.entries(all).filter(([, { error }]) => Number.isFinite(error)))),
});

export type Comparison = z.output<typeof comparisonSchema>;

/** What a plan's `predicted` says of the plans that it was compared with; undefined where it says nothing of the kind. */
export function comparisonOf(predicted: unknown): Comparison | undefined {
  return comparisonSchema.safeParse(predicted).data;
}
