/**
 * Gives every value its type: by the rules of the operators, and where these say nothing, as the runtime infers it. Every branch gets its
 * number of channels.
 */
import { operands } from "../ir/analysis.js";
import type { DitView } from "../ir/dit.js";
import { type Graph, intAttribute, isOp, makeNode, type Model, type Node, type Value, withGraph } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { isFixed, resultTypes } from "../ir/type-rules.js";
import { elementTypeOf, isRuntimeType, sameType, type TensorType } from "../ir/types.js";
import type { Pass, Questions } from "./pass.js";

export default {
  name: "infer-types",
  summary: "give every value its type",
  preserves: "bits",
  async run(model, { evaluator }) {
    const derived = withGraph(model, typed(model.graph));
    const typedModel = withGraph(model, await answered(derived, evaluator));
    const dit = typedModel.dit && withChannels(typedModel.dit, typedModel.graph);
    return dit === typedModel.dit ? typedModel : { ...typedModel, dit };
  },
} satisfies Pass<Questions>;

/** The same by rules alone, for graphs of which the runtime may have no kernel for every node yet. */
export const deriveTypes = {
  name: "infer-types",
  summary: "give every value its type, as far as rules do",
  preserves: "bits",
  run: (model) => withGraph(model, typed(model.graph)),
} satisfies Pass<Questions>;

/** The graph with the types that rules give, else those of `known`, else those that are there. */
function typed(graph: Graph, known: ReadonlyMap<Value, TensorType> = new Map()): Graph {
  return rewrite(graph, (node, original) => {
    const rules = resultTypes(node);
    const types = original.outputs.map((value, i) => {
      const rule = rules[i];
      return rule && rule !== "misfit" ? rule : (known.get(value) ?? value.type);
    });
    if (original.outputs.every((value, i) => sameType(value.type, types[i]))) return undefined;
    const made = makeNode({ ...node, outputs: original.outputs.map((value, i) => ({ ...value, type: types[i] })) });
    return { nodes: [made], outputs: made.outputs };
  });
}

/** The graph with the runtime's answers where rules leave a type open, and with what rules make of these. */
async function answered(model: Model, evaluator: Questions["evaluator"]): Promise<Graph> {
  const { graph } = model;
  const open = openValues(graph);
  return open.length === 0 ? graph : typed(graph, await evaluator.types(model, open));
}

/** The results without a fixed type that the runtime can be asked for. */
function openValues(graph: Graph): readonly Value[] {
  /** Results behind an `If`. The runtime refuses a model one side of which does not fit the shapes, whichever side will be taken (`decide`). */
  const undecided = new Set<Value>();
  /** Results that may be of an element type that the runtime does not return. */
  const others = new Set<Value>();
  return graph.nodes.flatMap((node) => {
    const isUndecided = isOp(node, "If") || operands(node).some((value) => undecided.has(value));
    const isOther = mayBeOther(node, others);
    return node.outputs.filter((value) => {
      if (isUndecided) undecided.add(value);
      if (value.name === "" || isFixed(value.type)) return false;
      if (isOther) others.add(value);
      return !isUndecided && !isOther;
    });
  });
}

/** Whether a result may be of an element type that the runtime does not return: it is cast to one, or made of one. */
function mayBeOther(node: Node, others: ReadonlySet<Value>): boolean {
  const isOther = (value: Value): boolean => others.has(value) || (value.type !== undefined && !isRuntimeType(value.type.elem));
  if (isOp(node, "Shape", "Size")) return false;
  const cast = isOp(node, "Cast") ? elementTypeOf(intAttribute(node, "to", 0)) : undefined;
  if (cast) return !isRuntimeType(cast);
  // The scale, in the type of the result, comes second.
  if (isOp(node, "DequantizeLinear")) return node.inputs[1] !== undefined && isOther(node.inputs[1]);
  return operands(node).some(isOther);
}

function withChannels(view: DitView, { marks }: Graph): DitView {
  const last = new Map(marks.map(({ site, value }) => [site, value.type?.shape?.at(-1)]));
  const branches = view.branches.map((branch) => {
    const channels = last.get(branch.site);
    return typeof channels === "number" && channels !== branch.channels ? { ...branch, channels } : branch;
  });
  return branches.every((branch, i) => branch === view.branches[i]) ? view : { ...view, branches };
}
