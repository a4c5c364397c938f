/** From a trace to a plan: what a policy gets to see, and what its choice costs and promises. */
import { basename } from "node:path";
import { pathToFileURL } from "node:url";
import { badExtension, planSavesNothing, unknownName } from "../ir/diagnostics.js";
import { addMacs, NO_MACS, totalMacs, type Macs } from "../ir/cost.js";
import { loadFile, type Named } from "../ir/registry.js";
import {
  chooseSchedule,
  confidence,
  errorCurves,
  isPolicy,
  policies,
  type BranchGroup,
  type ErrorBands,
  type ErrorCurves,
  type Policy,
  type PolicyInput,
  type Schedule,
  type SiteStatistics,
} from "../schedules/index.js";
import type { Trace } from "./trace.js";

/** What planning needs to know of a branch. */
export interface PlannedSite {
  readonly kind: string;
  readonly stream: string;
  readonly macs: Macs;
}

/** What a plan is made for. */
export interface Planning {
  readonly steps: number;
  /** MACs of one whole step. */
  readonly macs: Macs;
  readonly sites: ReadonlyMap<string, PlannedSite>;
  readonly trace?: Trace | undefined;
}

export function planningOf(trace: Trace): Planning {
  return { steps: trace.steps, macs: trace.macs, sites: new Map(Object.entries(trace.sites)), trace };
}

export interface PlanSummary {
  readonly policy: Readonly<Record<string, unknown>>;
  readonly steps: number;
  /** Computed steps of each kind. */
  readonly computed: Readonly<Record<string, number>>;
  /** Of the whole run; linear layers alone, as the tables of SmoothCache count. */
  readonly macs: { readonly uncached: number; readonly planned: number; readonly bound: number };
  /** The products of attention, which those tables leave out. */
  readonly attention: { readonly uncached: number; readonly planned: number };
  readonly predicted: Readonly<Record<string, unknown>>;
}

export interface Planned {
  readonly schedule: Schedule;
  readonly summary: PlanSummary;
  readonly warnings: readonly string[];
}

/** Lets a policy choose: one of the known names, or the path of a file that exports one. Throws UNKNOWN_NAME, BAD_EXTENSION, PLAN_SAVES_NOTHING and what the policy throws. */
export async function choosePlan(planning: Planning, policyName: string, options: unknown): Promise<Planned> {
  const policy = await findPolicy(policyName);
  const groups = groupSites(planning.sites);
  const { schedule, warnings } = chooseSchedule(policy, options, policyInput(planning, groups));
  const isFull = [...schedule.cells.values()].every((row) => row.every((cell) => cell === 1));
  if (isFull && policy.name !== "full") throw planSavesNothing();
  return { schedule, warnings, summary: summarise(planning, groups, schedule) };
}

async function findPolicy(name: string): Promise<Policy> {
  const known = policies.get(name);
  if (known) return known;
  if (/\.[cm]?[jt]s$/.test(basename(name))) return loadExtension(name, isPolicy);
  throw unknownName("policy", name, [...policies.keys()]);
}

/** What a user's own file exports. Throws BAD_EXTENSION. */
async function loadExtension<T extends Named>(file: string, isEntry: (candidate: unknown) => candidate is T): Promise<T> {
  try {
    return await loadFile(pathToFileURL(file), isEntry);
  } catch (error) {
    throw badExtension(file, error instanceof Error ? error.message : String(error));
  }
}

type Groups = ReadonlyMap<string, ReadonlyMap<string, PlannedSite>>;

/** Branches of one kind decide together, those of each stream apart where there are several. */
function groupSites(sites: ReadonlyMap<string, PlannedSite>): Groups {
  const severalStreams = new Set([...sites.values()].map(({ stream }) => stream)).size > 1;
  const groups = new Map<string, Map<string, PlannedSite>>();
  for (const [name, site] of sites) {
    const key = severalStreams ? `${site.stream}_${site.kind}` : site.kind;
    const group = groups.get(key) ?? new Map<string, PlannedSite>();
    groups.set(key, group.set(name, site));
  }
  return groups;
}

function policyInput({ steps, trace }: Planning, groups: Groups): PolicyInput {
  const costs = new Map([...groups].map(([key, sites]) => [key, totalMacs(costOf(sites.values()))]));
  const cacheable = [...costs.values()].reduce((sum, cost) => sum + cost, 0);
  const input = new Map<string, BranchGroup>();
  for (const [key, sites] of groups) {
    input.set(key, { share: (costs.get(key) ?? 0) / cacheable, curves: trace && curvesOf(trace, [...sites.keys()]) });
  }
  return { steps, groups: input };
}

/** Error curves of branches that decide together: means over them. */
function curvesOf(trace: Trace, names: readonly string[]): ErrorCurves {
  return errorCurves(statisticsOf(trace, names));
}

function statisticsOf({ sites }: Trace, names: readonly string[]): readonly SiteStatistics[] {
  return names.map((name) => sites[name]).filter((site) => site !== undefined);
}

/** A mean error curve and, of more samples than one, the half-widths of its 95 % confidence intervals; both `[lag − 1][step]`. */
export interface MeasuredCurve {
  readonly mean: ErrorBands;
  readonly confidence?: ErrorBands | undefined;
}

/** The curves of every group that decides together, by its key in a plan. */
export function groupCurves(trace: Trace): ReadonlyMap<string, MeasuredCurve> {
  const curveOf = (sites: readonly SiteStatistics[]): MeasuredCurve => ({ mean: errorCurves(sites).mean, confidence: confidence(sites) });
  return new Map([...groupSites(planningOf(trace).sites)].map(([key, sites]) => [key, curveOf(statisticsOf(trace, [...sites.keys()]))]));
}

function summarise({ steps, macs }: Planning, groups: Groups, schedule: Schedule): PlanSummary {
  const rowOf = (key: string): number => schedule.cells.get(key)?.filter((cell) => cell === 1).length ?? steps;
  let saved = NO_MACS;
  for (const [key, group] of groups) {
    const skipped = steps - rowOf(key);
    const { linear, attention } = costOf(group.values());
    saved = addMacs(saved, { linear: skipped * linear, attention: skipped * attention });
  }
  const uncached = steps * macs.linear;
  const planned = uncached - saved.linear;
  return {
    policy: schedule.policy ?? {},
    steps,
    computed: Object.fromEntries([...groups.keys()].map((key) => [key, rowOf(key)])),
    macs: { uncached, planned, bound: uncached / planned },
    attention: { uncached: steps * macs.attention, planned: steps * macs.attention - saved.attention },
    predicted: schedule.predicted ?? {},
  };
}

function costOf(sites: Iterable<PlannedSite>): Macs {
  let sum = NO_MACS;
  for (const { macs } of sites) sum = addMacs(sum, macs);
  return sum;
}
