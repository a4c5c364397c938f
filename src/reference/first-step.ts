/**
 * The prediction of the first step that calls a network, on the noise that the run starts from, twice: by the network as it is bound and
 * lifted, which the loop runs, and by the exporter's file as it stands. Between the two lie all passes of the bind stage and lifting.
 */
import { CompilerError } from "../../ir/diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { ditView, type Model, type Value } from "../../ir/graph.js";
import { type TensorData, tensorNumbers } from "../../ir/tensor.js";
import { type Call, networkOf } from "../../schedules/index.js";
import type { Job, Network, RunInputs } from "../job/index.js";
import { AS_WRITTEN, type RuntimeOptions, Session, type SessionOptions, type Tensors } from "../runtime/index.js";
import { inputAt } from "./feeds.js";
import { firstLatentOf } from "./inpainting.js";
import { PREDICTION, stepWith } from "./step-model.js";

/** The predictions of all calls of the network in its first step, one after the other. */
export type FirstStep = (inputs: RunInputs) => Promise<Float64Array>;

/** A network of the job, and the first row that calls it. */
export interface FirstCall {
  readonly network: Network;
  readonly row: number;
}

/** By the network that the loop runs. */
export function liftedFirstStep(job: Job, first: FirstCall, options: RuntimeOptions): FirstStep {
  return firstStep(job, first, async (call, feeds) => {
    const step = stepWith(networkOf(job.run, call), new Map(), new Set());
    return runOnce(step, feeds, PREDICTION, { ...options, ...AS_WRITTEN });
  });
}

/**
 * By the exporter's step, which nothing has bound or simplified. Its kernels are those of the graph as it is written, or, where the runtime
 * does not load that, as it is simplified.
 */
export function exportedFirstStep(job: Job, first: FirstCall, step: Model, options: RuntimeOptions): FirstStep {
  const { ports } = first.network;
  return firstStep(job, first, async (_, feeds) => {
    const run = (kernels: Pick<SessionOptions, "optimise" | "prepack">): Promise<ArrayLike<number>> =>
      runOnce(step, feeds, ports.prediction, { ...options, ...kernels });
    try {
      return await run(AS_WRITTEN);
    } catch (error) {
      if (!(error instanceof CompilerError) || error.code === "CANCELLED") throw error;
      return run({ ...AS_WRITTEN, optimise: "basic" });
    }
  });
}

function firstStep(job: Job, first: FirstCall, predict: (call: Call, feeds: Tensors) => Promise<ArrayLike<number>>): FirstStep {
  return async (inputs) => {
    const latent = firstLatentOf(job.run, inputs);
    const parts: ArrayLike<number>[] = [];
    for (const call of entryAt(job.run.rows, first.row).calls)
      parts.push(await predict(call, feedsOf(job, first, call, latent, inputs.conditions)));
    return Float64Array.from(parts.flatMap((part) => Array.from(part)));
  };
}

/** What all inputs of the exporter's step get in a call; the network that was bound has some of them. */
function feedsOf(
  job: Job,
  { network, row }: FirstCall,
  call: Call,
  latent: Float32Array,
  conditions: ReadonlyMap<string, TensorData>,
): Tensors {
  const { run } = job;
  const { inputs } = networkOf(run, call).graph;
  const time = inputs.find(({ name }) => name === ditView(job.model).timestep);
  const times = new Set([network.source.recipe.timestep ?? []].flat());
  const feeds = new Map<string, TensorData>();
  for (const { name } of network.read.graph.inputs) {
    const input = inputs.find((known) => known.name === name) ?? (times.has(name) ? time : frozenInput(job, name, call));
    if (input) feeds.set(name, inputAt(run, input, row, call.halves, latent, conditions));
  }
  return feeds;
}

/** An input that is a constant of the bound network, with the shape that it has in a call. An input with a default need not be fed. */
function frozenInput({ run }: Job, name: string, { halves }: Call): Value | undefined {
  const condition = run.conditions.get(name);
  const [rows, ...rest] = condition?.type?.shape ?? [];
  if (!condition?.type) return undefined;
  const shape = condition.isBatched && typeof rows === "number" ? [rows * halves.length, ...rest] : condition.type.shape;
  return { name, type: { ...condition.type, shape } };
}

async function runOnce(model: Model, given: Tensors, output: string, options: SessionOptions): Promise<ArrayLike<number>> {
  const session = await Session.open(model, options);
  try {
    const inputs = new Set(model.graph.inputs.map(({ name }) => name));
    const results = await session.run(new Map([...given].filter(([name]) => inputs.has(name))));
    const prediction = results.get(output);
    if (!prediction) throw new Error(`internal: the step has no output '${output}'`);
    return tensorNumbers(prediction);
  } finally {
    await session.close();
  }
}
