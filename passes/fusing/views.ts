/** Makes reshapes and transposes that absorb an earlier one: two in a row become one, and one that undoes the other becomes none. */
import { type Builder, shapeOf } from "../../ir/build.js";
import { intsAttribute, type Value } from "../../ir/graph.js";
import { producerOf } from "./match.js";
import { sameShape } from "../../ir/types.js";

/** Operators that give the same elements, in the same order, another shape. */
export const RESHAPES = ["Reshape", "Squeeze", "Unsqueeze", "Flatten"] as const;

/** [batch, heads, length, size] ↔ [batch, length, heads, size] */
export const TURN = [0, 2, 1, 3] as const;

/** The elements of a value in another shape of as many. */
export function reshaped(build: Builder, value: Value, shape: readonly number[], name: string): Value {
  let source = value;
  for (let node = producerOf(source, ...RESHAPES); node?.inputs[0]; node = producerOf(source, ...RESHAPES)) source = node.inputs[0];
  if (sameShape(shapeOf(source), shape)) return source;
  return build.reshape(source, shape, name);
}

/** A value whose axis i is axis `perm[i]` of the given one. */
export function transposed(build: Builder, value: Value, perm: readonly number[], name: string): Value {
  let source = value;
  let order = perm;
  for (let node = producerOf(source, "Transpose"); node?.inputs[0]; node = producerOf(source, "Transpose")) {
    const inner = permOf(node.inputs[0], intsAttribute(node, "perm"));
    order = order.map((axis) => inner[axis] ?? axis);
    source = node.inputs[0];
  }
  const from = shapeOf(source);
  const shape = order.map((axis) => from[axis] ?? 1);
  // If the axes stay in order apart from those of size 1, no element moves.
  const moved = order.filter((axis) => from[axis] !== 1);
  if (moved.every((axis, i) => i === 0 || axis > (moved[i - 1] ?? 0))) return reshaped(build, source, shape, name);
  return build.transpose(source, order, name);
}

/** The order of the axes that a transpose makes; without one it is the reverse. */
export function permOf(source: Value, perm: readonly number[] | undefined): readonly number[] {
  return perm ?? shapeOf(source).map((_, i, { length }) => length - 1 - i);
}
