/** From a job and a plan to the emitted model: runs the pass pipeline and collects its figures. */
import { basename } from "node:path";
import { graphMacs, totalMacs } from "../../ir/cost.js";
import { assertWellFormed } from "../../ir/check.js";
import { CompilerError, unknownName } from "../../ir/diagnostics.js";
import { ditView, type Model, opsetOf, withGraph } from "../../ir/graph.js";
import {
  atBatch,
  canRaise,
  COMPANION_PASSES,
  DEFAULT_FORM,
  type Form,
  formNamed,
  freeBatch,
  type Lowered,
  type Lowering,
  type OwnPass,
  type Pass,
  passes,
  type PassContext,
  type PassRecord,
  type PlanContext,
  raised,
  RAISED_PASSES,
  runPasses,
  segmented,
  type Stage,
  STEP_PASSES,
} from "../../passes/index.js";
import { badOption, batchFixed, formUnsupported } from "../../schedules/diagnostics.js";
import { opsetsDiffer } from "../words/index.js";
import {
  type Companion,
  isPartial,
  mainNetwork,
  NO_COMPANIONS,
  type Plan,
  type Run,
  stopName,
  withNetworks,
} from "../../schedules/index.js";
import { type Job, withBatch } from "../job/index.js";
import { cudaCoverage, type CudaCoverage } from "./cuda-coverage.js";
import { type Memory, memoryOf } from "./memory.js";

export interface Compiled {
  /** The name of the output form. */
  readonly form: string;
  readonly model: Model;
  /** The run in parts that give the same when they run in turn (`segmented`); empty if it is not cut. */
  readonly segments: readonly Segment[];
  /** The same run in the same form, with every branch computed at every step. */
  readonly uncached: Model;
  readonly nodes: { readonly step: number; readonly uncached: number; readonly emitted: number };
  /** Of the whole run. `bound` = uncached / emitted is the largest possible speed-up if MACs determine the time. */
  readonly macs: { readonly uncached: number; readonly emitted: number; readonly bound: number };
  readonly passes: readonly PassRecord[];
  readonly memory: Memory;
  readonly cuda: CudaCoverage;
  /** The names of the networks that are joined to the run, in front of it and behind it, without the operators between them. */
  readonly joined: { readonly before: readonly string[]; readonly after: readonly string[] };
}

/** A part of a run: the rows [from, to) of the sampler's table. */
export interface Segment {
  readonly model: Model;
  readonly from: number;
  readonly to: number;
}

export interface CompileOptions {
  /** The name of the output form. Default: unrolled. */
  readonly form?: string | undefined;
  /** Names of optional passes to leave out. */
  readonly without?: readonly string[] | undefined;
  /** The number of parts that the run is cut into. Default: 1. */
  readonly segments?: number | undefined;
}

/**
 * Simplifies the step and makes the whole run from it, in which cached branches read earlier values. Throws FORM_UNSUPPORTED, and
 * UNKNOWN_NAME for an unknown form or for a pass that is not optional.
 */
