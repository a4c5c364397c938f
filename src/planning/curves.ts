/** Error curves of groups of branches, as the report draws them. */
import { confidence, type ErrorBands, errorCurves, groupBranches, type SiteStatistics, statisticsOf } from "../../schedules/index.js";
import type { Trace } from "../calibration/index.js";
import { planningFromTrace } from "./planning.js";
import { policyInput } from "./choose.js";

/** A mean error curve and, for more than one sample, the half-widths of its 95 % confidence intervals; both `[lag − 1][step]`. */
export interface MeasuredCurve {
  readonly mean: ErrorBands;
  readonly confidence?: ErrorBands | undefined;
}

/** The curves of every group of branches, by plan key. */
export function groupCurves(trace: Trace): ReadonlyMap<string, MeasuredCurve> {
  const curveOf = (sites: readonly SiteStatistics[]): MeasuredCurve => ({ mean: errorCurves(sites).mean, confidence: confidence(sites) });
  return new Map(groupBranches(policyInput(planningFromTrace(trace)).sites).map(({ key, sites }) => [key, curveOf(statisticsOf(sites))]));
}
