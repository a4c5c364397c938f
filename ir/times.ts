/**
 * Which inputs of a step graph may be its time: a number for each sample, or one for each token, that the network looks at by itself.
 * What is more than that, such as a time embedding that was computed outside, is none.
 */
import { dependence, operands } from "./analysis.js";
import { smallConstant } from "./constants.js";
import { type Graph, intAttribute, intsAttribute, isOp, type Node, type Value } from "./graph.js";
import { carriedOperand, type Dependence, factorsOf, isControlFlow, isElementwise, isLinear, isNorm } from "./ops.js";
import { type Dim, isFloatType } from "./types.js";

/** What the structure of the graph says of the inputs that are no latent, each in the order of the graph. */
export interface Times {
  /** Numbers of each sample that go into a sine or cosine before any weight mixes them. */
  readonly embedded: readonly Value[];
  /** The same of each token, where weights read what the sine gives: it may turn queries and keys otherwise, as positions do. */
  readonly embeddedTokens: readonly Value[];
  /** All inputs with one number for each sample. */
  readonly numbers: readonly Value[];
  /** Of these, the floats: they are no labels, which are looked up in tables. */
  readonly floats: readonly Value[];
  /** Inputs that may have a number for each token. */
  readonly tokens: readonly Value[];
  /** Inputs whose last axis weights or a norm take as a whole. */
  readonly vectors: readonly Value[];
  /** Of these, those with one vector for each sample. */
  readonly sampleVectors: readonly Value[];
}

/** `latents`: every input that may be the latent. */
export function timesOf(graph: Graph, latents: readonly Value[]): Times {
  const dependsOn = dependence(graph, new Map(graph.inputs.map((input) => [input, latents.includes(input) ? LATENT : OTHER])));
  const others = graph.inputs.filter((input) => !latents.includes(input) && isRead(graph, input));
  const vectors = others.filter((input) => isVector(graph, input, dependsOn));
  const single = others.filter((input) => !vectors.includes(input));
  const rows = new Set(latents.map(({ type }) => type?.shape?.[0]));
  const numbers = single.filter(isNumber);
  const tokens = single
    .filter(({ type }) => type?.shape?.length === 2 && rows.has(type.shape[0]))
    .filter((input) => !numbers.includes(input));
  const embedded = numbers.filter((input) => isEmbedded(graph, input, dependsOn, false));
  const embeddedTokens = tokens.filter((input) => isEmbedded(graph, input, dependsOn, true));
  const ofRows = numbers.filter(({ type }) => mayCountRows(type?.shape?.[0], rows));
  const floats = ofRows.filter(({ type }) => isFloatType(type?.elem) || type?.elem === "double");
  const sampleVectors = vectors.filter(
    ({ type }) => mayCountRows(type?.shape?.[0], rows) && type?.shape?.slice(1, -1).every((dim) => dim === 1),
  );
  return { embedded, embeddedTokens, numbers: ofRows, floats, tokens, vectors, sampleVectors };
}

const LATENT = 1;
const OTHER = 2;

function isRead(graph: Graph, input: Value): boolean {
  return graph.nodes.some((node) => operands(node).includes(input));
}

function mayCountRows(size: Dim | undefined, rows: ReadonlySet<Dim | undefined>): boolean {
  return typeof size !== "number" || size === 1 || rows.has(size);
}

/** A scalar or vector, or an array whose axes after the batch have size 1. */
export function isNumber({ type }: Value): boolean {
  const shape = type?.shape;
  return shape !== undefined && shape !== null && (shape.length <= 1 || shape.slice(1).every((dim) => dim === 1));
}

/**
 * Whether an input goes into a sine or cosine before it meets a latent. Frequencies enter by a product, which exporters write as Mul, as
 * an outer MatMul, Gemm or Einsum; they may be learned. `thenWeighed`: only if weights read what the sine gives.
 */
function isEmbedded(graph: Graph, input: Value, dependsOn: Dependence, thenWeighed: boolean): boolean {
  const reached = new Set<Value>([input]);
  const waves = new Set<Value>();
  for (const node of graph.nodes) {
    const isWave = operands(node).some((value) => waves.has(value));
    if (!isWave && !operands(node).some((value) => reached.has(value))) continue;
    if ((dependsOn(node.outputs[0]) & LATENT) !== 0) continue;
    if (isOp(node, "Sin", "Cos") && !thenWeighed) return true;
    if (isWave && isLinear(node, (value) => (value && waves.has(value) ? OTHER : dependsOn(value)))) return true;
    if (!carries(node)) continue;
    const into = isWave || isOp(node, "Sin", "Cos") ? waves : reached;
    for (const output of node.outputs) into.add(output);
  }
  return false;
}

/** It computes with each number by itself, moves numbers, or multiplies each by weights of its own. */
function carries(node: Node): boolean {
  if (isElementwise(node) || carriedOperand(node) || isControlFlow(node)) return true;
  if (isOp(node, "Expand", "Concat", "Gather", "Slice", "Einsum")) return true;
  const [, weight] = factorsOf(node) ?? [];
  return weight !== undefined && (!isOp(node, "Gemm") || weight.type?.shape?.[intAttribute(node, "transB", 0) === 0 ? 0 : 1] === 1);
}

/**
 * Whether the numbers of a sample are taken as a whole: its last axis, of more than one number, goes into a product with weights, into a
 * norm, or multiplies a latent, without having been set apart. A number for each token is set apart before it is embedded.
 */
export function isVector(graph: Graph, input: Value, dependsOn: Dependence): boolean {
  const shape = input.type?.shape;
  if (!shape || shape.length === 0 || shape.at(-1) === 1 || (shape.length > 1 && isNumber(input))) return false;
  const ranks = new Map<Value, number>([[input, shape.length]]);
  for (const node of graph.nodes) {
    const [value] = node.inputs.filter((operand) => operand && ranks.has(operand));
    const rank = value && ranks.get(value);
    if (!value || rank === undefined) continue;
    if (isNorm(node) || isLinear(node, dependsOn)) return true;
    const next = rankWithLast(node, value, rank);
    if (next === undefined) continue;
    if (isOp(node, "Mul") && (dependsOn(node.outputs[0]) & LATENT) !== 0) return true;
    for (const output of node.outputs) ranks.set(output, next);
  }
  return false;
}

/** The rank of a node's result whose last axis is still that of `value`; undefined where it is not, or may not be. */
function rankWithLast(node: Node, value: Value, rank: number): number | undefined {
  if (isOp(node, "Unsqueeze")) {
    const axes = intsAttribute(node, "axes") ?? smallConstant(node.inputs[1]);
    const next = rank + (axes?.length ?? 0);
    return !axes || axes.some((axis) => axis === -1 || axis === next - 1) ? undefined : next;
  }
  if (isOp(node, "Reshape")) {
    const target = smallConstant(node.inputs[1]);
    return !target || target.at(-1) === 1 || (rank === 1 && target.length > 1) ? undefined : target.length;
  }
  if (isOp(node, "Transpose")) return intsAttribute(node, "perm")?.at(-1) === rank - 1 ? rank : undefined;
  if (isOp(node, "Slice", "Split", "Concat")) return node.inputs[0] === value || isOp(node, "Concat") ? rank : undefined;
  const keeps = isElementwise(node) || carriedOperand(node) !== undefined;
  return keeps && !isOp(node, "Flatten", "Squeeze") ? rank : undefined;
}
