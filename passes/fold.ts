/** Constant folding: the runtime computes all values that depend on no input in one call, within a budget of bytes. */
import { operands } from "../ir/analysis.js";
import { constantData } from "../ir/constants.js";
import { constant, type Graph, isOp, type Model, type Node, type Value, withGraph } from "../ir/graph.js";
import { isControlFlow, isNondeterministic, isShapeOnly, unpacksWeights } from "../ir/ops.js";
import { rewrite } from "../ir/rewrite.js";
import { isSelection } from "../ir/sizes.js";
import { convertTensor, tensorBytes, type TensorData, tensorOf } from "../ir/tensor.js";
import { byteSize, ELEMENT_TYPES, elementCount, isFloatType, isRuntimeType, staticShape } from "../ir/types.js";
import type { Pass, Questions } from "./pass.js";

/** A folded value may always take this many bytes; a larger one may take no more than the operands of its node. */
const FREE_BYTES = 1 << 16;
/** The bytes of all folded values of one run of the pass, which are held in memory. */
const BUDGET_BYTES = 1 << 29;

export default {
  name: "fold",
  summary: "turn what depends on no input into data",
  preserves: "rounding",
  async run(model, context) {
    const inputs = new Set(model.graph.inputs);
    const literal = withGraph(
      model,
      rewrite(model.graph, (node) => asData(node, inputs)),
    );
    return withGraph(model, await foldIslands(literal, context));
  },
} satisfies Pass<Questions>;

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

async function foldIslands(model: Model, context: Pick<Questions, "evaluator">): Promise<Graph> {
  const { graph } = model;
  const foldable = foldableNodes(graph);
  if (foldable.size === 0) return graph;
  const frontier = frontierOf(graph, foldable);
  const islands: Graph = {
    name: "fold",
    inputs: [],
    outputs: frontier.map((value, i) => ({ name: `folded_${i}`, value })),
    nodes: graph.nodes.filter((node) => foldable.has(node)),
    marks: [],
  };
  const { opsets, irVersion } = model;
  // The runtime is not asked for values that nothing reads.
  const results = frontier.length > 0 ? await context.evaluator.evaluate({ graph: islands, opsets, irVersion, metadata: new Map() }) : [];
  const overridable = new Set(graph.inputs);
  const folded = new Map<Value, Value>();
  for (const [i, value] of frontier.entries()) {
    const data = results[i];
    if (!data) throw new Error("internal: the runtime returned too few values");
    folded.set(value, constant(value.name, data));
  }
  return rewrite(graph, (node, original) =>
    foldable.has(original)
      ? { nodes: [], outputs: original.outputs.map((value) => folded.get(value) ?? value) }
      : asData(node, overridable),
  );
}

/** Nodes whose operands are all constant or folded themselves and whose results are worth their bytes. */
function foldableNodes(graph: Graph): ReadonlySet<Node> {
  const foldable = new Set<Node>();
  const bytes = new Map<Value, number>();
  const overridable = new Set(graph.inputs);
  const bytesOf = (value: Value): number | undefined =>
    value.data && !overridable.has(value) ? tensorBytes(value.data) : bytes.get(value);
  let total = 0;
  for (const node of graph.nodes) {
    if (isNondeterministic(node) || isControlFlow(node) || unpacksWeights(node)) continue;
    const inputs = [...new Set(operands(node))].map(bytesOf);
    if (inputs.some((size) => size === undefined)) continue;
    const made = inputs.reduce<number>((sum, size) => sum + (size ?? 0), 0);
    const results = node.outputs.map(({ type }) => {
      const shape = staticShape(type) ?? (isSelection(node) ? largestSelection(node) : undefined);
      return type && shape && isRuntimeType(type.elem) ? byteSize(type.elem, elementCount(shape)) : Infinity;
    });
    const size = results.reduce((sum, result) => sum + result, 0);
    if (size > Math.max(FREE_BYTES, made) || total + size > BUDGET_BYTES) continue;
    total += size;
    foldable.add(node);
    for (const [i, output] of node.outputs.entries()) bytes.set(output, results[i] ?? 0);
  }
  return foldable;
}

/** The most elements that a selection may have: an index for each dimension of each element. */
function largestSelection({ inputs: [from] }: Node): readonly number[] | undefined {
  const shape = staticShape(from?.type);
  return shape && [shape.length, ...shape];
}

/** Results of folded nodes that the rest of the graph reads, or that are marked. */
function frontierOf(graph: Graph, foldable: ReadonlySet<Node>): Value[] {
  const read = new Set<Value>();
  for (const node of graph.nodes) if (!foldable.has(node)) for (const value of operands(node)) read.add(value);
  for (const { value } of [...graph.outputs, ...graph.marks]) read.add(value);
  return [...foldable].flatMap((node) => node.outputs.filter((value) => read.has(value)));
}
