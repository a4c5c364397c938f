/** From a trace to a plan: what a policy gets to see, and what its choice costs and promises. */
import type { Macs } from "../../ir/cost.js";
import {
  calledHalves,
  type Half,
  halvesOf,
  type Plan,
  type Policy,
  type PolicySite,
  type Runs,
  type Schedule,
} from "../../schedules/index.js";
import { guidedStep, type Job, planFor } from "../job/index.js";
import type { Progress } from "../words/index.js";
import type { Trace } from "../calibration/index.js";

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
