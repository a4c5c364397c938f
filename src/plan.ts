/** From a trace to a plan: what a policy gets to see, and what its choice costs and promises. */
import { basename } from "node:path";
import { z } from "zod";
import { badExtension, planSavesNothing, unknownName } from "../ir/diagnostics.js";
import { addMacs, NO_MACS, totalMacs, type Macs } from "../ir/cost.js";
import {
  chooseSchedule,
  confidence,
  errorCurves,
  forecastError,
  groupBranches,
  halvesOf,
  mean,
  policies,
  valueFor,
  rowsOf,
  savesNothing,
  statisticsOf,
  termsOf,
  type Cell,
  type Choice,
  type ErrorBands,
  type Plan,
  type Policy,
  type PolicyInput,
  type PolicySite,
  type Runs,
  type Schedule,
  type SiteStatistics,
} from "../schedules/index.js";
import { loadExtensions } from "./extensions.js";
import { readJson } from "./files.js";
import { guidedStep, planFor, type Job } from "./job.js";
import type { Progress } from "./progress.js";
import { readPlan } from "./plan-file.js";
import { readTorchFile } from "./torch-file.js";
import type { Trace } from "./trace.js";

/** What planning needs to know of a branch. */
export interface PlannedSite extends Omit<PolicySite, "share"> {
  readonly macs: Macs;
}

/** What a plan is made for. */
export interface Planning {
  readonly steps: number;
  /** As the sampler's table has them, one a step. */
  readonly timesteps: readonly number[];
  /** MACs of one whole step. */
  readonly macs: Macs;
  /** In execution order. */
  readonly sites: readonly PlannedSite[];
  /** What a schedule comes to under the sampler and the guidance; absent where a trace is all there is. */
  readonly bind?: ((schedule: Schedule) => Plan) | undefined;
  readonly runs?: Runs | undefined;
  /** Policies besides the known. */
  readonly policies?: readonly Policy[] | undefined;
  readonly progress?: Progress | undefined;
}

/** Planning from a trace alone. */
export function planningOf(trace: Trace): Planning {
  const { steps, macs, sampler, guidance } = trace;
  const sites = Object.entries(trace.sites).map(([site, measured]): PlannedSite => {
    const { kind, block, stream, macs } = measured;
    return { site, kind, block, stream, macs, halves: halvesOf(site, guidance.form), statistics: trace.sites[site] };
  });
  return { steps, timesteps: sampler.timesteps, macs, sites };
}

/** Planning for a job, at its batch. */
export function planningFor(job: Job, trace?: Trace): Planning {
  const { total, branches } = guidedStep(job);
  const timesteps = job.table.rows.map(({ timestep }) => timestep);
  const sites = branches.map((branch) => ({ ...branch, statistics: trace?.sites[branch.site] }));
  const { policies } = job.source.extensions ?? {};
  return { steps: timesteps.length, timesteps, macs: total, sites, policies, bind: (schedule) => planFor(job, schedule) };
}

/** What a plan does with the branches of one kind. */
export interface KindSummary {
  /** Steps that compute, mean over the branches. */
  readonly computed: number;
  /** Of the run's linear MACs as planned. */
  readonly share: number;
  /** Relative L2 error of what cached cells return, on the uncached trajectories of the calibration: mean over cells and branches. */
  readonly error?: number | undefined;
}

export interface PlanSummary {
  readonly policy: Readonly<Record<string, unknown>>;
  readonly steps: number;
  /** Computed steps of each kind, mean over its branches. */
  readonly computed: Readonly<Record<string, number>>;
  readonly kinds: Readonly<Record<string, KindSummary>>;
  /** Of the whole run; linear layers alone, as the tables of SmoothCache count. */
  readonly macs: { readonly uncached: number; readonly planned: number; readonly bound: number };
  /** The products of attention, which those tables leave out. */
  readonly attention: { readonly uncached: number; readonly planned: number };
  readonly predicted: Readonly<Record<string, unknown>>;
}

export interface Planned {
  readonly schedule: Schedule;
  /** The branches that it is for. */
  readonly sites: readonly PlannedSite[];
  /** What each branch does at each step, by site; from a trace alone, none is known to be idle. */
  readonly cells: Plan["cells"];
  readonly summary: PlanSummary;
  readonly warnings: readonly string[];
}

/**
 * Lets a policy choose: one of the known names, the path of a file that exports one, or a plan file of any known format, which
 * is a choice already. Throws UNKNOWN_NAME, BAD_EXTENSION, PLAN_SAVES_NOTHING and what the policy and `bind` throw.
 */
export async function choosePlan(planning: Planning, policyName: string, options: unknown): Promise<Planned> {
  const policy = await findPolicy(policyName, planning.policies);
  const { schedule, warnings } = await chooseSchedule(policy, options, policyInput(planning));
  const cells = cellsOf(planning, schedule);
  if (policy.name !== "full" && savesNothing({ cells })) throw planSavesNothing();
  return { schedule, sites: planning.sites, cells, warnings, summary: summarise(planning, schedule) };
}