export async function compileModel(
  job: Job,
  plan: Plan,
  { form: name = DEFAULT_FORM, without = [], segments = 1 }: CompileOptions = {},
): Promise<Compiled> {
  const form = formNamed(name);
  const own = job.source.extensions?.passes ?? [];
  assertOptional(without, own);
  const unfit = own.find(({ stage }) => !form.stages.includes(stage));
  if (unfit) throw formUnsupported(name, `the pass '${unfit.name}' is for steps that are unrolled`);
  if (job.run.anyBatch && !form.stages.includes("run")) throw formUnsupported(name, "the batch of its steps is built in");
  if (!form.stages.includes("cache") && [...plan.cells].some(([, row]) => row.some(isPartial)))
    throw formUnsupported(name, "its cells are computed whole or not at all, and the plan computes some tokens");
  const records: PassRecord[] = [];
  const logged = { without: new Set(without), log: (record: PassRecord) => void records.push(record) };
  const ownOf = (of: Stage | undefined): readonly Pass[] => own.filter(({ stage }) => stage === of);
  const stops = stopsOf(job, segments, form);
  /** The run of a job, which differs from `job` in its batch at most. */
  const lowered = async (job: Job, log?: (record: PassRecord) => void): Promise<LoweredRun> => {
    const options = { ...logged, log };
    const stopping = { ...job, run: { ...job.run, ...(stops.length > 0 && { stops }) } };
    const run = await simplified(stopping, [...STEP_PASSES, ...ownOf("step")], options);
    const context = { ...job.questions, run };
    const lowering: Lowering = {
      plan,
      perform: (model, known, stage) => runPasses<PlanContext>(model, [...known, ...ownOf(stage)], { ...context, plan }, options),
      performBeside: (other, model, known) => runPasses(model, known, { ...context, plan: other }, { without: logged.without }),
    };
    const step = mainNetwork(run);
    return { step, ...(await form.lower(step, lowering)) };
  };
  const whole = job.run.anyBatch ? await ofAnyBatch(job, lowered, logged.log) : await lowered(job, logged.log);
  const { step } = whole;
  const [model, uncached] = [withoutStops(whole.model, stops), withoutStops(whole.uncached, stops)];
  const parts = stops.length > 0 ? segmented(whole.model, stops.map(stopName)) : [];
  const ends = [...stops, job.run.rows.length];
  const { before, after } = job.network.companions;
  const names = (all: typeof before): readonly string[] => all.flatMap(({ name, file }) => (file === undefined ? [] : [name]));
  // Figures are those of the job's batch.
  const [sized, sizedUncached] = job.run.anyBatch ? [atBatch(model, job.run.batch), atBatch(uncached, job.run.batch)] : [model, uncached];
  const macs = { uncached: totalMacs(graphMacs(sizedUncached.graph)), emitted: totalMacs(graphMacs(sized.graph)) };
  return {
    form: name,
    model,
    segments: parts.map((part, i) => ({ model: part, from: stops[i - 1] ?? 0, to: ends[i] ?? 0 })),
    uncached,
    nodes: { step: step.graph.nodes.length, uncached: uncached.graph.nodes.length, emitted: model.graph.nodes.length },
    macs: { ...macs, bound: macs.uncached / macs.emitted },
    passes: records,
    memory: memoryOf(sized, sizedUncached, ditView(job.model).latent),
    cuda: cudaCoverage(model),
    joined: { before: names(before), after: names(after) },
  };
}

interface LoweredRun extends Lowered {
  readonly step: Model;
}

/** The batches at which a run of any batch is looked at: primes that few other sizes of a network are. */
const BATCHES = [5, 7] as const;

/** The run of a job for any batch, of two at a batch. Throws BATCH_FIXED. */
async function ofAnyBatch(
  job: Job,
  lowered: (job: Job, log?: (record: PassRecord) => void) => Promise<LoweredRun>,
  log: (record: PassRecord) => void,
): Promise<LoweredRun> {
  const [low, high] = [await jobAt(job, BATCHES[0]), await jobAt(job, BATCHES[1])];
  const [one, other] = [await lowered(low, log), await lowered(high)];
  const free = (of: (run: LoweredRun) => Model): Model => {
    const made = freeBatch({ model: of(one), batch: BATCHES[0] }, { model: of(other), batch: BATCHES[1] }, ditView(job.model).latent);
    assertWellFormed(made);
    return made;
  };
  return { step: one.step, model: free(({ model }) => model), uncached: free(({ uncached }) => uncached) };
}

/** The job at another batch, with the runtime that it may ask. Throws BATCH_FIXED for values that do not fit that batch. */
async function jobAt(job: Job, batch: number): Promise<Job> {
  const { questions } = job;
  try {
    return { ...(await withBatch(job, batch, { signal: questions.signal })), questions };
  } catch (error) {
    if (!(error instanceof CompilerError) || error.code !== "INPUT_SHAPE_MISMATCH") throw error;
    throw batchFixed(`at a batch of ${batch}, ${error.message.replace(/\.$/, "")}`);
  }
}

