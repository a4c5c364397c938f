/** Takes apart what two calls of the network share of attention, where one of them keeps keys and values and the other must not see these. */
import { branchOwners } from "../../ir/cost.js";
import { type Graph, makeNode, type Mark, type Node, type Value } from "../../ir/graph.js";
import { ATTENDED, type Attended, type TokenValue } from "../../ir/own-tokens.js";
import { rewrite } from "../../ir/rewrite.js";

/** The calls that keep keys, and the values of their own in place of shared ones. */
interface CallApart {
  readonly half: Mark["half"];
  readonly step: number;
  readonly own: Map<Value, Value>;
}

/**
 * The graph in which each of these branches has keys and values, and what is made of them, of its own call; and where they are now. Calls share what
 * does not depend on conditions (`cse`).
 */
export function apart(
  graph: Graph,
  attended: ReadonlyMap<Mark, Attended>,
): { readonly graph: Graph; readonly attended: ReadonlyMap<Mark, Attended> } {
  const owners = branchOwners(graph);
  const calls = new Map<string, CallApart>();
  const callOf = ({ half, step }: Mark): CallApart | undefined => calls.get(`${half} ${step}`);
  /** The nodes that make keys and values. */
  const begun = new Map<Node, CallApart[]>();
  for (const [mark, own] of attended) {
    const call = callOf(mark) ?? { half: mark.half, step: mark.step, own: new Map<Value, Value>() };
    calls.set(`${mark.half} ${mark.step}`, call);
    for (const part of ATTENDED) {
      const { producer } = own[part].value;
      if (producer) begun.set(producer, [...(begun.get(producer) ?? []), call]);
    }
  }
  const touched = new Map<CallApart, Set<Value>>(Array.from(calls.values(), (call) => [call, new Set<Value>()]));
  const made = rewrite(graph, (node, original) => {
    const marks = [...(owners.get(original) ?? [])];
    const nodes: Node[] = [];
    for (const call of new Set(marks.flatMap((mark) => callOf(mark) ?? []))) {
      const values = touched.get(call);
      if (!begun.get(original)?.includes(call) && !original.inputs.some((value) => value && values?.has(value))) continue;
      for (const output of original.outputs) values?.add(output);
      const inputs = original.inputs.map((value, i) => (value && call.own.get(value)) ?? node.inputs[i]);
      const isShared = marks.some(({ half, step }) => half !== call.half || step !== call.step);
      if (!isShared && inputs.every((value, i) => value === node.inputs[i])) continue;
      const own = makeNode({ ...node, inputs });
      if (!isShared) return { nodes: [own], outputs: own.outputs };
      for (const [i, output] of original.outputs.entries()) call.own.set(output, own.outputs[i] ?? output);
      nodes.push(own);
    }
    return nodes.length === 0 ? undefined : { nodes: [node, ...nodes], outputs: node.outputs };
  });
  if (made === graph) return { graph, attended };
  const marks = new Map(graph.marks.map((mark, i) => [mark, made.marks[i] ?? mark]));
  const moved = (mark: Mark, { value, axis }: TokenValue): TokenValue => ({ value: callOf(mark)?.own.get(value) ?? value, axis });
  return {
    graph: made,
    attended: new Map(
      Array.from(attended, ([mark, { keys, values }]) => [
        marks.get(mark) ?? mark,
        { keys: moved(mark, keys), values: moved(mark, values) },
      ]),
    ),
  };
}
