/** From a job and a plan to the emitted model: the pass pipeline, and the figures of what it did. */
import { formUnsupported } from "../../schedules/diagnostics.js";
import { unknownName } from "../../ir/diagnostics.js";
import { graphMacs, totalMacs } from "../../ir/cost.js";
import { ditView, type Model } from "../../ir/graph.js";
import { CACHE_PASSES, LOOP_PASSES, passes, RUN_PASSES, STEP_PASSES } from "../../passes/index.js";
import { type OwnPass, type Pass, type PassContext, type PassRecord, runPasses } from "../../passes/pass.js";
import type { Plan } from "../../schedules/index.js";
import { cudaCoverage, type CudaCoverage } from "./cuda-coverage.js";
import type { Job } from "../job/index.js";
import { type Memory, memoryOf } from "./memory.js";

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
  const own = ownPasses(job);
  const optional = [...passes.values(), ...own].filter(({ isOptional }) => isOptional).map(({ name }) => name);
  for (const name of without) if (!optional.includes(name)) throw unknownName("optional pass", name, optional);
  const unfit = own.find(({ stage }) => stage !== "step");
  if (form === "loop" && unfit) throw formUnsupported(form, `the pass '${unfit.name}' is for steps that are unrolled`);
  const records: PassRecord[] = [];
  const log: Log = (record) => void records.push(record);
  const isLoop = form === "loop";
  const simplified = await simplify(job, plan, without, log);
  const { step, context } = simplified;
  const unrolled = await runPasses(step, passesOf(job, "run"), context, isLoop ? undefined : log);
  const cached = await runPasses(unrolled, passesOf(job, "cache"), context, isLoop ? undefined : log);
  const model = isLoop ? await runPasses(step, LOOP_PASSES, context, log) : cached;
  const plain = isLoop ? await uncachedLoop(simplified) : unrolled;
  const uncached = totalMacs(graphMacs(unrolled.graph));
  const emitted = totalMacs(graphMacs(cached.graph));
  return {
    form,
    model,
    uncached: plain,
    nodes: { step: step.graph.nodes.length, uncached: plain.graph.nodes.length, emitted: model.graph.nodes.length },
    macs: { uncached, emitted, bound: uncached / emitted },
    passes: records,
    memory: memoryOf(model, plain, ditView(job.model).latent),
    cuda: cudaCoverage(model),
  };
}

/** The same run in a form, with every branch computed at every step. Throws FORM_UNSUPPORTED. */
export async function compileUncached(job: Job, plan: Plan, form: Form): Promise<Model> {
  const simplified = await simplify(job, plan);
  return form === "loop" ? uncachedLoop(simplified) : runPasses(simplified.step, passesOf(job, "run"), simplified.context);
}

const KNOWN_PASSES: Readonly<Record<OwnPass["stage"], readonly Pass[]>> = { step: STEP_PASSES, run: RUN_PASSES, cache: CACHE_PASSES };

/** The passes of a stage, with those of the user's own behind them. */
function passesOf(job: Job, of: OwnPass["stage"]): readonly Pass[] {
  return [...KNOWN_PASSES[of], ...ownPasses(job).filter(({ stage }) => stage === of)];
}

function ownPasses({ source }: Job): readonly OwnPass[] {
  return source.extensions?.passes ?? [];
}

/** One step, and with what the passes go on from there. */
interface Simplified {
  readonly step: Model;
  readonly context: PassContext & { readonly plan: Plan };
}

type Log = (record: PassRecord) => void;

async function simplify(job: Job, plan: Plan, without: readonly string[] = [], log?: Log): Promise<Simplified> {
  const bound = { ...job.context, plan, without: new Set(without) };
  const known = passesOf(job, "step");
  const step = await runPasses(job.model, known, bound, log);
  return { step, context: { ...bound, alone: bound.alone && (await runPasses(bound.alone, known, bound, log)) } };
}

function uncachedLoop({ step, context }: Simplified): Promise<Model> {
  return runPasses(step, LOOP_PASSES, { ...context, plan: { ...context.plan, cells: new Map() } });
}
