/** Gives every input a fixed shape. */
import { batchAsDim, batchMismatch, unboundDim } from "../schedules/diagnostics.js";
import { unknownName } from "../ir/diagnostics.js";
import { ditView, inputValue, makeNode, type Value, withGraph } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { type Dim, staticShape } from "../ir/types.js";
import type { Pass, PassContext } from "./pass.js";

export default {
  name: "bind",
  summary: "fix the shape of every input",
  preserves: "bits",
  // Results get their types from `infer-types`, behind it.
  leavesUntyped: true,
  run(model, context) {
    const { graph } = model;
    const latent = graph.inputs.find(({ name }) => name === ditView(model).latent);
    const batch = latent?.type?.shape?.[0] ?? null;
    const sizes = sizesOf(batch, context);
    const free = new Set(graph.inputs.flatMap(({ type }) => type?.shape ?? []).filter((dim) => typeof dim === "string" && dim !== batch));
    for (const name of context.dims.keys()) {
      if (name === batch) throw batchAsDim(name);
      if (!free.has(name)) throw unknownName("symbolic dimension", name, [...free].map(String));
    }
    const substitution = new Map<Value, Value>();
    for (const input of graph.inputs) {
      const shape = input.type?.shape?.map((dim, axis) => bound(dim, input.name, axis, sizes));
      if (input.type && shape && !staticShape(input.type))
        substitution.set(input, inputValue(input.name, { elem: input.type.elem, shape }));
    }
    // The exporter's types of other values may name dimensions that are numbers now.
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
} satisfies Pass;

/** Sizes of the symbolic dimensions, that of the batch among them. */
function sizesOf(batch: Dim, context: PassContext): ReadonlyMap<string, number> {
  const rows = context.guidance.form === "batched" ? 2 * context.batch : context.batch;
  if (typeof batch === "number" && batch !== rows) throw batchMismatch(batch, context.batch, context.guidance.form);
  return new Map(typeof batch === "string" ? [...context.dims, [batch, rows] as const] : context.dims);
}

function bound(dim: Dim, input: string, axis: number, sizes: ReadonlyMap<string, number>): number {
  const size = typeof dim === "string" ? sizes.get(dim) : dim;
  if (typeof size !== "number") throw unboundDim(typeof dim === "string" ? dim : null, input, axis);
  return size;
}
