/**
 * Spells sums out as additions of two values, which is how lifting knows residual sums: a Sum of several, and the sum with an activation
 * that the runtime's optimiser moves into a Gemm.
 */
import { Builder } from "../ir/build.js";
import { type Attribute, floatAttribute, isOp, makeNode, type Node, type Value, withGraph } from "../ir/graph.js";
import { type Replacement, rewrite } from "../ir/rewrite.js";
import { isFixed } from "../ir/type-rules.js";
import { sameShape } from "../ir/types.js";
import type { Pass, Questions } from "./pass.js";

export default {
  name: "spell-sums",
  summary: "spell sums out as additions of two values",
  preserves: "rounding",
  run: (model) =>
    withGraph(
      model,
      rewrite(model.graph, (node) => (isOp(node, "Sum") ? additions(node) : isOp(node, "Gemm") ? withoutSum(node) : undefined)),
    ),
} satisfies Pass<Questions>;

/** A Sum as additions from left to right, which is its order. */
function additions(node: Node): Replacement | undefined {
  const [output] = node.outputs;
  const terms = node.inputs.flatMap((value) => value ?? []);
  const [first, ...others] = terms;
  // Terms that are smaller than their sum would need a type for each partial sum.
  if (!output?.type || !first || others.length === 0 || !terms.every((term) => isAsLarge(term, output))) return undefined;
  const build = new Builder(node.scope);
  const { name, type } = output;
  const sum = others.reduce(
    (sum, term, i) => build.op("Add", [sum, term], i === others.length - 1 ? name : `${name}/sum${i}`, type),
    first,
  );
  return { nodes: build.nodes, outputs: [sum] };
}

/** A Gemm whose third operand is computed and as large as its result: the product, and the sum. */
function withoutSum(node: Node): Replacement | undefined {
  const [left, right, added] = node.inputs;
  const [output] = node.outputs;
  if (!added?.producer || !output || floatAttribute(node, "beta", 1) !== 1 || !isAsLarge(added, output)) return undefined;
  const attributes = new Map<string, Attribute>([...node.attributes].filter(([name]) => name !== "beta"));
  const product = makeNode({
    ...node,
    inputs: [left, right],
    outputs: [{ name: `${output.name}/product`, type: output.type }],
    attributes,
  });
  const sum = makeNode({ opType: "Add", name: output.name, scope: node.scope, inputs: [product.outputs[0], added], outputs: [output] });
  return { nodes: [product, sum], outputs: sum.outputs };
}

function isAsLarge(value: Value, of: Value): boolean {
  return isFixed(value.type) && isFixed(of.type) && sameShape(value.type.shape, of.type.shape);
}
