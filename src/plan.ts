/** From a trace to a plan: what a policy gets to see, and what its choice costs and promises. */
import { basename } from "node:path";
import { z } from "zod";
import { badExtension, planSavesNothing, unknownName } from "../ir/diagnostics.js";
import { addMacs, scaleMacs, totalMacs, type Macs } from "../ir/cost.js";
import {
  calledHalves,
  chooseSchedule,
  confidence,
  errorCurves,
  forecastError,
  groupBranches,
  halvesOf,
  mean,
  policies,
  rowsOf,
  savesNothing,
  statisticsOf,
  termsOf,
  type Cell,
  type Choice,
  type ErrorBands,
  type Half,
  type Plan,
  type Policy,
  type PolicyInput,
  type PolicySite,
  type Predicted,
  type Runs,
  type Schedule,
  type SiteStatistics,
} from "../schedules/index.js";
import { loadExtensions } from "./extensions.js";
import { readJson } from "./files.js";
import { guidedStep } from "./bound-model.js";
import { planFor, type Job } from "./job.js";
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
  /** The halves that the network is called for at each step; all of them everywhere if absent. */
  readonly called?: readonly (readonly Half[])[] | undefined;
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
  const called = calledHalves(job.table, job.context.guidance);
  const { policies } = job.source.extensions ?? {};
  return { steps: timesteps.length, timesteps, macs: total, sites, called, policies, bind: (schedule) => planFor(job, schedule) };
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
  readonly predicted: Predicted;
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

/** Lets a policy choose, which may be given by its name (`findPolicy`). Throws PLAN_SAVES_NOTHING and what finding it, the policy and `bind` throw. */
export async function choosePlan(planning: Planning, wanted: string | Policy, options: unknown): Promise<Planned> {
  const policy = typeof wanted === "string" ? await findPolicy(wanted, planning.policies) : wanted;
  const { schedule, warnings } = await chooseSchedule(policy, options, policyInput(planning));
  const cells = cellsOf(planning, schedule);
  if (policy.cachesNothing !== true && savesNothing({ cells })) throw planSavesNothing();
  return { schedule, sites: planning.sites, cells, warnings, summary: summarise(planning, schedule, cells) };
}

/** What a schedule has each branch do at each step. */
export function cellsOf({ bind, steps, sites }: Planning, schedule: Schedule): Plan["cells"] {
  if (bind) return bind(schedule).cells;
  const cells = [...rowsOf(schedule, steps, sites)].map(([site, row]): [string, readonly Cell[]] => [
    site,
    row.map((cell, step) => (cell === 1 ? { kind: "compute" } : { kind: "terms", terms: termsOf(cell, row.lastIndexOf(1, step)) })),
  ]);
  return new Map(cells);
}

/**
 * The policy of a name: one of the known or of the user's own, the path of a file that exports one, or a plan file of any known
 * format, which is a choice already. Throws UNKNOWN_NAME, BAD_EXTENSION and what reading a plan throws.
 */
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

/** The share of a guided step that a step takes of what costs as much for each of these halves. */
function calledAt({ called }: Planning, step: number, halves: readonly Half[]): number {
  return called ? halves.filter((half) => called[step]?.includes(half)).length / halves.length : 1;
}

/** What a branch costs in a whole run: computed at every step at which it is called, and as planned. */
export interface BranchWork extends PlannedSite {
  readonly uncached: Macs;
  readonly planned: Macs;
}

/** By the cells of a schedule (`cellsOf`), in the order of the branches. */
export function branchWork(planning: Planning, cells: Plan["cells"]): readonly BranchWork[] {
  return planning.sites.map((site) => {
    const row = (cells.get(site.site) ?? []).map(({ kind }, step) => ({ kind, share: calledAt(planning, step, site.halves) }));
    const whole = row.reduce((sum, { share }) => sum + share, 0);
    const computed = row.reduce((sum, { kind, share }) => sum + (kind === "compute" ? share : 0), 0);
    return { ...site, uncached: scaleMacs(site.macs, whole), planned: scaleMacs(site.macs, computed) };
  });
}

/** What a schedule costs and promises, with its cells (`cellsOf`). */
export function summarise(planning: Planning, schedule: Schedule, cells: Plan["cells"]): PlanSummary {
  const { steps, macs, sites } = planning;
  const halves = [...new Set(sites.flatMap((site) => site.halves))];
  const calls = Array.from({ length: steps }, (_, step) => calledAt(planning, step, halves));
  const uncached = scaleMacs(
    macs,
    calls.reduce((sum, share) => sum + share, 0),
  );
  const work = branchWork(planning, cells);
  const planned = work.reduce((left, branch) => addMacs(left, addMacs(branch.planned, scaleMacs(branch.uncached, -1))), uncached);
  const kinds = groupBranches(work).map(({ key, sites: members }): [string, KindSummary] => [
    key,
    {
      computed: mean(members.map(({ site }) => (cells.get(site) ?? []).filter(({ kind }) => kind === "compute").length)),
      share: members.reduce((sum, branch) => sum + branch.planned.linear, 0) / planned.linear,
      error: meanError(members, cells),
    },
  ]);
  return {
    policy: schedule.policy ?? {},
    steps,
    computed: Object.fromEntries(kinds.map(([key, { computed }]) => [key, computed])),
    kinds: Object.fromEntries(kinds),
    macs: { uncached: uncached.linear, planned: planned.linear, bound: uncached.linear / planned.linear },
    attention: { uncached: uncached.attention, planned: planned.attention },
    predicted: schedule.predicted ?? {},
  };
}

/** Mean over cached cells; undefined where there are none or the calibration does not say. */
function meanError(sites: readonly PlannedSite[], cells: Plan["cells"]): number | undefined {
  const errors = sites.flatMap(({ site, statistics }) =>
    statistics
      ? (cells.get(site) ?? []).flatMap((cell, step) => (cell.kind === "terms" ? [forecastError([statistics], step, cell.terms)] : []))
      : [],
  );
  const error = mean(errors);
  return Number.isFinite(error) ? error : undefined;
}
