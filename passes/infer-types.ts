/** Gives every value the type that the runtime infers for it, and every branch its number of channels. */
import type { DitView } from "../ir/dit.js";
import { type Graph, makeNode, withGraph } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { sameType } from "../ir/types.js";
import type { Pass, Questions } from "./pass.js";

export default {
  name: "infer-types",
  summary: "ask the runtime for the type of every value",
  preserves: "bits",
  async run(model, { evaluator }) {
    const types = await evaluator.types(model);
    const graph = rewrite(model.graph, (node, original) => {
      if (original.outputs.every((value) => sameType(value.type, types.get(value)))) return undefined;
      const typed = makeNode({ ...node, outputs: original.outputs.map((value) => ({ ...value, type: types.get(value) ?? value.type })) });
      return { nodes: [typed], outputs: typed.outputs };
    });
    const typed = withGraph(model, graph);
    const dit = typed.dit && withChannels(typed.dit, graph);
    return dit === typed.dit ? typed : { ...typed, dit };
  },
} satisfies Pass<Questions>;

function withChannels(view: DitView, { marks }: Graph): DitView {
  const last = new Map(marks.map(({ site, value }) => [site, value.type?.shape?.at(-1)]));
  const branches = view.branches.map((branch) => {
    const channels = last.get(branch.site);
    return typeof channels === "number" && channels !== branch.channels ? { ...branch, channels } : branch;
  });
  return branches.every((branch, i) => branch === view.branches[i]) ? view : { ...view, branches };
}
