/** The front: plans at several shares of the compute, from one calibration. */
import { assertBudgetsOpen, BUDGET, type Comparison, comparisonOf, FRONT_SHARES } from "./budgets.js";
import { choosePlan, type Planned } from "./choose.js";
import type { Planning } from "./planning.js";

export interface FrontPoint {
  /** The requested share of the cacheable compute. */
  readonly share: number;
  readonly planned: Planned;
  readonly comparison: Comparison;
}

/**
 * A plan of the policy `budget` for each of the shares, with the policy's other options as given. Shares that lead to the same number of
 * computed steps become one point. Throws BAD_OPTION if the options set a budget, and what `choosePlan` throws.
 */
export async function front(
  planning: Planning,
  options: Readonly<Record<string, unknown>> = {},
  shares: readonly number[] = FRONT_SHARES,
): Promise<readonly FrontPoint[]> {
  assertBudgetsOpen("--front", BUDGET, options);
  const points: FrontPoint[] = [];
  for (const share of shares) {
    const planned = await choosePlan(planning, BUDGET, { ...options, share });
    const comparison = comparisonOf(planned.summary.predicted);
    if (!comparison) throw new Error("internal: a plan for a budget says nothing of its error");
    if (points.every((point) => point.comparison.share !== comparison.share)) points.push({ share, planned, comparison });
  }
  return points;
}
