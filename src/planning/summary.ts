/** The cost of a plan and its predicted error. */
import { addMacs, type Macs, NO_MACS, scaleMacs } from "../../ir/cost.js";
import {
  cellMacs,
  computedPart,
  forecastError,
  groupBranches,
  type Half,
  mean,
  type Plan,
  type Predicted,
  type Schedule,
} from "../../schedules/index.js";
import type { PlannedSite, Planning } from "./planning.js";

/** The figures of a plan for the branches of one kind. */
export interface KindSummary {
  /** The number of computed steps, mean over the branches. One at which some tokens are computed counts as their share. */
  readonly computed: number;
  /** Its share of the planned run's linear MACs. */
  readonly share: number;
  /** Relative L2 error of cached values on the uncached trajectories of the calibration: mean over cells and branches. */
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

/** The share of these halves that a step calls. */
function calledAt({ run }: Planning, step: number, halves: readonly Half[]): number {
  return halves.filter((half) => run.called[step]?.includes(half)).length / halves.length;
}

/** The MACs of a branch in a whole run: computed at every step at which it is called, and as planned. */
export interface BranchWork extends PlannedSite {
  readonly uncached: Macs;
  readonly planned: Macs;
}

/** The work of every branch under these cells, in the order of the branches. */
export function branchWork(planning: Planning, cells: Plan["cells"]): readonly BranchWork[] {
  return planning.sites.map((site) => {
    let [uncached, planned] = [NO_MACS, NO_MACS];
    for (const [step, cell] of (cells.get(site) ?? []).entries()) {
      const called = calledAt(planning, step, site.halves);
      uncached = addMacs(uncached, scaleMacs(site.macs, called));
      planned = addMacs(planned, scaleMacs(cellMacs(cell, site), called));
    }
    return { ...site, uncached, planned };
  });
}

/** The summary of a schedule with its cells. */
export function summarise(planning: Planning, schedule: Schedule, cells: Plan["cells"]): PlanSummary {
  const { run, macs, sites } = planning;
  const steps = run.called.length;
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
      computed: mean(members.map((site) => (cells.get(site) ?? []).reduce((sum, cell) => sum + computedPart(cell), 0))),
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

/**
 * The mean error over cached cells; undefined if there are none, or the calibration did not measure it. Tokens that are computed have none, and
 * the error is taken to be spread evenly over all.
 */
function meanError(sites: readonly PlannedSite[], cells: Plan["cells"]): number | undefined {
  const errors = sites.flatMap(({ statistics, ...site }) =>
    statistics
      ? (cells.get(site) ?? []).flatMap((cell, step) =>
          cell.kind === "terms" ? [forecastError([statistics], step, cell.terms) * Math.sqrt(1 - computedPart(cell))] : [],
        )
      : [],
  );
  const error = mean(errors);
  return Number.isFinite(error) ? error : undefined;
}
