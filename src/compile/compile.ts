/** From a job and a plan to the emitted model: runs the pass pipeline and collects its figures. */
import { basename } from "node:path";
import { graphMacs, totalMacs } from "../../ir/cost.js";
import { unknownName } from "../../ir/diagnostics.js";
import { ditView, type Model, opsetOf, withGraph } from "../../ir/graph.js";
import {
  canRaise,
  COMPANION_PASSES,
  DEFAULT_FORM,
  type Form,
  formNamed,
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
import { badOption, formUnsupported } from "../../schedules/diagnostics.js";
import { opsetsDiffer } from "../words/index.js";
import { type Companion, mainNetwork, NO_COMPANIONS, type Plan, type Run, stopName, withNetworks } from "../../schedules/index.js";
import type { Job } from "../job/index.js";
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
  const records: PassRecord[] = [];
  const logged = { without: new Set(without), log: (record: PassRecord) => void records.push(record) };
  const ownOf = (of: Stage | undefined): readonly Pass[] => own.filter(({ stage }) => stage === of);
  const stops = stopsOf(job, segments, form);
  const run = await simplified(
    { ...job, run: { ...job.run, ...(stops.length > 0 && { stops }) } },
    [...STEP_PASSES, ...ownOf("step")],
    logged,
  );
  const context = { ...job.questions, run };
  const lowering: Lowering = {
    plan,
    perform: (model, known, stage) => runPasses<PlanContext>(model, [...known, ...ownOf(stage)], { ...context, plan }, logged),
    performBeside: (other, model, known) => runPasses(model, known, { ...context, plan: other }, { without: logged.without }),
  };
  const step = mainNetwork(run);
  const lowered = await form.lower(step, lowering);
  const [model, uncached] = [withoutStops(lowered.model, stops), withoutStops(lowered.uncached, stops)];
  const parts = stops.length > 0 ? segmented(lowered.model, stops.map(stopName)) : [];
  const ends = [...stops, job.run.rows.length];
  const macs = { uncached: totalMacs(graphMacs(uncached.graph)), emitted: totalMacs(graphMacs(model.graph)) };
  return {
    form: name,
    model,
    segments: parts.map((part, i) => ({ model: part, from: stops[i - 1] ?? 0, to: ends[i] ?? 0 })),
    uncached,
    nodes: { step: step.graph.nodes.length, uncached: uncached.graph.nodes.length, emitted: model.graph.nodes.length },
    macs: { ...macs, bound: macs.uncached / macs.emitted },
    passes: records,
    memory: memoryOf(model, uncached, ditView(job.model).latent),
    cuda: cudaCoverage(model),
  };
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
  return [...networks.values(), ...[...companions.before, ...companions.after].map(({ model }) => model)];
}

/** The run with other networks in place of its own, and of its companions. */
async function mapNetworks(
  run: Run,
  ofNetwork: (network: Model) => Promise<Model>,
  ofCompanion: (companion: Model, name: string) => Promise<Model>,
): Promise<Run> {
  const networks = new Map<string, Model>();
  for (const [name, network] of run.networks) networks.set(name, await ofNetwork(network));
  const { before, after, inputs } = run.companions ?? NO_COMPANIONS;
  const mapped = async (all: readonly Companion[]): Promise<readonly Companion[]> => {
    const made: Companion[] = [];
    for (const companion of all) made.push({ ...companion, model: await ofCompanion(companion.model, companion.name) });
    return made;
  };
  return { ...withNetworks(run, networks), companions: { before: await mapped(before), after: await mapped(after), inputs } };
}

/** Throws UNKNOWN_NAME for a name that is no optional pass. */
function assertOptional(names: readonly string[], own: readonly OwnPass[]): void {
  const optional = [...passes.values(), ...own].filter(({ isOptional }) => isOptional).map(({ name }) => name);
  for (const name of names) if (!optional.includes(name)) throw unknownName("optional pass", name, optional);
}
