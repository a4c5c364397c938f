/** Facts about a graph, computed when asked and kept beside it: uses, dependence on inputs, dominance. All linear; dominance in what paths bypass, too. */
import type { Graph, Node, Value } from "./graph.js";
import { isShapeOnly } from "./ops.js";

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

/** The bit set of the sources that a value's numbers depend on; shapes are no dependence, as they are fixed when the model is bound. */
export type Dependence = (value: Value | undefined) => number;

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

/**
 * The immediate dominator of every value that depends on `source`: the last value that every path from the source to it
 * goes through (Cooper, Harvey, Kennedy 2001, on a graph without cycles: one walk in topological order).
 */
export function dominators(graph: Graph, source: Value): ReadonlyMap<Value, Value> {
  const parent = new Map<Value, Value>();
  const depth = new Map<Value, number>([[source, 0]]);
  const depthOf = (value: Value): number => depth.get(value) ?? 0;
  const nearestCommon = (a: Value, b: Value): Value => {
    while (a !== b) {
      const deeper = depthOf(a) >= depthOf(b) ? a : b;
      const up = parent.get(deeper);
      if (!up) throw new Error("internal: dominator tree without a common root");
      if (deeper === a) a = up;
      else b = up;
    }
    return a;
  };
  for (const node of graph.nodes) {
    if (isShapeOnly(node)) continue;
    let meet: Value | undefined;
    for (const value of operands(node)) {
      if (depth.has(value)) meet = meet ? nearestCommon(meet, value) : value;
    }
    if (!meet) continue;
    for (const output of node.outputs) {
      parent.set(output, meet);
      depth.set(output, depthOf(meet) + 1);
    }
  }
  return parent;
}

/**
 * For every node that an output needs, the node that every path from it to an output goes through next; none where paths
 * part for good. The same walk as `dominators`, backwards.
 */
export function postDominators(graph: Graph): ReadonlyMap<Node, Node | undefined> {
  const parent = new Map<Node, Node | undefined>();
  const depth = new Map<Node, number>();
  const readers = uses(graph);
  const exits = new Set(graph.outputs.map(({ value }) => value));
  const nearestCommon = (a: Node | undefined, b: Node | undefined): Node | undefined => {
    while (a !== b && a && b) {
      if ((depth.get(a) ?? 0) >= (depth.get(b) ?? 0)) a = parent.get(a);
      else b = parent.get(b);
    }
    return a === b ? a : undefined;
  };
  for (let i = graph.nodes.length - 1; i >= 0; i--) {
    const node = graph.nodes[i];
    if (!node) continue;
    let meet: Node | undefined;
    let isNeeded = false;
    for (const output of node.outputs) {
      const next = (readers.get(output) ?? []).filter((reader) => parent.has(reader) && !isShapeOnly(reader));
      if (exits.has(output)) {
        meet = undefined;
        isNeeded = true;
      }
      for (const reader of next) {
        meet = isNeeded ? nearestCommon(meet, reader) : reader;
        isNeeded = true;
      }
    }
    if (!isNeeded) continue;
    parent.set(node, meet);
    depth.set(node, meet ? (depth.get(meet) ?? 0) + 1 : 0);
  }
  return parent;
}