/**
 * The run with simplified networks: runs the step passes on each of them, and on companions those that keep types. They come out with one
 * version of the operator set, the newest that one of them needs. Throws OPSETS_DIFFER.
 */
async function simplified(job: Job, known: readonly Pass[], options: Parameters<typeof runPasses<PassContext>>[3]): Promise<Run> {
  const context = { ...job.questions, run: job.run };
  const simple = await mapNetworks(
    job.run,
    (network) => runPasses(network, known, context, options),
    (companion) => runPasses(companion, COMPANION_PASSES, context, { without: options?.without }),
  );
  const newest = Math.max(...networksOf(simple).map(opsetOf));
  const { modelFile } = job.source;
  const inNewest = (model: Model, name = basename(modelFile)): Promise<Model> => {
    if (opsetOf(model) === newest) return Promise.resolve(model);
    if (!canRaise(model, newest)) throw opsetsDiffer(name, opsetOf(model), newest);
    return runPasses(raised(model, newest), RAISED_PASSES, context);
  };
  return mapNetworks(simple, inNewest, inNewest);
}

/** The rows at which the parts of a run begin, but for the first. Throws FORM_UNSUPPORTED, BAD_OPTION. */
function stopsOf({ run }: Job, segments: number, form: Form): readonly number[] {
  const { length } = run.rows;
  if (segments > length) throw badOption("--segments", `is ${segments}, and the run has ${length} evaluations of the network`);
  if (segments > 1 && !form.stages.includes("run")) throw formUnsupported(form.name, "its steps are not cut apart");
  return Array.from({ length: segments - 1 }, (_, i) => Math.round(((i + 1) * length) / segments));
}

function withoutStops(model: Model, stops: readonly number[]): Model {
  const names = new Set(stops.map(stopName));
  return withGraph(
    model,
    stops.length === 0 ? model.graph : { ...model.graph, outputs: model.graph.outputs.filter(({ name }) => !names.has(name)) },
  );
}

/** All networks of a run, companions included. */
function networksOf({ networks, companions = NO_COMPANIONS }: Run): readonly Model[] {
  return [
    ...networks.values(),
    ...[...companions.before, ...companions.after].flatMap(({ model, uncondModel }) => [model, uncondModel ?? []].flat()),
  ];
}

/** The run with other networks in place of its own, and of its companions. */
async function mapNetworks(
  run: Run,
  ofNetwork: (network: Model) => Promise<Model>,
  ofCompanion: (companion: Model, name: string) => Promise<Model>,
): Promise<Run> {
  const networks = new Map<string, Model>();
  for (const [name, network] of run.networks) networks.set(name, await ofNetwork(network));
  const companions = run.companions ?? NO_COMPANIONS;
  const mapped = async (all: readonly Companion[]): Promise<readonly Companion[]> => {
    const made: Companion[] = [];
    for (const companion of all) {
      const { name, model, uncondModel } = companion;
      made.push({
        ...companion,
        model: await ofCompanion(model, name),
        ...(uncondModel && { uncondModel: await ofCompanion(uncondModel, name) }),
      });
    }
    return made;
  };
  return {
    ...withNetworks(run, networks),
    companions: { ...companions, before: await mapped(companions.before), after: await mapped(companions.after) },
  };
}

/** Throws UNKNOWN_NAME for a name that is no optional pass. */
function assertOptional(names: readonly string[], own: readonly OwnPass[]): void {
  const optional = [...passes.values(), ...own].filter(({ isOptional }) => isOptional).map(({ name }) => name);
  for (const name of names) if (!optional.includes(name)) throw unknownName("optional pass", name, optional);
}
