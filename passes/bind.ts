/** Gives every input a fixed shape. */
import { type Graph, inputValue, isOfStandardDomain, makeNode, type Node, type Value, withGraph } from "../ir/graph.js";
import { rewrite, type Substitution } from "../ir/rewrite.js";
import { type Dim, isRuntimeType, staticShape } from "../ir/types.js";
import { unboundDim } from "../schedules/diagnostics.js";
import type { BindContext, Pass } from "./pass.js";

export default {
  name: "bind",
  summary: "fix the shape of every input",
  preserves: "bits",
  // The next pass, `infer-types`, gives results their types.
  leavesUntyped: true,
  run(model, { sizes }) {
    const { graph } = model;
    const substitution = new Map<Value, Value>();
    for (const input of graph.inputs) {
      const shape = input.type?.shape?.map((dim, axis) => bound(dim, input.name, axis, sizes));
      if (input.type && shape && !staticShape(input.type))
        substitution.set(input, inputValue(input.name, { elem: input.type.elem, shape }));
    }
    return withGraph(model, untyped(graph, substitution));
  },
} satisfies Pass<BindContext>;

/**
 * The graph without what its file says of the types of results: that may name dimensions that have a size by now, or be out of date.
 * `start` as in `rewrite`.
 */
export function untyped(graph: Graph, start?: Substitution): Graph {
  return rewrite(
    graph,
    (node, original) => {
      if (original.outputs.every((value) => isLeft(original, value))) return undefined;
      const outputs = original.outputs.map((value) => (isLeft(original, value) ? value : { ...value, type: undefined }));
      const bare = makeNode({ ...node, outputs });
      return { nodes: [bare], outputs: bare.outputs };
    },
    start,
  );
}

/** Whether the type of a result stays: there is none, or it is fixed and nobody can be asked for it. */
function isLeft(node: Node, { type }: Value): boolean {
  return !type || (staticShape(type) !== undefined && !(isOfStandardDomain(node) && isRuntimeType(type.elem)));
}

function bound(dim: Dim, input: string, axis: number, sizes: ReadonlyMap<string, number>): number {
  const size = typeof dim === "string" ? sizes.get(dim) : dim;
  if (typeof size !== "number") throw unboundDim(typeof dim === "string" ? dim : null, input, axis);
  return size;
}
