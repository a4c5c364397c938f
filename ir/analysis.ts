/** Analyses of a graph, computed on demand: operands, uses, order of execution, dependence on inputs. All are linear. */
import { type Graph, isOp, type Node, type Value } from "./graph.js";
import { isShapeOnly, type Dependence } from "./ops.js";

/** The values that a node reads, including those that its subgraphs read. */
export function operands(node: Node): readonly Value[] {
  // Of most nodes they are a list that is there already.
  if (node.captures.length === 0 && node.subgraphs.length === 0 && node.inputs.every((value) => value !== undefined)) return node.inputs;
  const values: Value[] = [];
  for (const value of node.inputs) if (value) values.push(value);
  for (const { value } of node.captures) values.push(value);
  for (const graph of node.subgraphs) for (const value of freeValues(graph)) values.push(value);
  return values;
}

/** The files in which constants of a graph lie. */
export function filesOf({ nodes }: Graph): ReadonlySet<string> {
  const files = new Set<string>();
  for (const node of nodes) {
    for (const { data } of operands(node)) {
      if (data?.content.kind === "file") files.add(data.content.file);
      if (data?.content.kind === "converted") files.add(data.content.source.file);
    }
  }
  return files;
}

/** A graph, and those in its nodes at any depth. */
export function withSubgraphs(graph: Graph): readonly Graph[] {
  const graphs = [graph];
  // The list grows while it is walked.
  for (const { nodes } of graphs) for (const node of nodes) graphs.push(...node.subgraphs);
  return graphs;
}

/** The nodes of a graph, and of those in its nodes at any depth. */
export function allNodes(graph: Graph): readonly Node[] {
  return withSubgraphs(graph).flatMap(({ nodes }) => nodes);
}

const free = new WeakMap<Graph, readonly Value[]>();

/** The values that a graph reads and does not define, constants among them, in the order of first use. */
export function freeValues(graph: Graph): readonly Value[] {
  const known = free.get(graph);
  if (known) return known;
  const found = new Set<Value>();
  const defined = new Set(graph.inputs);
  const read = (value: Value): void => {
    if (!defined.has(value)) found.add(value);
  };
  for (const node of graph.nodes) {
    for (const value of operands(node)) read(value);
    for (const output of node.outputs) defined.add(output);
  }
  for (const { value } of [...graph.outputs, ...graph.marks]) read(value);
  const values = [...found];
  free.set(graph, values);
  return values;
}

/** The nodes that read each value; a node that reads it twice is listed twice. Outputs of the graph do not count as reads. */
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
 * The nodes in the order in which ONNX Runtime runs them: a depth-first search back from the outputs, which visits the last of the nodes
 * that a node reads first (`ReverseDFSFrom`, onnxruntime/core/graph/graph.cc). Nodes that no output needs are left out.
 */
export function executionOrder({ nodes, outputs }: Graph): readonly Node[] {
  const places = new Map(nodes.map((node, place) => [node, place]));
  const isHere = (node: Node | undefined): node is Node => node !== undefined && places.has(node);
  const byPlace = (values: readonly Value[]): Node[] =>
    values
      .map(({ producer }) => producer)
      .filter(isHere)
      .sort((a, b) => (places.get(a) ?? 0) - (places.get(b) ?? 0));
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

/**
 * The bits of the values that a subgraph of a node reads from outside: a value of an outer graph keeps its bits, an input has those of
 * all operands of the node, and an iteration counter has none.
 */
export function sourcesWithin(node: Node, graph: Graph, dependsOn: Dependence): ReadonlyMap<Value, number> {
  const all = operands(node).reduce((sum, value) => sum | dependsOn(value), 0);
  const given = isOp(node, "Loop") ? graph.inputs.slice(1) : graph.inputs;
  return new Map([...freeValues(graph).map((value) => [value, dependsOn(value)] as const), ...given.map((value) => [value, all] as const)]);
}
