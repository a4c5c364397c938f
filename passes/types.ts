/** Gives every value the type that the runtime infers for it. */
import { makeNode } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { sameType } from "../ir/types.js";
import type { Pass } from "./index.js";

export default {
  name: "types",
  summary: "ask the runtime for the type of every value",
  preserves: "bits",
  async run(model, { evaluator }) {
    const types = await evaluator.types(model);
    const graph = rewrite(model.graph, (node, original) => {
      if (original.outputs.every((value) => sameType(value.type, types.get(value)))) return undefined;
      const typed = makeNode({ ...node, outputs: original.outputs.map((value) => ({ ...value, type: types.get(value) ?? value.type })) });
      return { nodes: [typed], outputs: typed.outputs };
    });
    return { ...model, graph };
  },
} satisfies Pass;
