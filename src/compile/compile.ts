/** From a job and a plan to the emitted model: runs the pass pipeline and collects its figures. */
import { graphMacs, totalMacs } from "../../ir/cost.js";
import { unknownName } from "../../ir/diagnostics.js";
import { ditView, type Model, opsetOf } from "../../ir/graph.js";
import {
  canRaise,
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
  runPasses,
  type Stage,
  STEP_PASSES,
} from "../../passes/index.js";
import { formUnsupported } from "../../schedules/diagnostics.js";
import { mainNetwork, type Plan, type Run, withNetworks } from "../../schedules/index.js";
import type { Job } from "../job/index.js";
import { cudaCoverage, type CudaCoverage } from "./cuda-coverage.js";
import { networksDiffer } from "../words/index.js";
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
  };
}

/**
 * The run with simplified networks: runs the step passes on each of them. All are then of the same operator set, the newest that one of
 * them needs. Throws NETWORKS_DIFFER.
 */
async function simplified(
  { source, run, questions }: Job,
  known: readonly Pass[],
  options: Parameters<typeof runPasses<PassContext>>[3],
): Promise<Run> {
  const networks = new Map<string, Model>();
  for (const [name, network] of run.networks) networks.set(name, await runPasses(network, known, { ...questions, run }, options));
  const newest = Math.max(...Array.from(networks.values(), opsetOf));
  if (![...networks.values()].every((network) => canRaise(network, newest)))
    throw networksDiffer(source.modelFile, `not all of them can be brought to version ${newest} of the operators`);
  return withNetworks(run, new Map(Array.from(networks, ([name, network]) => [name, raised(network, newest)])));
}

/** Throws UNKNOWN_NAME for a name that is no optional pass. */
function assertOptional(names: readonly string[], own: readonly OwnPass[]): void {
  const optional = [...passes.values(), ...own].filter(({ isOptional }) => isOptional).map(({ name }) => name);
  for (const name of names) if (!optional.includes(name)) throw unknownName("optional pass", name, optional);
}
