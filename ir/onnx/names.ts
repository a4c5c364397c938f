/** What every value is called in a file: names made unique, `Identity` where one value needs two names, equal constants as one. */
import { nameClash } from "../diagnostics.js";
import type { Graph, Node, Value } from "../graph.js";
import type { TensorContent } from "../tensor.js";
import { subgraphNames } from "./attributes.js";
import { contentKey } from "./tensors.js";

/** Another name for a value. */
export interface Alias {
  readonly name: string;
  readonly value: Value;
}

export interface Naming {
  readonly nameOf: (value: Value) => string;
  readonly nodeName: (node: Node) => string;
  /** The `Identity` nodes to be written before a node, or (of no node) after the last. */
  readonly aliases: ReadonlyMap<Node | undefined, readonly Alias[]>;
  /** The initializers in the order of first use; those that are defaults of inputs come first. */
  readonly constants: readonly Value[];
}

/**
 * Inputs, outputs and what subgraphs read are called exactly that; the others keep their names where these are free.
 * Throws NAME_CLASH where two values must have the same name.
 */
export function assignNames(graph: Graph): Naming {
  const names = new Map<Value, string>();
  const exact = new Map<string, Value>();
  const aliases = new Map<Node | undefined, Alias[]>();

  /** Gives a value a name that it must have; in vain if it has one already. */
  const claim = (value: Value, name: string): boolean => {
    const owner = exact.get(name);
    if (owner && owner !== value) throw nameClash(name);
    // A name of its own, or the name of an alias that is already written.
    if (owner) return true;
    if (names.has(value)) return false;
    exact.set(name, value);
    names.set(value, name);
    return true;
  };
  const alias = (before: Node | undefined, value: Value, name: string): void => {
    if (exact.has(name)) throw nameClash(name);
    exact.set(name, value);
    const list = aliases.get(before);
    if (list) list.push({ name, value });
    else aliases.set(before, [{ name, value }]);
  };

  for (const value of graph.inputs) {
    if (exact.has(value.name)) throw nameClash(value.name);
    claim(value, value.name);
  }
  for (const node of graph.nodes) {
    for (const { name, value } of node.captures) if (!claim(value, name)) alias(node, value, name);
  }
  const ports = new Set<string>();
  for (const { name, value } of graph.outputs) {
    if (ports.has(name)) throw nameClash(name);
    ports.add(name);
    if (exact.get(name) === value) continue;
    if (!value.producer || !claim(value, name)) alias(undefined, value, name);
  }

  const free = uniqueNames([...exact.keys(), ...innerNames(graph)]);
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
    // Whoever runs the model may give the input another value: no constant may stand for it.
    seen.add(value);
    constants.push(value);
  }
  const used = usedValues(graph);
  for (const node of graph.nodes) {
    for (const value of node.inputs) useConstant(value);
    for (const { value } of node.captures) useConstant(value);
    for (const value of node.outputs) {
      if (!names.has(value)) names.set(value, value.name !== "" || used.has(value) ? free(value.name || `${node.opType}_output`) : "");
    }
    nodeNames.set(node, node.name === "" ? "" : nodeName(node.name));
  }
  for (const { value } of graph.outputs) useConstant(value);
  return {
    nameOf: (value) => {
      const name = names.get(value);
      if (name === undefined) throw new Error(`internal: '${value.name}' is read and defined nowhere`);
      return name;
    },
    nodeName: (node) => nodeNames.get(node) ?? node.name,
    aliases,
    constants,
  };
}

/** Gives the wanted name to the first who asks, and numbered ones to the rest. */
export function uniqueNames(taken: Iterable<string>): (wanted: string) => string {
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

/** No name may hide another: what subgraphs define is not free outside. */
function innerNames(graph: Graph): Set<string> {
  const found = new Set<string>();
  const seen = new Set<Uint8Array>();
  for (const node of graph.nodes) {
    for (const attribute of node.attributes.values()) {
      if (attribute.kind !== "opaque" || seen.has(attribute.bytes)) continue;
      seen.add(attribute.bytes);
      for (const name of subgraphNames(attribute.bytes).defined) found.add(name);
    }
  }
  return found;
}

function usedValues(graph: Graph): Set<Value> {
  const used = new Set<Value>();
  for (const node of graph.nodes) {
    for (const value of node.inputs) if (value) used.add(value);
    for (const { value } of node.captures) used.add(value);
  }
  for (const { value } of graph.outputs) used.add(value);
  return used;
}

/** The first constant with the same type and the same content, where that can be told without reading. */
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
