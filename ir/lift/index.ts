/** Lifting: from a plain ONNX graph of one denoising step to the view of it as a diffusion transformer. */
import { dependence, dominators, type Dependence } from "../analysis.js";
import { notRecognised, randomNode } from "../diagnostics.js";
import { CONDITION, LATENT, TIME, type Branch, type DitView } from "../dit.js";
import type { Graph, Mark, Model, Node, Value } from "../graph.js";
import { isControlFlow, isRandom } from "../ops.js";
import { findLatent, findPrediction, findTimestep, inputNamed } from "../ports.js";
import { hasMethods, loadFolder, type Named } from "../registry.js";
import { rewrite } from "../rewrite.js";

/** What every recogniser starts from. */
export interface StepFacts {
  readonly model: Model;
  readonly latent: Value;
  readonly prediction: Value;
  /** Bits LATENT, TIME, CONDITION. */
  readonly dependsOn: Dependence;
  /** Immediate dominators with respect to the latent. */
  readonly dominator: ReadonlyMap<Value, Value>;
}

/** A branch and the value that its mark points at. */
export interface FoundBranch extends Omit<Branch, "site"> {
  readonly value: Value;
}

/** Why a graph, or a part of it, is not what a recogniser looks for. */
export interface NearMiss {
  readonly reason: string;
  readonly node?: Node | undefined;
}

export interface Recognition {
  readonly branches: readonly FoundBranch[];
  readonly misses: readonly NearMiss[];
}

/** One topology of diffusion transformers. */
export interface Recogniser extends Named {
  readonly summary: string;
  recognise(facts: StepFacts): Recognition;
}

function isRecogniser(candidate: unknown): candidate is Recogniser {
  return hasMethods(candidate, "recognise");
}

export const recognisers = await loadFolder(import.meta.url, isRecogniser);

/** Names that the user or a recipe gives; what is left out is found by structure. */
export interface PortNames {
  readonly latent?: string | undefined;
  /** Several where several inputs get the same time: they become one, under the first name. */
  readonly timestep?: string | readonly string[] | undefined;
  readonly prediction?: string | undefined;
}

/**
 * The model with its `dit` view and a mark (step 0) on every branch. Names are used only where `names` gives them.
 * Throws NOT_RECOGNISED with the nearest miss if no recogniser finds a branch.
 */
export function lift(read: Model, names: PortNames = {}): Model {
  const [time, ...sameTime] = [names.timestep ?? []].flat();
  const model = { ...read, graph: withOneInput(read.graph, time, sameTime) };
  const { graph } = model;
  const loop = graph.nodes.find(isControlFlow);
  if (loop)
    throw notRecognised(
      "The graph has control flow.",
      `There is a node ${loop.opType}; export one denoising step without loops and conditions.`,
      loop.name,
    );
  const random = graph.nodes.find(isRandom);
  if (random) throw randomNode(random.opType, random.name);
  const prediction = findPrediction(graph, names.prediction);
  const latent = findLatent(graph, prediction, names.latent);
  const timestep = findTimestep(graph, latent, time);
  const conditions = graph.inputs.filter((input) => input !== latent && input !== timestep);
  const sources = new Map<Value, number>([
    [latent, LATENT],
    [timestep, TIME],
  ]);
  for (const input of conditions) sources.set(input, CONDITION);
  const facts: StepFacts = {
    model,
    latent,
    prediction: prediction.value,
    dependsOn: dependence(graph, sources),
    dominator: dominators(graph, latent),
  };

  let best: { readonly name: string; readonly found: Recognition } | undefined;
  for (const recogniser of recognisers.values()) {
    const found = recogniser.recognise(facts);
    if (!best || found.branches.length > best.found.branches.length) best = { name: recogniser.name, found };
  }
  if (!best || best.found.branches.length === 0) {
    const miss = best?.found.misses[0];
    throw notRecognised(
      "No residual branch of a diffusion transformer was found.",
      `${miss?.reason ?? "Nothing on the way from the latent to the prediction adds to it."} Export the denoising network alone, one step, with time as an input.`,
      miss?.node?.name,
    );
  }
  const { branches, marks } = named(best.found.branches);
  const dit: DitView = {
    recogniser: best.name,
    latent: latent.name,
    timestep: timestep.name,
    conditions: conditions.map(({ name }) => name),
    prediction: prediction.name,
    branches,
    warnings: [
      ...graph.outputs
        .filter((port) => port !== prediction)
        .map(({ name }) => `The output '${name}' is not the prediction and is left out.`),
      ...best.found.misses.map(({ reason, node }) => (node ? `${reason} (at ${node.opType} '${node.name}')` : reason)),
    ],
  };
  return { ...model, graph: { ...graph, outputs: [prediction], marks }, dit };
}

/** The graph with one input where several get the same value. Throws UNKNOWN_NAME. */
function withOneInput(graph: Graph, name: string | undefined, others: readonly string[]): Graph {
  if (name === undefined || others.length === 0) return graph;
  const kept = inputNamed(graph, name);
  const merged = rewrite(graph, () => undefined, new Map(others.map((other) => [inputNamed(graph, other), kept])));
  return { ...merged, inputs: [...new Set(merged.inputs)] };
}

/** Sites are `kind-block`, with the stream in front where there is more than one. */
function named(found: readonly FoundBranch[]): { readonly branches: readonly Branch[]; readonly marks: readonly Mark[] } {
  const severalStreams = new Set(found.map(({ stream }) => stream)).size > 1;
  const branches: Branch[] = [];
  const marks: Mark[] = [];
  for (const { value, ...facts } of found) {
    const site = `${severalStreams ? `${facts.stream}_` : ""}${facts.kind}-${facts.block}`;
    branches.push({ site, ...facts });
    marks.push({ site, step: 0, value });
  }
  return { branches, marks };
}
