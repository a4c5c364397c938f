/**
 * What cuts around blocks hold, derived from the graph alone. Artifact and loop take the same values from lifting: that they agree does
 * not say that these values are what is added to one stream.
 */
import { dependence, operands } from "../../ir/analysis.js";
import { ditView, isOp, type Model, type Node, type Value } from "../../ir/graph.js";
import { carriedOperand, type Dependence, isAttentionCore } from "../../ir/ops.js";

/**
 * The sites of blocks whose value is not the end of a stream minus its front. A front goes on into the end by sums, layers and norms;
 * through attention alone it would be another stream's.
 */
export function strayCuts(model: Model): readonly string[] {
  const { graph } = model;
  const blocks = new Set(ditView(model).branches.flatMap(({ kind, site }) => (kind === "block" ? [site] : [])));
  const dependsOn = dependence(graph, new Map(graph.inputs.map((input) => [input, 1])));
  const places = new Map(graph.nodes.map((node, place) => [node, place]));
  return graph.marks.flatMap(({ site, value: { producer } }) => {
    const [end, start] = isOp(producer, "Sub") ? (producer?.inputs ?? []) : [];
    const isOfOneStream = end !== undefined && start !== undefined && goesOn(start, end, places, dependsOn);
    return blocks.has(site) && !isOfOneStream ? [site] : [];
  });
}

/** Whether `start`, or what it was before it was moved into another layout, leads to `end` past all attention. */
function goesOn(start: Value, end: Value, places: ReadonlyMap<Node, number>, dependsOn: Dependence): boolean {
  const placeOf = ({ producer }: Value): number => (producer && places.get(producer)) ?? -1;
  const fronts = new Set<Value>();
  for (let at: Value | undefined = start; at; at = at.producer && carriedOperand(at.producer)) fronts.add(at);
  const first = Array.from(fronts, placeOf).reduce((least, place) => Math.min(least, place));
  const seen = new Set<Node>();
  const open = [end];
  for (let at = open.pop(); at; at = open.pop()) {
    if (fronts.has(at)) return true;
    const { producer } = at;
    if (!producer || seen.has(producer) || placeOf(at) < first || isAttentionCore(producer, dependsOn)) continue;
    seen.add(producer);
    for (const value of operands(producer)) open.push(value);
  }
  return false;
}
