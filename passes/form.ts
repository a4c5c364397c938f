/** What an output form is: a file of `forms/`, which makes the whole run of one step. */
import type { Model } from "../ir/graph.js";
import type { Named } from "../ir/registry.js";
import type { Plan } from "../schedules/index.js";
import type { Pass, PlanContext, Stage } from "./pass.js";

export interface Form extends Named {
  readonly summary: string;
  /** All that it runs. */
  readonly passes: readonly Pass<PlanContext>[];
  /** The stages at whose ends passes of a user's own can look into the run. */
  readonly stages: readonly Stage[];
  /** Whether a cached value takes memory only until its last reader: what a plan caches can then be kept within a limit. */
  readonly frees: boolean;
  /** The run of a step as planned, and the same run with every branch computed at every step. Throws FORM_UNSUPPORTED. */
  lower(step: Model, lowering: Lowering): Promise<Lowered>;
}

export interface Lowered {
  readonly model: Model;
  readonly uncached: Model;
}

/** How a form has its passes run. */
export interface Lowering {
  readonly plan: Plan;
  /** Runs passes, and behind them those of a user's own that belong to the end of `stage`. */
  readonly perform: (model: Model, passes: readonly Pass<PlanContext>[], stage?: Stage) => Promise<Model>;
  /** The same by another plan than that of the run, which leaves no record. */
  readonly performBeside: (plan: Plan, model: Model, passes: readonly Pass<PlanContext>[]) => Promise<Model>;
}
