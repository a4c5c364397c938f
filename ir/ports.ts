/**
 * Which inputs and outputs of a step graph are the latent, the time and the prediction: by name if given, else by structure.
 * Structure cannot tell some inputs apart (a time and a guidance scale are embedded alike). Of these, the one with a customary name
 * is chosen, else the first; that is a guess, and the caller is told of it.
 */
import {
  ambiguousPort,
  discreteLatent,
  noLatent,
  noPrediction,
  notRecognised,
  noTime,
  randomNode,
  timeIsAnother,
  timeIsNoNumber,
  timeIsVector,
  unknownName,
} from "./diagnostics.js";
import type { PortGuess } from "./dit.js";
import { type Graph, isOp, type Node, type Port, type Value } from "./graph.js";
import { isRandom } from "./ops.js";
import { rewrite } from "./rewrite.js";
import { isNumber, timesOf } from "./times.js";
import type { Dim, TensorType } from "./types.js";

/** Names that the user or a recipe gives; what is left out is found by structure. */
export interface PortNames {
  readonly latent?: string | undefined;
  /** Null for a network that is not told the time. */
  readonly timestep?: string | null | undefined;
  readonly prediction?: string | undefined;
}

export interface Ports {
  readonly latent: Value;
  /** Absent if the names say that there is none. */
  readonly timestep: Value | undefined;
  readonly prediction: Port;
  readonly guesses: readonly PortGuess[];
}

const FLOATS: readonly string[] = ["float", "float16", "bfloat16", "double"];

/**
 * Throws UNKNOWN_NAME for a name that is not there, NOT_RECOGNISED for a graph that has no latent or no time, AMBIGUOUS_PORT for outputs.
 */
export function findPorts(graph: Graph, names: PortNames): Ports {
  const guesses: PortGuess[] = [];
  const choose = <T extends Value>(role: string, option: string, candidates: readonly T[], customary: RegExp): T => {
    const named = candidates.filter(({ name }) => customary.test(name));
    const [only] = named.length === 1 ? named : candidates;
    if (!only) throw new Error(`internal: no candidate for the ${role}`);
    if (candidates.length > 1 && named.length !== 1) guesses.push({ role, option, candidates: candidates.map(({ name }) => name) });
    return only;
  };
  const prediction = findPrediction(graph, names.prediction);
  const latents = latentCandidates(graph, prediction, names.latent);
  const times = (): readonly Value[] =>
    typeof names.timestep === "string" ? [namedTime(graph, names.timestep, latents)] : timeCandidates(graph, latents);
  const latent = choose("latent", "latent", mostAlike(latents, prediction), /^(hidden_states|sample|latents?|x|noise)$/i);
  const timestep = names.timestep === null ? undefined : choose("timestep", "timestep", times(), CUSTOMARY_TIME);
  return { latent, timestep, prediction, guesses };
}

function findPrediction(graph: Graph, name: string | undefined): Port {
  if (name !== undefined) return byName("output", graph.outputs, name);
  const [first, second] = graph.outputs;
  if (!first) throw noPrediction();
  if (second)
    throw ambiguousPort(
      "prediction",
      "prediction.output",
      graph.outputs.map((port) => port.name),
    );
  return first;
}

function latentCandidates(graph: Graph, prediction: Port, name: string | undefined): readonly Value[] {
  if (name !== undefined) {
    const named = inputNamed(graph, name);
    if (isInteger(named)) throw discreteLatent(named.name, named.type?.elem ?? "?", prediction.name);
    return [named];
  }
  const floats = graph.inputs.filter(({ type }) => type && FLOATS.includes(type.elem) && (type.shape?.length ?? 0) >= 3);
  const latents = floats.filter((input) => !isNumber(input) && !CUSTOMARY_TIME.test(input.name));
  const ids = graph.inputs.find((input) => isInteger(input) && isSpreadOver(prediction, input));
  if (ids && !latents.some((input) => sharesAxes(input, prediction)))
    throw discreteLatent(ids.name, ids.type?.elem ?? "?", prediction.name);
  if (latents.length === 0) throw noLatent();
  return latents;
}

function isInteger({ type }: Value): boolean {
  return type !== undefined && !FLOATS.includes(type.elem);
}

