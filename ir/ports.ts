/**
 * Which inputs and outputs of a step graph are the latent, the time and the prediction: by name if given, else by structure.
 * Structure cannot tell some inputs apart (a time and a guidance scale are embedded alike). Of these, the one with a customary name
 * is chosen, else the first; that is a guess, and the caller is told of it.
 */
import { ambiguousPort, notRecognised, randomNode, unknownName } from "./diagnostics.js";
import type { PortGuess } from "./dit.js";
import { type Graph, isOp, type Node, type Port, type Value } from "./graph.js";
import { isControlFlow, isDataMovement, isElementwise, isRandom } from "./ops.js";
import { operands } from "./analysis.js";
import { rewrite } from "./rewrite.js";
import type { Dim, TensorType } from "./types.js";

/** Names that the user or a recipe gives; what is left out is found by structure. */
export interface PortNames {
  readonly latent?: string | undefined;
  readonly timestep?: string | undefined;
  readonly prediction?: string | undefined;
}

export interface Ports {
  readonly latent: Value;
  readonly timestep: Value;
  readonly prediction: Port;
  readonly guesses: readonly PortGuess[];
}

const FLOATS: readonly string[] = ["float", "float16", "bfloat16", "double"];

/**
 * Throws UNKNOWN_NAME for a name that is not there, NOT_RECOGNISED for a graph that has no latent or no time, AMBIGUOUS_PORT for outputs.
 */
export function findPorts(graph: Graph, names: PortNames): Ports {
  const latents = latentCandidates(graph, names.latent);
  const guesses: PortGuess[] = [];
  const choose = <T extends Value>(role: string, option: string, candidates: readonly T[], customary: RegExp): T => {
    const named = candidates.filter(({ name }) => customary.test(name));
    const [only] = named.length === 1 ? named : candidates;
    if (!only) throw new Error(`internal: no candidate for the ${role}`);
    if (candidates.length > 1 && named.length !== 1) guesses.push({ role, option, candidates: candidates.map(({ name }) => name) });
    return only;
  };
  const times = timeCandidates(graph, latents, names.timestep);
  const prediction = findPrediction(graph, names.prediction);
  const latent = choose("latent", "latent", mostAlike(latents, prediction), /^(hidden_states|sample|latents?|x|noise)$/i);
  const timestep = choose("timestep", "timestep", times, /^(timesteps?|time(_?step)?|t|sigma)$/i);
  return { latent, timestep, prediction, guesses };
}

function findPrediction(graph: Graph, name: string | undefined): Port {
  if (name !== undefined) return byName("output", graph.outputs, name);
  const [first, second] = graph.outputs;
  if (!first) throw noPort("prediction", "The graph has no outputs.");
  if (second)
    throw ambiguousPort(
      "prediction",
      "prediction.output",
      graph.outputs.map((port) => port.name),
    );
  return first;
}

function latentCandidates(graph: Graph, name: string | undefined): readonly Value[] {
  if (name !== undefined) return [inputNamed(graph, name)];
  const floats = graph.inputs.filter(({ type }) => type && FLOATS.includes(type.elem) && (type.shape?.length ?? 0) >= 3);
  if (floats.length === 0) throw noPort("latent", "No input is a float tensor of rank 3 or more.");
  return floats;
}

/**
 * The candidates most similar to the prediction:
 * of the same rank, with the fewest dimensions that surely differ, then the most that are equal.
 */
function mostAlike(candidates: readonly Value[], prediction: Port): readonly Value[] {
  const scored = candidates.map((value) => ({ value, score: likeness(value.type, prediction.value.type) }));
  const best = Math.max(...scored.map(({ score }) => score));
  return scored.filter(({ score }) => score === best).map(({ value }) => value);
}

/** Channels may differ, as a network may also predict a variance. A size that is known in only one of the two shapes does not count. */
function likeness(a: TensorType | undefined, b: TensorType | undefined): number {
  const [own, other] = [a?.shape, b?.shape];
  if (!own || !other || own.length !== other.length) return -Infinity;
  const score = (dim: Dim, i: number): number => {
    const against = other[i];
    if (dim !== null && dim === against) return 1;
    return typeof dim === "number" && typeof against === "number" ? -own.length : 0;
  };
  return own.reduce<number>((sum, dim, i) => sum + score(dim, i), 0);
}

/** Inputs of rank 1 or less that go into a sine or cosine before any weight touches them. */
function timeCandidates(graph: Graph, latents: readonly Value[], name: string | undefined): readonly Value[] {
  if (name !== undefined) return [inputNamed(graph, name)];
  const small = graph.inputs.filter((input) => !latents.includes(input) && (input.type?.shape?.length ?? 2) <= 1);
  const embedded = small.filter((input) => reachesSine(graph, input));
  if (embedded.length === 0) throw noPort("time", "No scalar or vector among the inputs goes into a sine or cosine.");
  return embedded;
}

function noPort(role: string, reason: string): Error {
  const hint = `Export the denoising network alone, one step, with latent, time and conditions as inputs; or name the ${role} in recipe.json.`;
  return notRecognised(`The graph has no ${role}: ${reason}`, hint);
}

/** Throws NOT_RECOGNISED for a step with loops, RANDOM_NODE for one that draws random numbers. Sides of an `If` may be decided later. */
export function assertPlainStep(graph: Graph): void {
  const loop = graph.nodes.find((node) => isOp(node, "Loop", "Scan"));
  if (loop) throw controlFlow(loop);
  const random = graph.nodes.find(isRandom);
  if (random) throw randomNode(random.opType, random.name);
}

export function controlFlow({ opType, name }: Node): Error {
  return notRecognised(
    "The graph has control flow.",
    `There is a node ${opType}; export one denoising step without loops and conditions.`,
    name,
  );
}

/** The graph with the inputs `others` replaced by the input `name`. Throws UNKNOWN_NAME. */
export function withOneInput(graph: Graph, name: string | undefined, others: readonly string[]): Graph {
  if (name === undefined || others.length === 0) return graph;
  const kept = inputNamed(graph, name);
  const merged = rewrite(graph, () => undefined, new Map(others.map((other) => [inputNamed(graph, other), kept])));
  return { ...merged, inputs: [...new Set(merged.inputs)] };
}

/** Throws UNKNOWN_NAME. */
function inputNamed(graph: Graph, name: string): Value {
  return byName("input", graph.inputs, name);
}

function byName<T extends { readonly name: string }>(what: string, known: readonly T[], name: string): T {
  const found = known.find((candidate) => candidate.name === name);
  if (!found)
    throw unknownName(
      what,
      name,
      known.map((candidate) => candidate.name),
    );
  return found;
}

function reachesSine(graph: Graph, input: Value): boolean {
  const reached = new Set<Value>([input]);
  for (const node of graph.nodes) {
    if (!operands(node).some((value) => reached.has(value))) continue;
    if (isOp(node, "Sin", "Cos")) return true;
    if (carries(node)) for (const output of node.outputs) reached.add(output);
  }
  return false;
}

/** Frequencies enter by a product, which exporters write as Mul, as an outer MatMul or as Einsum. */
function carries(node: Node): boolean {
  return (
    isControlFlow(node) ||
    isElementwise(node) ||
    isDataMovement(node) ||
    isOp(node, "Expand", "Einsum", "MatMul", "Concat", "Gather", "Slice")
  );
}
