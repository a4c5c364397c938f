/** From a job and a plan to the emitted model: runs the pass pipeline and collects its figures. */
import { graphMacs, totalMacs } from "../../ir/cost.js";
import { unknownName } from "../../ir/diagnostics.js";
import { ditView, type Model, opsetOf } from "../../ir/graph.js";
import {
  canRaise,
  COMPANION_PASSES,
  DEFAULT_FORM,
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
  type Stage,
  STEP_PASSES,
} from "../../passes/index.js";
import { formUnsupported } from "../../schedules/diagnostics.js";
import { companionOpset } from "../words/index.js";
import { type Companion, mainNetwork, NO_COMPANIONS, type Plan, type Run, withNetworks } from "../../schedules/index.js";
import type { Job } from "../job/index.js";
import { cudaCoverage, type CudaCoverage } from "./cuda-coverage.js";
import { type Memory, memoryOf } from "./memory.js";

export interface Compiled {
  /** The name of the output form. */
  readonly form: string;
  readonly model: Model;
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

export interface CompileOptions {
  /** The name of the output form. Default: unrolled. */
  readonly form?: string | undefined;
  /** Names of optional passes to leave out. */
  readonly without?: readonly string[] | undefined;
}

/**
 * Simplifies the step and makes the whole run from it, in which cached branches read earlier values. Throws FORM_UNSUPPORTED, and
 * UNKNOWN_NAME for an unknown form or for a pass that is not optional.
 */
export async function compileModel(
  job: Job,
  plan: Plan,
  { form: name = DEFAULT_FORM, without = [] }: CompileOptions = {},
): Promise<Compiled> {
  const form = formNamed(name);
  const own = job.source.extensions?.passes ?? [];
  assertOptional(without, own);
  const unfit = own.find(({ stage }) => !form.stages.includes(stage));
  if (unfit) throw formUnsupported(name, `the pass '${unfit.name}' is for steps that are unrolled`);
  const records: PassRecord[] = [];
  const logged = { without: new Set(without), log: (record: PassRecord) => void records.push(record) };
  const ownOf = (of: Stage | undefined): readonly Pass[] => own.filter(({ stage }) => stage === of);
  const run = await simplified(job, [...STEP_PASSES, ...ownOf("step")], logged);
  const context = { ...job.questions, run };
  const lowering: Lowering = {
    plan,
    perform: (model, known, stage) => runPasses<PlanContext>(model, [...known, ...ownOf(stage)], { ...context, plan }, logged),
    performBeside: (other, model, known) => runPasses(model, known, { ...context, plan: other }, { without: logged.without }),
  };
  const step = mainNetwork(run);
  const { before, after } = job.network.companions;
  const names = (all: typeof before): readonly string[] => all.flatMap(({ name, file }) => (file === undefined ? [] : [name]));
  const { model, uncached } = await form.lower(step, lowering);
  const macs = { uncached: totalMacs(graphMacs(uncached.graph)), emitted: totalMacs(graphMacs(model.graph)) };
  return {
    form: name,
    model,
    uncached,
    nodes: { step: step.graph.nodes.length, uncached: uncached.graph.nodes.length, emitted: model.graph.nodes.length },
    macs: { ...macs, bound: macs.uncached / macs.emitted },
    passes: records,
    memory: memoryOf(model, uncached, ditView(job.model).latent),
    cuda: cudaCoverage(model),
    joined: { before: names(before), after: names(after) },
  };
}

/**
 * The run with simplified networks: runs the step passes on each of them, and on companions those that keep types. They come out with one
 * version of the operator set. Throws COMPANION_OPSET.
 */
async function simplified(job: Job, known: readonly Pass[], options: Parameters<typeof runPasses<PassContext>>[3]): Promise<Run> {
  const context = { ...job.questions, run: job.run };
  const simple = await mapNetworks(
    job.run,
    (network) => runPasses(network, known, context, options),
    (companion) => runPasses(companion, COMPANION_PASSES, context, { without: options?.without }),
  );
  const newest = Math.max(...networksOf(simple).map(opsetOf));
  const inNewest = (model: Model, name = "the network"): Promise<Model> => {
    if (opsetOf(model) === newest) return Promise.resolve(model);
    if (!canRaise(model, newest)) throw companionOpset(name, opsetOf(model), newest);
    return runPasses(raised(model, newest), RAISED_PASSES, context);
  };
  return mapNetworks(simple, inNewest, inNewest);
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
