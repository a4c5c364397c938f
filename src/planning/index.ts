/** From a calibration to a plan. */
export { assertBudgetsOpen, BUDGET, type Comparison, comparisonOf, FRONT_SHARES, TIERS } from "./budgets.js";
export { choosePlan, findPolicy, type Planned } from "./choose.js";
export { groupCurves, type MeasuredCurve } from "./curves.js";
export { front, type FrontPoint } from "./front.js";
export { type Planning, planningForJob, planningFromTrace } from "./planning.js";
export { type ModelRuns, runsOf } from "./runs.js";
export { branchWork, type PlanSummary } from "./summary.js";
