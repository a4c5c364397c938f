/** Assigns the names of a file: unique ones for all values, an `Identity` where one value needs two names, one constant for equal ones. */
import { operands, withSubgraphs } from "../analysis.js";
import { nameClash } from "../diagnostics.js";
import type { Graph, Node, Port, Value } from "../graph.js";
import type { TensorContent } from "../tensor.js";
import { subgraphNames } from "./attributes.js";
import { contentKey } from "./tensors.js";

export interface Naming {
  readonly nameOf: (value: Value) => string;
  readonly nodeName: (node: Node) => string;
  /** The outputs of a graph under the names that are written. */
  readonly outputsOf: (graph: Graph) => readonly Port[];
  /** Further names of values: the `Identity` nodes to be written before a node, or behind the last one of a graph. */
  readonly aliases: ReadonlyMap<Node | Graph, readonly Port[]>;
  /** The initializers, all of the outermost graph, in the order of first use; those that are defaults of inputs come first. */
  readonly constants: readonly Value[];
}

/**
 * Inputs, outputs and values that opaque attributes read keep exactly their names. All other values, in subgraphs too, keep theirs if
 * it is free, so that no name hides another. Throws NAME_CLASH where two values must have the same name.
 */
export function assignNames(graph: Graph): Naming {
  const names = new Map<Value, string>();
  const exact = new Map<string, Value>();
  const aliases = new Map<Node | Graph, Port[]>();
  /** For each alias, the graph in which it is written: it is only visible there. */
  const aliased = new Map<string, Graph>();

  /** Gives a value a name that it must have in a graph; false if the value already has another name. Throws NAME_CLASH. */
  const claim = (value: Value, name: string, within: Graph): boolean => {
    const owner = exact.get(name);
    if (owner && owner !== value) throw nameClash(name);
    // The value already has this name, itself or by an alias.
    if (owner) return (aliased.get(name) ?? within) === within;
    if (names.has(value)) return false;
    exact.set(name, value);
    names.set(value, name);
    return true;
  };
  const alias = (at: Node | Graph, port: Port): Port => {
    const list = aliases.get(at);
    if (list) list.push(port);
    else aliases.set(at, [port]);
    return port;
  };
  const exactAlias = (at: Node | Graph, port: Port, within: Graph): void => {
    if (exact.has(port.name)) throw nameClash(port.name);
    exact.set(port.name, port.value);
    aliased.set(port.name, within);
    alias(at, port);
  };

  for (const value of graph.inputs) {
    if (exact.has(value.name)) throw nameClash(value.name);
    claim(value, value.name, graph);
  }
  const graphs = withSubgraphs(graph);
  for (const within of graphs) {
    for (const node of within.nodes) {
      for (const port of node.captures) if (!claim(port.value, port.name, within)) exactAlias(node, port, within);
    }
  }
  const ports = new Set<string>();
  for (const port of graph.outputs) {
    const { name, value } = port;
    if (ports.has(name)) throw nameClash(name);
    ports.add(name);
    if (exact.get(name) === value && (aliased.get(name) ?? graph) === graph) continue;
    if (!value.producer || !claim(value, name, graph)) exactAlias(graph, port, graph);
  }

  const free = uniqueNames([...exact.keys(), ...opaqueNames(graphs)]);
  const nodeName = uniqueNames([]);
  const nodeNames = new Map<Node, string>();
  const same = new Interning();
  const constants: Value[] = [];
  const seen = new Set<Value>();
  const useConstant = (value: Value | undefined): void => {
    if (!value?.data || seen.has(value)) return;
    seen.add(value);
    const first = same.first(value, value.data.content);
    if (first !== value && !names.has(value)) {
      names.set(value, names.get(first) ?? first.name);
      return;
    }
    if (!names.has(value)) names.set(value, free(value.name || "constant"));
    constants.push(value);
  };
  for (const value of graph.inputs) {
    if (!value.data) continue;
    // A caller may give the input another value, so no constant may replace it.
    seen.add(value);
    constants.push(value);
  }
  const nameOf = (value: Value): string => {
    const name = names.get(value);
    if (name === undefined) throw new Error(`internal: '${value.name}' is read and defined nowhere`);
    return name;
  };
  const used = usedValues(graphs);
  const outputs = new Map<Graph, readonly Port[]>();
  const nameNodes = ({ nodes }: Graph): void => {
    for (const node of nodes) {
      for (const value of operands(node)) useConstant(value);
      for (const inner of node.subgraphs) nameInner(inner);
      for (const value of node.outputs) {
        if (!names.has(value)) names.set(value, value.name !== "" || used.has(value) ? free(value.name || `${node.opType}_output`) : "");
      }
      nodeNames.set(node, node.name === "" ? "" : nodeName(node.name));
    }
  };
  /** Each output of a subgraph must be a different result of its own nodes; any other output gets an alias. */
  const nameInner = (inner: Graph): void => {
    for (const value of inner.inputs) if (!names.has(value)) names.set(value, free(value.name || "input"));
    nameNodes(inner);
    const left = new Set(inner.nodes.flatMap((node) => node.outputs));
    const ports = inner.outputs.map(({ value }): Port => {
      const name = nameOf(value);
      return left.delete(value) ? { name, value } : alias(inner, { name: free(`${name}_out`), value });
    });
    outputs.set(inner, ports);
  };
  nameNodes(graph);
  for (const { value } of graph.outputs) useConstant(value);
  return {
    nameOf,
    nodeName: (node) => nodeNames.get(node) ?? node.name,
    outputsOf: (within) => outputs.get(within) ?? within.outputs,
    aliases,
    constants,
  };
}

/** Returns the wanted name the first time, and numbered variants of it afterwards. */
function uniqueNames(taken: Iterable<string>): (wanted: string) => string {
  const names = new Set(taken);
  const next = new Map<string, number>();
  return (wanted) => {
    let name = wanted;
    for (let n = next.get(wanted) ?? 1; names.has(name); n++) {
      name = `${wanted}_${n}`;
      next.set(wanted, n + 1);
    }
    names.add(name);
    return name;
  };
}

/** The names that opaque attributes define. They are taken outside too, as no name may hide another. */
function opaqueNames(graphs: readonly Graph[]): Set<string> {
  const found = new Set<string>();
  const seen = new Set<Uint8Array>();
  for (const node of graphs.flatMap(({ nodes }) => nodes)) {
    for (const attribute of node.attributes.values()) {
      if (attribute.kind !== "opaque" || seen.has(attribute.bytes)) continue;
      seen.add(attribute.bytes);
      for (const name of subgraphNames(attribute.bytes).defined) found.add(name);
    }
  }
  return found;
}

function usedValues(graphs: readonly Graph[]): Set<Value> {
  const used = new Set<Value>();
  for (const { nodes, outputs } of graphs) {
    for (const node of nodes) for (const value of operands(node)) used.add(value);
    for (const { value } of outputs) used.add(value);
  }
  return used;
}

/** Finds the first constant with the same type and content, as far as that can be decided without reading files. */
class Interning {
  private readonly values = new Map<string | Uint8Array, Map<string, Value>>();

  first(value: Value, content: TensorContent): Value {
    const key = contentKey(content);
    if (key === undefined || !value.data) return value;
    const type = `${value.data.elem}[${value.data.shape.join()}]`;
    const ofContent = this.values.get(key) ?? new Map<string, Value>();
    this.values.set(key, ofContent);
    const first = ofContent.get(type);
    if (first) return first;
    ofContent.set(type, value);
    return value;
  }
}
