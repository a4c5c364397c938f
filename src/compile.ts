/** From a job and a plan to the emitted model: the pass pipeline, and the figures of what it did. */
import { formUnsupported, unknownName } from "../ir/diagnostics.js";
import { graphMacs, totalMacs } from "../ir/cost.js";
import type { Model } from "../ir/graph.js";
import {
  CACHE_PASSES,
  LOOP_PASSES,
  passes,
  runPasses,
  RUN_PASSES,
  STEP_PASSES,
  type OwnPass,
  type Pass,
  type PassRecord,
} from "../passes/index.js";
import type { Plan } from "../schedules/index.js";
import { cudaCoverage, type CudaCoverage } from "./cuda.js";
import type { Job } from "./job.js";
import { memoryOf, type Memory } from "./memory.js";

/** `unrolled`: a copy of the step for each row of the sampler's table; `loop`: one ONNX Loop over the rows. */
export const FORMS = ["unrolled", "loop"] as const;
export type Form = (typeof FORMS)[number];

export interface Compiled {
  readonly form: Form;
  readonly model: Model;
  /** The same run in the same form, with every branch computed at every step. */
  readonly uncached: Model;
  readonly nodes: { readonly step: number; readonly uncached: number; readonly emitted: number };
  /** Of the whole run. `bound` = uncached / emitted: what the speed-up can be at most where MACs are what takes time. */
  readonly macs: { readonly uncached: number; readonly emitted: number; readonly bound: number };
  readonly passes: readonly PassRecord[];
  readonly memory: Memory;
  readonly cuda: CudaCoverage;
}

export interface CompileOptions {
  readonly form?: Form | undefined;
  /** Names of optional passes to leave out. */
  readonly without?: readonly string[] | undefined;
}

/**
 * Simplifies one step and makes the whole run of it, in which cached branches read earlier values. A loop computes at each step
 * what the unrolled run does, so what its body costs is counted there. Throws FORM_UNSUPPORTED, UNKNOWN_NAME for passes that
 * are not optional.
 */
export async function compileModel(job: Job, plan: Plan, { form = "unrolled", without = [] }: CompileOptions = {}): Promise<Compiled> {
  const own = job.source.extensions?.passes ?? [];
  const optional = [...passes.values(), ...own].filter(({ isOptional }) => isOptional).map(({ name }) => name);
  for (const name of without) if (!optional.includes(name)) throw unknownName("optional pass", name, optional);
  const unfit = own.find(({ stage }) => stage !== "step");
  if (form === "loop" && unfit) throw formUnsupported(form, `the pass '${unfit.name}' is for steps that are unrolled`);
  const stage = (name: OwnPass["stage"], known: readonly Pass[]): readonly Pass[] => [
    ...known,
    ...own.filter(({ stage }) => stage === name),
  ];
  const stepPasses = stage("step", STEP_PASSES);
  const records: PassRecord[] = [];
  const log = (record: PassRecord): void => void records.push(record);
  const bound = { ...job.context, plan, without: new Set(without) };
  const step = await runPasses(job.model, stepPasses, bound, log);
  const context = { ...bound, alone: bound.alone && (await runPasses(bound.alone, stepPasses, bound, log)) };
  const logOf = (own: Form): typeof log | undefined => (form === own ? log : undefined);
  const unrolled = await runPasses(step, stage("run", RUN_PASSES), context, logOf("unrolled"));
  const cached = await runPasses(unrolled, stage("cache", CACHE_PASSES), context, logOf("unrolled"));
  const loopOf = (plan: Plan, log?: (record: PassRecord) => void): Promise<Model> =>
    runPasses(step, LOOP_PASSES, { ...context, plan }, log);
  const isLoop = form === "loop";
  const model = isLoop ? await loopOf(plan, log) : cached;
  const plain = isLoop ? await loopOf({ ...plan, cells: new Map() }) : unrolled;
  const uncached = totalMacs(graphMacs(unrolled.graph));
  const emitted = totalMacs(graphMacs(cached.graph));
  return {
    form,
    model,
    uncached: plain,
    nodes: { step: step.graph.nodes.length, uncached: plain.graph.nodes.length, emitted: model.graph.nodes.length },
    macs: { uncached, emitted, bound: uncached / emitted },
    passes: records,
    memory: memoryOf(model, plain, isLoop ? step : undefined),
    cuda: isLoop ? { ...cudaCoverage(cached), copies: cudaCoverage(model).copies } : cudaCoverage(model),
  };
}
