/** The interface of a pass, the contexts that passes get, and how passes are run. */
import { assertWellFormed } from "../ir/check.js";
import { cancelled, CompilerError } from "../ir/diagnostics.js";
import type { Model, Value } from "../ir/graph.js";
import { hasMethods, type Named } from "../ir/registry.js";
import type { TensorData } from "../ir/tensor.js";
import type { FloatType, TensorType } from "../ir/types.js";
import type { Plan, Run } from "../schedules/index.js";

/** What a pass may ask of the runtime; `src/runtime/` answers. */
export interface Evaluator {
  /** The outputs of a model without inputs, in their order. */
  evaluate(model: Model): Promise<readonly TensorData[]>;
  /** Types of values of a bound model, as the runtime infers them; the types of these elements must be among `RUNTIME_TYPES`. */
  types(model: Model, values: readonly Value[]): Promise<ReadonlyMap<Value, TensorType>>;
}

/** The context of every pass. */
export interface Questions {
  readonly evaluator: Evaluator;
  readonly signal?: AbortSignal | undefined;
}

/** The context of passes that bind shapes, before there is a run. */
export interface BindContext extends Questions {
  /** The sizes of symbolic dimensions, by name. */
  readonly sizes: ReadonlyMap<string, number>;
  /** The type that the network is to compute in, if that is asked for. */
  readonly precision?: FloatType | undefined;
}

/** The context of passes over the networks of a run, and over the run that is made of them. */
export interface PassContext extends Questions {
  readonly run: Run;
}

/** The context of passes that follow a plan. */
export interface PlanContext extends PassContext {
  readonly plan: Plan;
}

const PRESERVES = ["bits", "rounding", "precision", "plan"] as const;

/**
 * What a pass preserves. `bits`: the same numbers; `rounding`: the same up to rounding; `precision`: up to the precision of the requested
 * type; `plan`: the result that the plan defines.
 */
export type Preserves = (typeof PRESERVES)[number];

/** A pass with several rules calls it with the number of times that each was applied. */
export type Count = (rule: string, times: number) => void;

export interface Pass<Context = PassContext> extends Named {
  readonly summary: string;
  readonly preserves: Preserves;
  /** Whether the pass only makes runs faster. Such a pass can be switched off to measure its effect. */
  readonly isOptional?: true;
  /** Whether it leaves results without correct types, which only the runtime can infer. They are not checked after it. */
  readonly leavesUntyped?: true;
  /** Whether it takes marks away on purpose. Any other pass keeps those of all values that the graph needs. */
  readonly takesMarks?: true;
  /** Returns the same object if there is nothing to change. */
  run(model: Model, context: Context, count: Count): Model | Promise<Model>;
}

const STAGES = ["step", "run", "cache"] as const;

/** `step`: one step, before it is copied; `run`: the whole run, uncached; `cache`: the run as planned. */
export type Stage = (typeof STAGES)[number];

/** A pass from a user's own file. */
export interface OwnPass extends Pass {
  /** It runs after the passes of this stage, and no pass cleans up after it. */
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
  /** Whether it returned another model than it was given. */
  readonly changed: boolean;
  /** How often each rule of the pass was applied. Rules that need a newer operator set than the model can have are left out. */
  readonly counts?: Readonly<Record<string, number>>;
}

export interface RunPassesOptions {
  /** Names of optional passes that are left out. */
  readonly without?: ReadonlySet<string> | undefined;
  readonly log?: ((record: PassRecord) => void) | undefined;
}

/**
 * Runs passes in order, except those in `without`. Checks the abort signal before each pass, and the graph, the types of new nodes
 * and the marks after each pass that changed the model. Adds the name of the pass to an error that it throws, except to a CompilerError.
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
      if (changed)
        assertWellFormed(made, { types: pass.leavesUntyped ? undefined : current, marks: pass.takesMarks ? undefined : current });
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

/** Runs passes again and again until none of them changes the model. Throws what they throw. */
export async function untilSettled<Context extends Pick<Questions, "signal">>(
  model: Model,
  passes: readonly Pass<Context>[],
  context: Context,
): Promise<Model> {
  const next = await runPasses(model, passes, context);
  return next === model ? model : untilSettled(next, passes, context);
}
