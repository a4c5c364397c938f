/** Constant folding: the runtime computes all values that depend on no input in one call, within a budget of bytes. */
import { operands } from "../ir/analysis.js";
import { constantData } from "../ir/constants.js";
import { constant, type Graph, isOp, type Model, type Node, type Value, withGraph } from "../ir/graph.js";
import { isControlFlow, isDataMovement, isNondeterministic, isShapeOnly, unpacksWeights } from "../ir/ops.js";
import { rewrite, sweep } from "../ir/rewrite.js";
import { isSelection } from "../ir/sizes.js";
import { convertTensor, tensorBytes, type TensorData, tensorOf } from "../ir/tensor.js";
import { byteSize, ELEMENT_TYPES, elementCount, isFloatType, isRuntimeType, staticShape } from "../ir/types.js";
import type { Pass, Questions } from "./pass.js";

/** A folded value may always take this many bytes; a larger one may take no more than the operands of its node. */
const FREE_BYTES = 1 << 16;
/** The bytes of all larger values of one run of the pass, which are held in memory. */
const BUDGET_BYTES = 1 << 29;

export default {
  name: "fold",
  summary: "turn what depends on no input into data",
  preserves: "rounding",
  run: (model, context) => foldedWithin(model, context, BUDGET_BYTES),
} satisfies Pass<Questions>;

/** The model with data for what depends on no input. Values of more than `FREE_BYTES` take no more than `budget` bytes together. */
export async function foldedWithin(model: Model, context: Pick<Questions, "evaluator">, budget: number): Promise<Model> {
  const inputs = new Set(model.graph.inputs);
  const literal = withGraph(
    model,
    rewrite(model.graph, (node) => asData(node, inputs)),
  );
  return withGraph(model, await foldIslands(literal, context, budget));
}

/** The result of a node that can be folded without the runtime: a Constant, a known shape, or a cast between float types. */
function asData(
  node: Node,
  inputs: ReadonlySet<Value>,
): { readonly nodes: readonly Node[]; readonly outputs: readonly Value[] } | undefined {
  const [output] = node.outputs;
  const data = isOp(node, "Constant") ? constantData(node) : isShapeOnly(node) ? shapeData(node) : castData(node, inputs);
  return data && output ? { nodes: [], outputs: [constant(output.name, data)] } : undefined;
}

/** A constant cast to a float type of no more bits. Contents of a file stay there. */
function castData(node: Node, inputs: ReadonlySet<Value>): TensorData | undefined {
  const [value] = node.inputs;
  const to = node.outputs[0]?.type?.elem;
  if (!isOp(node, "Cast") || !value?.data || inputs.has(value) || !isFloatType(value.data.elem) || !isFloatType(to)) return undefined;
  return ELEMENT_TYPES[to].bits <= ELEMENT_TYPES[value.data.elem].bits ? convertTensor(value.data, to) : undefined;
}

function shapeData(node: Node): TensorData | undefined {
  const shape = staticShape(node.inputs[0]?.type);
  if (!shape) return undefined;
  if (isOp(node, "Size")) return tensorOf("int64", [], [elementCount(shape)]);
  const bound = (name: string, otherwise: number): number => {
    const attribute = node.attributes.get(name);
    return attribute?.kind === "int" ? Number(attribute.value) : otherwise;
  };
  const part = shape.slice(bound("start", 0), bound("end", shape.length));
  return tensorOf("int64", [part.length], part);
}