function cellsOf({ bind, steps, sites }: Planning, schedule: Schedule): Plan["cells"] {
  if (bind) return bind(schedule).cells;
  const cells = [...rowsOf(schedule, steps, sites)].map(([site, row]): [string, readonly Cell[]] => [
    site,
    row.map((cell, step) => (cell === 1 ? { kind: "compute" } : { kind: "terms", terms: termsOf(cell, row.lastIndexOf(1, step)) })),
  ]);
  return new Map(cells);
}

/** The policy of this name, in this file, or of this plan. Throws UNKNOWN_NAME, BAD_EXTENSION. */
export async function findPolicy(name: string, own: readonly Policy[] = []): Promise<Policy> {
  const known = policies.get(name) ?? own.find((policy) => policy.name === name);
  if (known) return known;
  if (/\.[cm]?[jt]s$/.test(basename(name))) {
    const [policy] = (await loadExtensions([name])).policies;
    if (!policy) throw badExtension(name, "it exports no policy");
    return policy;
  }
  if (name.endsWith(".json")) return policyOf(name);
  throw unknownName("policy", name, [...policies.keys(), ...own.map(({ name }) => name)]);
}

/** A plan file as a policy: it chooses what is written there. */
function policyOf(file: string): Policy {
  const { cut, cells, adjustments, predicted } = readPlan(file);
  const choose = (): Choice => ({ cut, cells, adjustments, predicted });
  return { name: basename(file), summary: "the plan in this file", needs: [], options: z.object({}), choose };
}

function policyInput({ steps, timesteps, macs, sites, runs, progress }: Planning): PolicyInput {
  const cacheable = sites.reduce((sum, { macs }) => sum + totalMacs(macs), 0);
  const shared = sites.map((site) => ({ ...site, share: totalMacs(site.macs) / cacheable }));
  const told = (done: number, total: number): void => progress?.("plan", done, total);
  return {
    steps,
    timesteps,
    sites: shared,
    cacheable: cacheable / totalMacs(macs),
    runs,
    readJson,
    readTensors: readTorchFile,
    progress: told,
  };
}

/** A mean error curve and, of more samples than one, the half-widths of its 95 % confidence intervals; both `[lag − 1][step]`. */
export interface MeasuredCurve {
  readonly mean: ErrorBands;
  readonly confidence?: ErrorBands | undefined;
}

/** The curves of every group that decides together, by its key in a plan. */
export function groupCurves(trace: Trace): ReadonlyMap<string, MeasuredCurve> {
  const curveOf = (sites: readonly SiteStatistics[]): MeasuredCurve => ({ mean: errorCurves(sites).mean, confidence: confidence(sites) });
  return new Map(groupBranches(policyInput(planningOf(trace)).sites).map(({ key, sites }) => [key, curveOf(statisticsOf(sites))]));
}

/** What a schedule costs and promises. */
export function summarise({ steps, macs, sites }: Planning, schedule: Schedule): PlanSummary {
  const computedOf = (site: PlannedSite): number => valueFor(schedule.cells, site)?.filter((cell) => cell === 1).length ?? steps;
  const plannedOf = (site: PlannedSite): number => computedOf(site) * site.macs.linear;
  let saved = NO_MACS;
  for (const site of sites) {
    const skipped = steps - computedOf(site);
    saved = addMacs(saved, { linear: skipped * site.macs.linear, attention: skipped * site.macs.attention });
  }
  const uncached = steps * macs.linear;
  const planned = uncached - saved.linear;
  const groups = groupBranches(sites);
  const kinds = groups.map(({ key, sites: members }): [string, KindSummary] => [
    key,
    {
      computed: mean(members.map(computedOf)),
      share: members.reduce((sum, site) => sum + plannedOf(site), 0) / planned,
      error: meanError(members, schedule),
    },
  ]);
  return {
    policy: schedule.policy ?? {},
    steps,
    computed: Object.fromEntries(kinds.map(([key, { computed }]) => [key, computed])),
    kinds: Object.fromEntries(kinds),
    macs: { uncached, planned, bound: uncached / planned },
    attention: { uncached: steps * macs.attention, planned: steps * macs.attention - saved.attention },
    predicted: schedule.predicted ?? {},
  };
}

/** Mean over cached cells; undefined where there are none or the calibration does not say. */
function meanError(sites: readonly PlannedSite[], { cells }: Schedule): number | undefined {
  const errors = sites.flatMap((site) => {
    const row = valueFor(cells, site) ?? [];
    const { statistics } = site;
    return statistics
      ? row.flatMap((cell, step) => (cell === 1 ? [] : [forecastError([statistics], step, termsOf(cell, row.lastIndexOf(1, step)))]))
      : [];
  });
  const error = mean(errors);
  return Number.isFinite(error) ? error : undefined;
}
