/** From a job and a plan to the emitted model: the pass pipeline, and the figures of what it did. */
import { unknownName } from "../ir/diagnostics.js";
import { graphMacs, totalMacs } from "../ir/cost.js";
import type { Model } from "../ir/graph.js";
import { CACHE_PASSES, passes, runPasses, RUN_PASSES, STEP_PASSES, type PassRecord } from "../passes/index.js";
import type { Plan } from "../schedules/index.js";
import { cudaCoverage, type CudaCoverage } from "./cuda.js";
import type { Job } from "./job.js";
import { memoryOf, type Memory } from "./memory.js";

export interface Compiled {
  readonly model: Model;
  /** The same run with every branch computed at every step. */
  readonly unrolled: Model;
  readonly nodes: { readonly step: number; readonly uncached: number; readonly emitted: number };
  /** Of the whole run. `bound` = uncached / emitted: what the speed-up can be at most where MACs are what takes time. */
  readonly macs: { readonly uncached: number; readonly emitted: number; readonly bound: number };
  readonly passes: readonly PassRecord[];
  readonly memory: Memory;
  readonly cuda: CudaCoverage;
}

export interface CompileOptions {
  /** Names of optional passes to leave out. */
  readonly without?: readonly string[] | undefined;
}

/** Simplifies one step, unrolls it along the plan's table, and lets cached branches read earlier values. Throws UNKNOWN_NAME for passes that are not optional. */
export async function compileModel(job: Job, plan: Plan, { without = [] }: CompileOptions = {}): Promise<Compiled> {
  const optional = [...passes.values()].filter(({ isOptional }) => isOptional).map(({ name }) => name);
  for (const name of without) if (!optional.includes(name)) throw unknownName("optional pass", name, optional);
  const records: PassRecord[] = [];
  const log = (record: PassRecord): void => void records.push(record);
  const bound = { ...job.context, plan, without: new Set(without) };
  const step = await runPasses(job.model, STEP_PASSES, bound, log);
  const context = { ...bound, alone: bound.alone && (await runPasses(bound.alone, STEP_PASSES, bound, log)) };
  const unrolled = await runPasses(step, RUN_PASSES, context, log);
  const model = await runPasses(unrolled, CACHE_PASSES, context, log);
  const uncached = totalMacs(graphMacs(unrolled.graph));
  const emitted = totalMacs(graphMacs(model.graph));
  return {
    model,
    unrolled,
    nodes: { step: step.graph.nodes.length, uncached: unrolled.graph.nodes.length, emitted: model.graph.nodes.length },
    macs: { uncached, emitted, bound: uncached / emitted },
    passes: records,
    memory: memoryOf(model, unrolled),
    cuda: cudaCoverage(model),
  };
}
