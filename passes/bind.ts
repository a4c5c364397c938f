/** Gives every input a fixed shape. */
import { inputValue, makeNode, type Value, withGraph } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { type Dim, staticShape } from "../ir/types.js";
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
    // The exporter's types of results may contain symbolic dimensions that now have a size, so they are dropped.
    const bare = rewrite(
      graph,
      (node, original) => {
        if (original.outputs.every(({ type }) => staticShape(type)) || original.outputs.every(({ type }) => !type)) return undefined;
        const untyped = makeNode({ ...node, outputs: original.outputs.map(({ name }) => ({ name })) });
        return { nodes: [untyped], outputs: untyped.outputs };
      },
      substitution,
    );
    return withGraph(model, bare);
  },
} satisfies Pass<BindContext>;

function bound(dim: Dim, input: string, axis: number, sizes: ReadonlyMap<string, number>): number {
  const size = typeof dim === "string" ? sizes.get(dim) : dim;
  if (typeof size !== "number") throw unboundDim(typeof dim === "string" ? dim : null, input, axis);
  return size;
}
