/** Steps back over nodes that move, retype or scale a value and leave it the same value for lifting. */
import { constantOf } from "../constants.js";
import { isOp, type Value } from "../graph.js";
import { carriedOperand } from "../ops.js";

/** The value before any reshaping, casting, rounding or clamping. */
export function unmoved(value: Value): Value {
  const passed: Value[] = [];
  let at = value;
  for (let next = before(at); next; next = before(at)) {
    passed.push(at);
    at = next;
  }
  for (const moved of passed) origins.set(moved, at);
  return at;
}

/** What moved values are before, so that long ways back are gone once. */
const origins = new WeakMap<Value, Value>();

function before(value: Value): Value | undefined {
  return origins.get(value) ?? (value.producer && carriedOperand(value.producer));
}

/** The value before a scaling by a constant number (DeepNorm scales the stream, arXiv 2203.00555). */
export function unscaled(value: Value): Value {
  const { producer } = unmoved(value);
  const factor = isOp(producer, "Mul") ? producer?.inputs.findIndex((input) => constantOf(input)?.shape.length === 0) : -1;
  return producer && factor !== undefined && factor >= 0 ? (producer.inputs[1 - factor] ?? value) : value;
}
