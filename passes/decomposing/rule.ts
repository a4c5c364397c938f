/** What a rule that spells an operator of ONNX Runtime out is, and what most of them need. */
import { type Builder, elemOf, shapeOf } from "../../ir/build.js";
import type { Attribute, Node, Value } from "../../ir/graph.js";
import type { StandardOperator } from "../../ir/operators.js";
import { type ElementType, isFloatType } from "../../ir/types.js";

/**
 * The named outputs of a node, computed by standard operators of the opset; undefined where that is not possible. The types of its
 * operands and outputs are known, with fixed shapes. Formulas: onnxruntime, docs/ContribOperators.md, and the kernels where that is silent.
 */
export type Decomposition = (node: Node, build: Builder, opset: number) => readonly (Value | undefined)[] | undefined;

/** Types in which the constants of a formula can be written. */
const WRITABLE: ReadonlySet<ElementType> = new Set<ElementType>(["float", "float16", "bfloat16", "double"]);

/** A rule for nodes whose first result is of a float type that all float operands have, too. */
export function inOneType(rule: Decomposition): Decomposition {
  return (node, build, opset) => {
    const elem = elemOf(first(node));
    const isOther = (value: Value | undefined): boolean => {
      const own = value?.type?.elem;
      return own !== undefined && (isFloatType(own) || own === "double") && own !== elem;
    };
    return WRITABLE.has(elem) && !node.inputs.some(isOther) ? rule(node, build, opset) : undefined;
  };
}

export function first(node: Node): Value {
  const [output] = node.outputs;
  if (!output) throw new Error(`internal: ${node.opType} '${node.name}' has no outputs`);
  return output;
}

/** Whether an output is there: one without a name is left out. */
export function isNamed(output: Value | undefined): output is Value {
  return output !== undefined && output.name !== "";
}

/** An operator whose result has the type of its operand. */
export function unary(
  build: Builder,
  opType: StandardOperator,
  x: Value,
  name: string,
  attributes: Readonly<Record<string, Attribute>> = {},
): Value {
  return build.op(opType, [x], name, { elem: elemOf(x), shape: shapeOf(x) }, attributes);
}

/** An operator whose second operand is broadcast to its first. */
export function binary(build: Builder, opType: StandardOperator, x: Value, y: Value, name: string): Value {
  return build.op(opType, [x, y], name, { elem: elemOf(x), shape: shapeOf(x) });
}
