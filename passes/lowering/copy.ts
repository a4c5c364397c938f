/** Copies of nodes with other operands. */
import { makeNode, type Node, type Value } from "../../ir/graph.js";
import { substituteAttributes } from "../../ir/rewrite.js";
import type { TensorType } from "../../ir/types.js";

/** The fields of a node that hold what it reads, itself and in its subgraphs. */
type Operands = Pick<Node, "inputs" | "captures" | "attributes">;

/** The operands of a copy of `node`: `at` maps the original ones to new ones. */
export function operandsAt(node: Node, at: (value: Value) => Value | undefined): Operands {
  const found = (value: Value): Value => {
    const here = at(value);
    if (!here) throw new Error(`internal: ${node.opType} '${node.name}' reads '${value.name}', which has not been placed`);
    return here;
  };
  return {
    inputs: node.inputs.map((value) => value && found(value)),
    captures: node.captures.map(({ name, value }) => ({ name, value: found(value) })),
    attributes: substituteAttributes(node, found),
  };
}

/**
 * A copy of a node with other operands.
 * With a prefix, its name also gets its module path; with `rows`, its results have that size along axis 0.
 */
export function clone(node: Node, { inputs, captures, attributes }: Operands, prefix = "", rows?: number): Node {
  const resize = (type: TensorType | undefined): TensorType | undefined =>
    type?.shape && rows !== undefined ? { ...type, shape: [rows, ...type.shape.slice(1)] } : type;
  return makeNode({
    domain: node.domain,
    opType: node.opType,
    name: prefix === "" ? node.name : prefix + pathOf(node),
    inputs,
    outputs: node.outputs.map(({ name, type }) => ({ name: prefix + name, type: resize(type) })),
    attributes,
    captures,
    scope: node.scope,
  });
}

/** The name of a node after its module path. TorchScript names already contain the path: `/blocks.0/attn/MatMul`. */
function pathOf({ name, scope }: Node): string {
  if (name.startsWith("/")) return name.slice(1);
  return scope === undefined ? name : `${scope}/${name}`;
}
