/**
 * Removes casts to the type that is there, as converters to half precision leave them. ONNX Runtime 1.30 cannot load some of them without
 * its optimiser, and emitted models are loaded without it.
 */
import { isOp, withGraph } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { sameType } from "../ir/types.js";
import type { Pass, Questions } from "./pass.js";

export default {
  name: "drop-casts",
  summary: "remove casts to the type that is there",
  preserves: "bits",
  run(model) {
    const { graph } = model;
    // The value of a branch stays a value of its own.
    const marked = new Set(graph.marks.map(({ value }) => value));
    const shorter = rewrite(graph, (node, original) => {
      const [value] = node.inputs;
      const [output] = original.outputs;
      const isIdle = isOp(node, "Cast", "CastLike") && value?.type && output && !marked.has(output) && sameType(value.type, output.type);
      return isIdle ? { nodes: [], outputs: [value] } : undefined;
    });
    return withGraph(model, shorter);
  },
} satisfies Pass<Questions>;
