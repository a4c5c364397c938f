/** Puts the side of an `If` that is taken in its place, once its condition is a constant: most often sizes decide, and they are known. */
import { constantOf } from "../ir/constants.js";
import { type Graph, isOp, type Node, type Value, withGraph } from "../ir/graph.js";
import { readSubgraph } from "../ir/onnx/index.js";
import { rewrite } from "../ir/rewrite.js";
import { tensorNumbers } from "../ir/tensor.js";
import { untyped } from "./bind.js";
import type { Pass, Questions } from "./pass.js";

export default {
  name: "decide",
  summary: "take the side of an If whose condition is known",
  preserves: "bits",
  // The next pass, `infer-types`, gives the results of a side their types.
  leavesUntyped: true,
  run(model) {
    const inputs = new Set(model.graph.inputs);
    const graph = rewrite(model.graph, (node) => {
      const side = takenSide(node, inputs);
      return side && { nodes: side.nodes, outputs: side.outputs.map(({ value }) => value) };
    });
    return withGraph(model, graph);
  },
} satisfies Pass<Questions>;

function takenSide(node: Node, inputs: ReadonlySet<Value>): Graph | undefined {
  const [condition] = node.inputs;
  // The default of an input is no constant, as the caller may give another value.
  const data = isOp(node, "If") && condition && !inputs.has(condition) ? constantOf(condition) : undefined;
  const side = data && node.attributes.get(tensorNumbers(data)[0] === 0 ? "else_branch" : "then_branch");
  const graph = side?.kind === "opaque" ? readSubgraph(side.bytes, node.captures) : side?.kind === "graph" ? side.value : undefined;
  return graph && untyped(graph);
}
