/** The two walks over a graph that passes are written with: `rewrite` forward, `sweep` backward. Both are linear. */
import { freeValues, operands } from "./analysis.js";
import { type Attribute, type Graph, makeNode, type Node, type Port, type Value } from "./graph.js";

/** What replaces a node: the nodes in its place, and a value for each of its outputs. */
export interface Replacement {
  readonly nodes: readonly Node[];
  readonly outputs: readonly Value[];
}

/** Maps old values to new ones. A value that is not in it stays. */
export type Substitution = ReadonlyMap<Value, Value>;

/**
 * Walks the nodes in order, without those of subgraphs. Each node is first given the current values of its inputs and then passed to
 * `visit`, which returns a replacement, or undefined to keep the node. Outputs and marks follow. Returns the same graph if nothing changed.
 * `start` substitutes values before the first node: inputs, mostly.
 */
export function rewrite(graph: Graph, visit: (node: Node, original: Node) => Replacement | undefined, start?: Substitution): Graph {
  const current = new Map<Value, Value>(start);
  const nodes: Node[] = [];
  let changed = current.size > 0;
  for (const original of graph.nodes) {
    const node = substituteOperands(original, current);
    const replacement = visit(node, original);
    for (const made of replacement?.nodes ?? [node]) nodes.push(made);
    const outputs = replacement?.outputs ?? node.outputs;
    if (node !== original || replacement) {
      changed = true;
      for (const [i, output] of original.outputs.entries()) {
        const next = outputs[i];
        if (!next) throw new Error(`internal: output ${i} of ${original.opType} '${original.name}' has no replacement`);
        if (next !== output) current.set(output, next);
      }
    }
  }
  if (!changed) return graph;
  const at = (value: Value): Value => current.get(value) ?? value;
  return {
    ...graph,
    inputs: graph.inputs.map(at).filter((value, i) => value === graph.inputs[i] || (!value.data && !value.producer)),
    outputs: graph.outputs.map((port) => substitutePort(port, at)),
    nodes,
    marks: graph.marks.map((mark) => ({ ...mark, value: at(mark.value) })),
  };
}

function substituteOperands(node: Node, current: Substitution): Node {
  if (!operands(node).some((value) => current.has(value))) return node;
  const at = (value: Value): Value => current.get(value) ?? value;
  return makeNode({
    ...node,
    inputs: node.inputs.map((value) => value && at(value)),
    captures: node.captures.map((port) => substitutePort(port, at)),
    attributes: substituteAttributes(node, at),
  });
}

/** The attributes of a node with the values that its subgraphs read replaced by those of `at`. */
export function substituteAttributes({ attributes, subgraphs }: Node, at: (value: Value) => Value): Node["attributes"] {
  if (subgraphs.length === 0) return attributes;
  return new Map(Array.from(attributes, ([name, attribute]) => [name, substituteAttribute(attribute, at)]));
}

function substituteAttribute(attribute: Attribute, at: (value: Value) => Value): Attribute {
  if (attribute.kind !== "graph") return attribute;
  const { value: graph } = attribute;
  const pairs = freeValues(graph).map((value) => [value, at(value)] as const);
  const changed = new Map(pairs.filter(([value, next]) => next !== value));
  return { kind: "graph", value: rewrite(graph, () => undefined, changed) };
}

function substitutePort(port: Port, at: (value: Value) => Value): Port {
  return { name: port.name, value: at(port.value) };
}

/** What `sweep` leaves of a graph. Passes and their checks ask for the same ones. */
const swept = new WeakMap<Graph, Graph>();

/** Drops the nodes that no output needs, and the marks of values that are gone. Returns the same graph if all are needed. */
export function sweep(graph: Graph): Graph {
  const known = swept.get(graph);
  if (known) return known;
  const live = liveOf(graph);
  swept.set(graph, live).set(live, live);
  return live;
}

function liveOf(graph: Graph): Graph {
  const needed = neededNodes(graph);
  if (needed.size === graph.nodes.length) return graph;
  return {
    ...graph,
    nodes: graph.nodes.filter((node) => needed.has(node)),
    marks: graph.marks.filter(({ value }) => !value.producer || needed.has(value.producer)),
  };
}

function neededNodes(graph: Graph): Set<Node> {
  const needed = new Set<Node>();
  const need = (value: Value | undefined): void => {
    if (value?.producer) needed.add(value.producer);
  };
  for (const { value } of graph.outputs) need(value);
  for (let i = graph.nodes.length - 1; i >= 0; i--) {
    const node = graph.nodes[i];
    if (!node || !needed.has(node)) continue;
    for (const value of operands(node)) need(value);
  }
  return needed;
}
