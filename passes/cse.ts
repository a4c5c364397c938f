/** Common subexpressions: of nodes that compute the same, the first one stays; equal small constants become one. */
import { attributeKey, constantKey } from "../ir/digest.js";
import { type Graph, type Node, type Value, withGraph } from "../ir/graph.js";
import { isCommutative, isControlFlow, isNondeterministic, unpacksWeights } from "../ir/ops.js";
import { type Replacement, rewrite, type Substitution } from "../ir/rewrite.js";
import type { Pass } from "./pass.js";

export default {
  name: "cse",
  summary: "compute equal expressions once",
  preserves: "bits",
  isOptional: true,
  run: (model) => withGraph(model, shareNodes(model.graph, equalConstants(model.graph))),
} satisfies Pass;

/** Maps constants to the first of those that are equal. */
function equalConstants(graph: Graph): Substitution {
  const first = new Map<string, Value>();
  const substitution = new Map<Value, Value>();
  const seen = new Set<Value>();
  for (const node of graph.nodes) {
    for (const value of node.inputs) {
      if (!value?.data || seen.has(value)) continue;
      seen.add(value);
      const key = constantKey(value.data);
      const earlier = first.get(key);
      if (earlier) substitution.set(value, earlier);
      else first.set(key, value);
    }
  }
  return substitution;
}

function shareNodes(graph: Graph, constants: Substitution): Graph {
  const ids = new Map<Value, number>();
  const idOf = (value: Value | undefined): number => {
    if (!value) return -1;
    const known = ids.get(value);
    if (known !== undefined) return known;
    ids.set(value, ids.size);
    return ids.size - 1;
  };
  const first = new Map<string, Node>();
  // The value of a branch is never shared: the plan may cache it, and other readers must not see the cached value.
  const marked = new Set(graph.marks.map(({ value }) => value.producer));
  const share = (node: Node, original: Node): Replacement | undefined => {
    if (isNondeterministic(node) || isControlFlow(node) || node.captures.length > 0 || marked.has(original)) return undefined;
    if (unpacksWeights(node)) return undefined;
    const inputs = node.inputs.map(idOf);
    if (isCommutative(node)) inputs.sort((a, b) => a - b);
    const attributes = [...node.attributes]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, attribute]) => `${name}=${attributeKey(attribute)}`);
    const key = [node.domain, node.opType, inputs.join(), node.outputs.length, ...attributes].join("|");
    const earlier = first.get(key);
    if (earlier) return { nodes: [], outputs: earlier.outputs };
    first.set(key, node);
    return undefined;
  };
  return rewrite(graph, share, constants);
}
