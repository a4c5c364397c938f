/** Policies: how a schedule is chosen from what calibration measured. */
import type { z } from "zod";
import type { Named } from "../ir/registry.js";
import type { ScheduleCell } from "./plan.js";

/**
 * Relative L1 errors of reusing a value: `[lag − 1][step]` is ‖F_step − F_{step−lag}‖₁ / ‖F_step‖₁ of the branches that
 * decide together; entries with step < lag mean nothing. There is one row a lag, up to the longest that was measured.
 */
export type ErrorBands = readonly (readonly number[])[];

export interface ErrorCurves {
  /** Mean over blocks and samples of the ratio (SmoothCache's paper, arXiv 2411.10510, eq. 4). */
  readonly mean: ErrorBands;
  /** Mean over blocks of Σ‖F_step − F_{step−lag}‖₁ / Σ‖F_step‖₁ over samples (SmoothCache's code: one ratio for the whole batch). */
  readonly pooled: ErrorBands;
}

/** Branches that decide together, usually those of one kind. */
export interface BranchGroup {
  /** Share of the cacheable compute of one step; those of all groups add up to 1. */
  readonly share: number;
  /** Absent where nothing was measured. */
  readonly curves?: ErrorCurves | undefined;
}

/** What a policy chooses from. */
export interface PolicyInput {
  readonly steps: number;
  /** By the key under which the group stands in a plan: `attn`, `temporal_attn`, `attn-3`. */
  readonly groups: ReadonlyMap<string, BranchGroup>;
}

/** What a policy chose: a row of cells for every group. */
export interface Choice {
  readonly cells: ReadonlyMap<string, readonly ScheduleCell[]>;
  /** What the policy found on its way and a person may want to know. */
  readonly predicted?: Readonly<Record<string, unknown>> | undefined;
  /** Sentences for the user. */
  readonly warnings?: readonly string[] | undefined;
}

/** One way to choose: a file of `policies/`. */
export interface Policy<Options extends z.ZodObject = z.ZodObject> extends Named {
  readonly summary: string;
  /** Whether `choose` reads error curves. */
  readonly needsTrace: boolean;
  /** Its options, each with a description; numbers may come as text. */
  readonly options: Options;
  choose(input: PolicyInput, options: z.output<Options>): Choice;
}

/** Share of the groups' compute over all steps that the rows compute, from 0 to 1. */
export function computedShare({ steps, groups }: PolicyInput, cells: Choice["cells"]): number {
  let computed = 0;
  let total = 0;
  for (const [key, { share }] of groups) {
    total += share * steps;
    computed += share * (cells.get(key)?.filter((cell) => cell === 1).length ?? steps);
  }
  return total > 0 ? computed / total : 1;
}
