/** Operators between latent and prediction that are in no table, and what they cost: what was found is only as good as their knowledge. */
import { allNodes, dependence } from "./analysis.js";
import { stepCost, totalMacs, unsavedBehind } from "./cost.js";
import { ditView, type Graph, isOfStandardDomain, type Model, type Node } from "./graph.js";
import { isKnown } from "./ops.js";
import { sweep } from "./rewrite.js";

/** The nodes from the latent to the prediction, themselves or in their subgraphs, whose operator is not known. */
export function unknownBetween(graph: Graph, latent: string, prediction: string): readonly Node[] {
  const live = sweep({ ...graph, outputs: graph.outputs.filter(({ name }) => name === prediction) });
  const follows = dependence(graph, new Map(graph.inputs.filter(({ name }) => name === latent).map((input) => [input, 1])));
  return live.nodes.filter((node) => isUnknown(node) && node.outputs.some((output) => follows(output) !== 0));
}

function isUnknown(node: Node): boolean {
  return !isKnown(node) || node.subgraphs.some((graph) => allNodes(graph).some((inner) => !isKnown(inner)));
}

/** A sentence that names these nodes of a lifted model; undefined where there are none. */
export function unknownWarning(model: Model): string | undefined {
  const { latent, prediction } = ditView(model);
  const nodes = unknownBetween(model.graph, latent, prediction);
  if (nodes.length === 0) return undefined;
  const all = totalMacs(stepCost(model).total);
  const unsaved = totalMacs(unsavedBehind(model, nodes));
  const share = ((100 * unsaved) / all).toFixed(0);
  const cost = all > 0 && unsaved > 0 ? `, and ${share} % of a step's MACs are behind them and in no branch` : "";
  return `${unknownNamed(nodes)}. Branches may be missing there: what these nodes compute is not counted${cost}.`;
}

/** `3 nodes between latent and prediction have operators that are not known here (my.domain.Foo)` */
export function unknownNamed(nodes: readonly Node[]): string {
  const names = new Set(
    nodes
      .flatMap((node) => [node, ...node.subgraphs.flatMap(allNodes)])
      .filter((node) => !isKnown(node))
      .map((node) => (isOfStandardDomain(node) ? node.opType : `${node.domain}.${node.opType}`)),
  );
  const [count, have] = nodes.length === 1 ? ["1 node", "has an operator that is"] : [`${nodes.length} nodes`, "have operators that are"];
  return `${count} between latent and prediction ${have} not known here (${[...names].sort().join(", ")})`;
}
