/** The input of planning, from a trace alone or for a job. */
import type { Macs } from "../../ir/cost.js";
import { cacheNamed, type Half, type PlannedRun, type Policy, type PolicySite, type Runs } from "../../schedules/index.js";
import { runTraced, type Trace } from "../calibration/index.js";
import { guidedStep, type Job } from "../job/index.js";
import type { Progress } from "../words/index.js";

/** A branch, as far as planning needs it. */
export interface PlannedSite extends Omit<PolicySite, "share"> {
  readonly macs: Macs;
}

export interface Planning {
  readonly run: PlannedRun;
  /** The times of the sampler's table, one per step. */
  readonly timesteps: readonly number[];
  /** MACs of one whole step. */
  readonly macs: Macs;
  /** In execution order. */
  readonly sites: readonly PlannedSite[];
  readonly runs?: Runs | undefined;
  /** The user's own policies. */
  readonly policies?: readonly Policy[] | undefined;
  readonly progress?: Progress | undefined;
}

/** Planning from a trace alone, which assumes that every half is called at every step. */
export function planningFromTrace(trace: Trace): Planning {
  const { steps, macs, sampler, guidance } = trace;
  const sites = Object.entries(trace.sites).map(([name, measured]): PlannedSite => {
    const { kind, block, stream, macs, tokens } = measured;
    const key = cacheNamed(name);
    const halves: readonly Half[] = guidance.form === "batched" ? ["cond", "uncond"] : [key.half];
    return { ...key, name, kind, block, stream, macs, halves, tokens, statistics: trace.sites[name] };
  });
  const called = new Array<readonly Half[]>(steps).fill(["cond", "uncond"]);
  return { run: { of: runTraced(trace), caches: sites, called }, timesteps: sampler.timesteps, macs, sites };
}

/** Planning for a job at its batch, with the statistics of a trace if there is one. */
export function planningForJob(job: Job, trace?: Trace): Planning {
  const { total, branches } = guidedStep(job);
  const timesteps = job.run.table.rows.map(({ timestep }) => timestep);
  const sites = branches.map((branch) => ({ ...branch, statistics: trace?.sites[branch.name] }));
  return { run: job.run, timesteps, macs: total, sites, policies: job.source.extensions?.policies };
}
