/** Error curves of what decides together, as the report draws them. */
import { confidence, type ErrorBands, errorCurves, groupBranches, type SiteStatistics, statisticsOf } from "../../schedules/index.js";
import type { Trace } from "../calibration/index.js";
import { planningFromTrace } from "./planning.js";
import { policyInput } from "./choose.js";

/** A mean error curve and, of more samples than one, the half-widths of its 95 % confidence intervals; both `[lag − 1][step]`. */
export interface MeasuredCurve {
  readonly mean: ErrorBands;
  readonly confidence?: ErrorBands | undefined;
}

/** The curves of every group that decides together, by its key in a plan. */
export function groupCurves(trace: Trace): ReadonlyMap<string, MeasuredCurve> {
  const curveOf = (sites: readonly SiteStatistics[]): MeasuredCurve => ({ mean: errorCurves(sites).mean, confidence: confidence(sites) });
  return new Map(groupBranches(policyInput(planningFromTrace(trace)).sites).map(({ key, sites }) => [key, curveOf(statisticsOf(sites))]));
}
