/** The interface of an output form: a file of `forms/`, which makes the whole run from one step. */
import type { Model } from "../ir/graph.js";
import type { Named } from "../ir/registry.js";
import type { Plan } from "../schedules/index.js";
import type { Pass, PlanContext, Stage } from "./pass.js";

export interface Form extends Named {
  readonly summary: string;
  /** All passes that it runs. */
  readonly passes: readonly Pass<PlanContext>[];
  /** The stages after which the user's own passes can run. */
  readonly stages: readonly Stage[];
  /** Whether a cached value is freed after its last reader. Only then can the memory of cached values be limited. */
  readonly frees: boolean;
  /** The run of a step as planned, and the same run with every branch computed at every step. Throws FORM_UNSUPPORTED. */
  lower(step: Model, lowering: Lowering): Promise<Lowered>;
}

export interface Lowered {
  readonly model: Model;
  readonly uncached: Model;
}

/** How a form runs its passes. */
export interface Lowering {
  readonly plan: Plan;
  /** Runs passes, then the user's own passes for the end of `stage`. */
  readonly perform: (model: Model, passes: readonly Pass<PlanContext>[], stage?: Stage) => Promise<Model>;
  /** The same with another plan than that of the run, without the user's own passes and without a record in the pass log. */
  readonly performBeside: (plan: Plan, model: Model, passes: readonly Pass<PlanContext>[]) => Promise<Model>;
}
