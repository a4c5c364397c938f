/** Graphs inside of nodes (If, Loop). Such a graph is encoded as soon as it is whole, since no pass looks into it. */
import { type Attribute, makeOp, type Node, type Port, type Value } from "../graph.js";
import { uniqueNames } from "./names.js";
import { ATTRIBUTE_TYPE, encode } from "./schema.js";
import { infoDraft, nodeDraft } from "./write.js";

/** Its nodes read its inputs, each other, and whatever is defined around it; constants always stand around it. */
export interface Subgraph {
  readonly inputs: readonly Value[];
  readonly nodes: readonly Node[];
  readonly outputs: readonly Value[];
}

/** The subgraphs of one model, at any depth: the inner ones are encoded first. No name in them hides another. */
export class Subgraphs {
  private readonly names = new Map<Value, string>();
  private readonly free: (wanted: string) => string;

  /** `inputs` of the model are called what they are called; `taken` names mean other things. */
  constructor(inputs: readonly Value[], taken: readonly string[]) {
    this.free = uniqueNames(taken);
    for (const input of inputs) this.nameOf(input);
  }

  /** The subgraph as the attribute `name` of a node, and what it reads from around it. */
  encode(name: string, { inputs, nodes, outputs }: Subgraph): { readonly attribute: Attribute; readonly captures: readonly Port[] } {
    const all = [...nodes];
    const produced = new Set(nodes.flatMap((node) => node.outputs));
    // Each output is a result of its own.
    const results = outputs.map((value) => {
      if (produced.delete(value)) return value;
      const copy = makeOp("Identity", [value], { name: `${value.name}_out`, type: value.type });
      all.push(copy.node);
      return copy.value;
    });
    const captures = new Map<Value, Port>();
    const defined = new Set(inputs);
    for (const node of all) {
      for (const value of [...node.inputs, ...node.captures.map((port) => port.value)])
        if (value && !defined.has(value)) captures.set(value, { name: this.nameOf(value), value });
      for (const value of node.outputs) defined.add(value);
    }
    const info = (value: Value): ReturnType<typeof infoDraft> => infoDraft(this.nameOf(value), value);
    const nodeName = uniqueNames([]);
    const naming = { nameOf: (value: Value) => this.nameOf(value), nodeName: (node: Node) => nodeName(node.name) };
    const graph = encode("GraphProto", {
      name,
      node: all.map((node) => nodeDraft(node, naming)),
      input: inputs.map(info),
      output: results.map(info),
    });
    const bytes = encode("AttributeProto", { name, type: ATTRIBUTE_TYPE.graph, g: graph });
    return { attribute: { kind: "opaque", bytes }, captures: [...captures.values()] };
  }

  private nameOf(value: Value): string {
    const known = this.names.get(value);
    if (known !== undefined) return known;
    const name = this.free(value.name || "value");
    this.names.set(value, name);
    return name;
  }
}
