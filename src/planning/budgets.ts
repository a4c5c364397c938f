/** Several budgets for one calibration: the shares of a front, the tiers of a build, and what the policy says of each plan. */
import { badOption } from "../../schedules/diagnostics.js";
import { type Compared, optionWord, policies, type Predicted, type Tradeoff } from "../../schedules/index.js";

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

/** What a plan was compared with before it was chosen. */
export interface Comparison extends Tradeoff {
  readonly candidate: string;
  /** By name; what did not diverge. */
  readonly compared: ReadonlyMap<string, Compared>;
}

/** What is predicted of a plan and the plans that it was compared with; undefined where it was compared with none. */
export function comparisonOf(predicted: Predicted = {}): Comparison | undefined {
  const { computedShare: share, error, interval, candidate, compared } = predicted;
  if (share === undefined || error === undefined || candidate === undefined || !compared) return undefined;
  const finite = Object.entries(compared).filter(([, { error }]) => Number.isFinite(error));
  return { share, error, interval, candidate, compared: new Map(finite) };
}