async function foldIslands(model: Model, context: Pick<Questions, "evaluator">, budget: number): Promise<Graph> {
  const { graph } = model;
  const { folded, frontier } = foldedNodes(graph, budget);
  if (folded.size === 0) return graph;
  const islands: Graph = {
    name: "fold",
    inputs: [],
    outputs: frontier.map((value, i) => ({ name: `folded_${i}`, value })),
    nodes: graph.nodes,
    marks: [],
  };
  const { opsets, irVersion } = model;
  const asked = { graph: sweep(islands), opsets, irVersion, metadata: new Map() };
  // The runtime is not asked for values that nothing reads.
  const results = frontier.length > 0 ? await context.evaluator.evaluate(asked) : [];
  const overridable = new Set(graph.inputs);
  const known = new Map<Value, Value>();
  for (const [i, value] of frontier.entries()) {
    const data = results[i];
    if (!data) throw new Error("internal: the runtime returned too few values");
    known.set(value, constant(value.name, data));
  }
  return rewrite(graph, (node, original) =>
    folded.has(original) ? { nodes: [], outputs: original.outputs.map((value) => known.get(value) ?? value) } : asData(node, overridable),
  );
}

/**
 * The nodes that are folded, and their results that are read by others, outputs or marked. Nodes that unpack weights are only folded with
 * all their readers: what they make is never data.
 */
function foldedNodes(graph: Graph, budget: number): { readonly folded: ReadonlySet<Node>; readonly frontier: readonly Value[] } {
  const { foldable, unpacking } = foldableNodes(graph, budget);
  const folded = new Set(foldable);
  const read = new Set<Value>([...graph.outputs, ...graph.marks].map(({ value }) => value));
  for (const node of graph.nodes.toReversed()) {
    if (unpacking.has(node) && node.outputs.some((value) => read.has(value))) folded.delete(node);
    if (!folded.has(node)) for (const value of operands(node)) read.add(value);
  }
  return { folded, frontier: [...folded].flatMap((node) => node.outputs.filter((value) => read.has(value))) };
}

/**
 * Nodes whose operands are all constant or folded themselves and whose results are worth their bytes; `unpacking`: those of them that
 * unpack weights, or move what is unpacked.
 */
function foldableNodes(graph: Graph, budget: number): { readonly foldable: ReadonlySet<Node>; readonly unpacking: ReadonlySet<Node> } {
  const foldable = new Set<Node>();
  const unpacking = new Set<Node>();
  const bytes = new Map<Value, number>();
  const overridable = new Set(graph.inputs);
  const bytesOf = (value: Value): number | undefined =>
    value.data && !overridable.has(value) ? tensorBytes(value.data) : bytes.get(value);
  let total = 0;
  for (const node of graph.nodes) {
    if (isNondeterministic(node) || isControlFlow(node)) continue;
    const inputs = [...new Set(operands(node))].map(bytesOf);
    if (inputs.some((size) => size === undefined)) continue;
    const made = inputs.reduce<number>((sum, size) => sum + (size ?? 0), 0);
    const results = node.outputs.map(({ type }) => {
      const shape = staticShape(type) ?? (isSelection(node) ? largestSelection(node) : undefined);
      return type && shape && isRuntimeType(type.elem) ? byteSize(type.elem, elementCount(shape)) : Infinity;
    });
    const [source] = node.inputs;
    const isUnpacking = unpacksWeights(node) || (isDataMovement(node) && source?.producer !== undefined && unpacking.has(source.producer));
    if (isUnpacking) unpacking.add(node);
    // What is unpacked is not kept, so it counts as the bytes that it is unpacked from.
    const size = isUnpacking ? made : results.reduce((sum, result) => sum + result, 0);
    const counted = isUnpacking || size <= FREE_BYTES ? 0 : size;
    if (size > Math.max(FREE_BYTES, made) || total + counted > budget) continue;
    total += counted;
    foldable.add(node);
    for (const [i, output] of node.outputs.entries()) bytes.set(output, isUnpacking ? made : (results[i] ?? 0));
  }
  return { foldable, unpacking };
}

/** The most elements that a selection may have: an index for each dimension of each element. */
function largestSelection({ inputs: [from] }: Node): readonly number[] | undefined {
  const shape = staticShape(from?.type);
  return shape && [shape.length, ...shape];
}
