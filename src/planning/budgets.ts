/** Several budgets for one calibration: the shares of a front, the tiers of a build, and the comparison for each plan. */
import { badOption } from "../../schedules/diagnostics.js";
import { type Compared, optionWord, policies, type Predicted, type Tradeoff } from "../../schedules/index.js";

/** The default policy of fronts and tiers. */
export const BUDGET = "budget";

/** The default shares of the cacheable compute in a front, each about four fifths of the one before. */
export const FRONT_SHARES = [0.7, 0.6, 0.5, 0.42, 0.34, 0.27, 0.2, 0.15] as const;

/** The policy options of each tier. A relative L2 error of 0.01 is 40 dB below the latent. */
export const TIERS: ReadonlyMap<string, Readonly<Record<string, string>>> = new Map([
  ["fast", { share: "0.2" }],
  ["balanced", { share: "0.34" }],
  ["lossless", { maxError: "0.01" }],
]);

/** Throws BAD_OPTION if an option that sets several budgets (`flag`) is used with another policy, or together with a single budget. */
export function assertBudgetsOpen(flag: string, policy: string, options: Readonly<Record<string, unknown>>): void {
  const budgets = policies.get(policy)?.budgets;
  if (!budgets) throw badOption(flag, `is for --policy ${BUDGET}, not for ${policy}`);
  const named = budgets.find((name) => options[name] !== undefined);
  if (named !== undefined) throw badOption(flag, `names its budgets itself; leave out --${optionWord(named)}`);
}

/** The predicted figures of a plan, and the plans that it was compared with. */
export interface Comparison extends Tradeoff {
  readonly candidate: string;
  /** By name, without plans that diverged. */
  readonly compared: ReadonlyMap<string, Compared>;
}

/** The comparison in a prediction; undefined if the plan was compared with none. */
export function comparisonOf(predicted: Predicted = {}): Comparison | undefined {
  const { computedShare: share, error, interval, candidate, compared } = predicted;
  if (share === undefined || error === undefined || candidate === undefined || !compared) return undefined;
  const finite = Object.entries(compared).filter(([, { error }]) => Number.isFinite(error));
  return { share, error, interval, candidate, compared: new Map(finite) };
}
