/** Converts a model to a newer version of the standard operator set. */
import { constant, intsAttribute, isOfStandardDomain, isOp, makeNode, type Model, type Node, opsetOf } from "../../ir/graph.js";
import type { StandardOperator } from "../../ir/operators.js";
import { isControlFlow } from "../../ir/ops.js";
import { rewrite } from "../../ir/rewrite.js";
import { tensorOf } from "../../ir/tensor.js";

/** The oldest version that can be converted: before it, too much is different. */
const OLDEST = 13;

/**
 * Operators whose meaning changes with this version, up to 23 (onnx/docs/Changelog.md). Operators that only gained types or options
 * are not listed.
 */
const CHANGED: readonly { readonly version: number; readonly ops: readonly StandardOperator[] }[] = [
  { version: 14, ops: ["BatchNormalization"] },
  { version: 20, ops: ["DFT", "GridSample"] },
  { version: 21, ops: ["GroupNormalization"] },
];

const REDUCTIONS = [
  ...(["ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"] as const),
  ...(["ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"] as const),
];

/** Whether `raised` can convert the model to this version. It does not convert subgraphs, so a model with one cannot be raised. */
export function canRaise(model: Model, version: number): boolean {
  const opset = opsetOf(model);
  if (opset >= version) return true;
  const changed = CHANGED.filter((change) => opset < change.version && change.version <= version).flatMap(({ ops }) => ops);
  return opset >= OLDEST && model.graph.nodes.every((node) => !isControlFlow(node) && !isOp(node, ...changed));
}

/** The model in this version of the standard operator set, or unchanged if its version is not older. Requires `canRaise`. */
export function raised(model: Model, version: number): Model {
  if (opsetOf(model) >= version) return model;
  const crosses18 = opsetOf(model) < 18 && version >= 18;
  const graph = crosses18 ? rewrite(model.graph, toVersion18) : model.graph;
  const opsets = new Map([...model.opsets].map(([domain, own]) => [domain, isOfStandardDomain({ domain }) ? version : own]));
  // The IR versions that came with these operator sets; the newest that is emitted is 10.
  return { ...model, graph, opsets, irVersion: Math.max(model.irVersion, version >= 21 ? 10 : version >= 19 ? 9 : 8) };
}

/** In version 18 the axes of reductions became an operand, and a Split without sizes must state the number of parts. */
function toVersion18(node: Node): ReturnType<Parameters<typeof rewrite>[1]> {
  const attributes = new Map(node.attributes);
  let { inputs } = node;
  const axes = isOp(node, ...REDUCTIONS) ? intsAttribute(node, "axes") : undefined;
  if (axes) {
    attributes.delete("axes");
    inputs = [node.inputs[0], constant("axes", tensorOf("int64", [axes.length], axes))];
  } else if (isOp(node, "Split") && !node.inputs[1]) {
    attributes.set("num_outputs", { kind: "int", value: BigInt(node.outputs.length) });
  } else return undefined;
  const made = makeNode({ ...node, inputs, attributes });
  return { nodes: [made], outputs: made.outputs };
}
