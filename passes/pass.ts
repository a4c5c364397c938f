/** What a pass is, what it is told, and how passes are run. */
import { assertWellFormed } from "../ir/check.js";
import { cancelled, CompilerError } from "../ir/diagnostics.js";
import type { Model, Value } from "../ir/graph.js";
import { hasMethods, type Named } from "../ir/registry.js";
import type { TensorData } from "../ir/tensor.js";
import type { TensorType } from "../ir/types.js";
import type { Plan, Run } from "../schedules/index.js";

/** What a pass may ask of the runtime; `src/runtime/` answers. */
export interface Evaluator {
  /** The outputs of a model without inputs, in their order. */
  evaluate(model: Model): Promise<readonly TensorData[]>;
  /** Types of every value of a bound model, as the runtime infers them. */
  types(model: Model): Promise<ReadonlyMap<Value, TensorType>>;
}

/** What every pass is told. */
export interface Questions {
  readonly evaluator: Evaluator;
  readonly signal?: AbortSignal | undefined;
}

/** Passes that make shapes known are told the sizes of symbolic dimensions, by name: there is no run yet. */
export interface BindContext extends Questions {
  readonly sizes: ReadonlyMap<string, number>;
}

/** Passes over the networks of a run, and over the run made of them. */
export interface PassContext extends Questions {
  readonly run: Run;
}

/** Passes that follow a plan. */
export interface PlanContext extends PassContext {
  readonly plan: Plan;
}

const PRESERVES = ["bits", "rounding", "precision", "plan"] as const;

/** `bits`: same numbers; `rounding`: same up to rounding; `precision`: up to that of the type asked for; `plan`: what the plan says. */
export type Preserves = (typeof PRESERVES)[number];

/** Told by a pass of several rules how often each was applied. */
export type Count = (rule: string, times: number) => void;

export interface Pass<Context = PassContext> extends Named {
  readonly summary: string;
  readonly preserves: Preserves;
  /** Whether runs come out the same without it, only slower: it can be switched off to see what it is worth. */
  readonly isOptional?: true;
  /** Whether it leaves types as the file has them, which only the runtime can set right: they are not looked at behind it. */
  readonly leavesUntyped?: true;
  /** Gives back the very model that it was given where there is nothing to change. */
  run(model: Model, context: Context, count: Count): Model | Promise<Model>;
}

const STAGES = ["step", "run", "cache"] as const;

/** `step`: one step, before it is copied; `run`: the whole run, uncached; `cache`: the run as planned. */
export type Stage = (typeof STAGES)[number];

/** A pass in a file of a user's own. */
export interface OwnPass extends Pass {
  /** It runs after the passes of this stage and is not cleaned up after. */
  readonly stage: Stage;
}

export function isOwnPass(candidate: unknown): candidate is OwnPass {
  if (!hasMethods(candidate, "run") || !("stage" in candidate) || !("preserves" in candidate)) return false;
  const { stage, preserves } = candidate;
  return STAGES.some((known) => known === stage) && PRESERVES.some((known) => known === preserves);
}

/** One line of the pass log. */
export interface PassRecord {
  readonly name: string;
  readonly ms: number;
  readonly nodes: number;
  /** Whether it gave back another model than it was given. */
  readonly changed: boolean;
  /** How often each rule of the pass was applied; rules that need a newer operator set than the model can have are not there. */
  readonly counts?: Readonly<Record<string, number>>;
}

export interface RunPassesOptions {
  /** Names of optional passes that are left out. */
  readonly without?: ReadonlySet<string> | undefined;
  readonly log?: ((record: PassRecord) => void) | undefined;
}

/**
 * Runs passes in order, without those that are left out; checks the abort signal before each and the graph after each that has
 * changed it, with the types of what is new in it.
 * What a pass throws comes out with the pass's name; a CompilerError stays one.
 */
export async function runPasses<Context extends Pick<Questions, "signal">>(
  model: Model,
  passes: readonly Pass<Context>[],
  context: Context,
  { without, log }: RunPassesOptions = {},
): Promise<Model> {
  let current = model;
  for (const [i, pass] of passes.entries()) {
    const { name } = pass;
    if (pass.isOptional && without?.has(name)) continue;
    if (context.signal?.aborted) throw cancelled();
    const started = performance.now();
    const counts = new Map<string, number>();
    let changed: boolean;
    try {
      const made = await pass.run(current, context, (rule, times) => counts.set(rule, times));
      changed = made !== current;
      if (changed) assertWellFormed(made, pass.leavesUntyped ? undefined : current);
      current = made;
    } catch (error) {
      if (error instanceof CompilerError) throw error;
      const earlier = passes.slice(0, i).map((pass) => pass.name);
      throw new Error(`internal: pass '${name}' failed (passes before it: ${earlier.join(", ") || "none"})`, { cause: error });
    }
    const ms = Math.round(performance.now() - started);
    const { length } = current.graph.nodes;
    log?.({ name, ms, nodes: length, changed, ...(counts.size > 0 ? { counts: Object.fromEntries(counts) } : {}) });
  }
  return current;
}
