/** Facts about a graph, computed when asked and kept beside it: uses, order of execution, dependence on inputs. All linear. */
import type { Graph, Node, Value } from "./graph.js";
import { isShapeOnly, type Dependence } from "./ops.js";

/** The values that a node reads, by its subgraphs too. */
export function operands(node: Node): Value[] {
  const values: Value[] = [];
  for (const value of node.inputs) if (value) values.push(value);
  for (const { value } of node.captures) values.push(value);
  return values;
}

/** Who reads a value; a node that reads it twice counts twice. Outputs of the graph are not counted. */
export function uses(graph: Graph): ReadonlyMap<Value, readonly Node[]> {
  const readers = new Map<Value, Node[]>();
  for (const node of graph.nodes) {
    for (const value of operands(node)) {
      const list = readers.get(value);
      if (list) list.push(node);
      else readers.set(value, [node]);
    }
  }
  return readers;
}

/**
 * The nodes as ONNX Runtime runs them: from the outputs back, and of the nodes that a node reads the one that stands last goes first
 * (`ReverseDFSFrom`, onnxruntime/core/graph/graph.cc). Nodes that no output needs are left out.
 */
export function executionOrder({ nodes, outputs }: Graph): readonly Node[] {
  const places = new Map(nodes.map((node, place) => [node, place]));
  const byPlace = (values: readonly Value[]): Node[] =>
    values.flatMap(({ producer }) => producer ?? []).sort((a, b) => (places.get(a) ?? 0) - (places.get(b) ?? 0));
  const order: Node[] = [];
  const seen = new Set<Node>();
  const pending = byPlace(outputs.map(({ value }) => value)).map((node) => ({ node, isRead: false }));
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { node, isRead } = next;
    if (isRead) order.push(node);
    else if (!seen.has(node)) {
      seen.add(node);
      pending.push({ node, isRead: true });
      for (const read of byPlace(operands(node))) pending.push({ node: read, isRead: false });
    }
  }
  return order;
}

/** `sources` gives the bits of inputs; inputs that are not in it have none. */
export function dependence(graph: Graph, sources: ReadonlyMap<Value, number>): Dependence {
  const bits = new Map<Value, number>(sources);
  for (const node of graph.nodes) {
    if (isShapeOnly(node)) continue;
    let sum = 0;
    for (const value of operands(node)) sum |= bits.get(value) ?? 0;
    if (sum !== 0) for (const output of node.outputs) bits.set(output, sum);
  }
  return (value) => (value ? (bits.get(value) ?? 0) : 0);
}