/** Whether an input has the prediction's rank, and an axis after the batch in common with it; a mask over pairs of tokens does not count. */
function sharesAxes({ type }: Value, { value }: Port): boolean {
  const [own, other] = [type?.shape, value.type?.shape];
  if (own?.length === 3 && own[1] === own[2] && own[2] !== other?.[2]) return false;
  return own?.length === other?.length && own?.some((dim, axis) => axis > 0 && dim !== null && dim === other?.[axis]) === true;
}

/** Whether the prediction has the axes of an input of tokens, and perhaps one more, with a number for each value that a token may have. */
function isSpreadOver({ value }: Port, input: Value): boolean {
  const [own, other] = [input.type?.shape, value.type?.shape];
  if (!own || !other || own.length < 2) return false;
  const without = [...other.keys()].map((axis) => other.filter((_, i) => i !== axis));
  return [other, ...without].some((dims) => dims.length === own.length && dims.every((dim, i) => dim !== null && dim === own[i]));
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

/**
 * The time that is named. Throws NOT_RECOGNISED for what cannot be one: for a vector, for what are no numbers of samples or tokens, and,
 * where others go into a sine or cosine, for one that does not and is not called as times are: it is a label, a mask or another condition.
 */
function namedTime(graph: Graph, name: string, latents: readonly Value[]): Value {
  const input = inputNamed(graph, name);
  const { vectors, sampleVectors, embedded, embeddedTokens } = timesOf(
    graph,
    latents.filter((latent) => latent !== input),
  );
  if (sampleVectors.includes(input)) throw timeIsVector(name);
  const { elem, shape } = input.type ?? {};
  const isOfTokens = shape?.length === 2 && !vectors.includes(input);
  if (elem === "bool" || elem === "string" || (shape && !isNumber(input) && !isOfTokens))
    throw timeIsNoNumber(name, elem ?? "?", shape ?? []);
  const waves = [...embedded, ...embeddedTokens];
  if (embedded.length > 0 && !waves.includes(input) && !CUSTOMARY_TIME.test(name))
    throw timeIsAnother(
      name,
      embedded.map((other) => other.name),
    );
  return input;
}

const CUSTOMARY_TIME = /^(timesteps?|time(_?steps?)?|times|t|ts|tau|sigmas?|noise_?(levels?|labels?)|log_?snr)$/i;

/**
 * The inputs that may be the time, the likeliest first: what goes into a sine or cosine; else what is called as times are; else the only
 * float that there is one of for each sample. Throws NOT_RECOGNISED with what there is.
 */
function timeCandidates(graph: Graph, latents: readonly Value[]): readonly Value[] {
  const { embedded: ofSamples, embeddedTokens, numbers, floats, tokens, vectors } = timesOf(graph, latents);
  const embedded = ofSamples.length > 0 ? ofSamples : embeddedTokens;
  const isCustomary = ({ name }: Value): boolean => CUSTOMARY_TIME.test(name);
  const named = [...numbers, ...tokens].filter(isCustomary);
  if (embedded.some(isCustomary) || (embedded.length > 0 && named.length !== 1)) return embedded;
  if (named.length > 0) return [...named, ...embedded];
  if (floats.length > 0) return [...floats, ...vectors];
  const vector = vectors.find(isCustomary);
  if (vector) throw timeIsVector(vector.name);
  const listed = [...numbers, ...vectors, ...tokens].map(({ name }) => name);
  throw noTime(listed.slice(0, numbers.length), listed.slice(numbers.length));
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

/** Names of ports, among them those of several inputs that get the same time. */
export interface PortNamesOfTimes extends Omit<PortNames, "timestep"> {
  readonly timestep?: string | readonly string[] | null | undefined;
}

/** The graph with one input for the time, the first of those that are named, and its names. Throws what finding each of them throws. */
export function withOneTime(graph: Graph, { timestep, ...names }: PortNamesOfTimes): { readonly graph: Graph; readonly names: PortNames } {
  const [first, ...others] = typeof timestep === "string" ? [timestep] : (timestep ?? []);
  if (first === undefined) return { graph, names: { ...names, timestep: timestep === null ? null : undefined } };
  if (others.length === 0) return { graph, names: { ...names, timestep: first } };
  for (const name of [first, ...others]) findPorts(graph, { ...names, timestep: name });
  const kept = inputNamed(graph, first);
  const merged = rewrite(graph, () => undefined, new Map(others.map((other) => [inputNamed(graph, other), kept])));
  return { graph: { ...merged, inputs: [...new Set(merged.inputs)] }, names: { ...names, timestep: first } };
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
