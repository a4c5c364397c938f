/** Steps back over nodes that move, retype or scale a value and leave it the same value for lifting. */
import { constantOf } from "../constants.js";
import { isOp, type Node, type Value } from "../graph.js";
import { isDataMovement } from "../ops.js";

/** Whether a node only moves, retypes or clamps its first operand. */
export function isMove(node: Node): boolean {
  return isDataMovement(node) || isOp(node, "Clip");
}

/** The value before any reshaping, casting or clamping. */
export function unmoved(value: Value): Value {
  let at = value;
  for (let next = at.producer; next && isMove(next) && next.inputs[0]; next = at.producer) at = next.inputs[0];
  return at;
}

/** The value before a scaling by a constant number (DeepNorm scales the stream, arXiv 2203.00555). */
export function unscaled(value: Value): Value {
  const { producer } = unmoved(value);
  const factor = isOp(producer, "Mul") ? producer?.inputs.findIndex((input) => constantOf(input)?.shape.length === 0) : -1;
  return producer && factor !== undefined && factor >= 0 ? (producer.inputs[1 - factor] ?? value) : value;
}
