/** Matching helpers for rules that recognise an expression by its last node. */
import { constantOf, smallConstant } from "../../ir/constants.js";
import { intAttribute, intsAttribute, isOp, type Node, type Value } from "../../ir/graph.js";
import type { StandardOperator } from "../../ir/operators.js";
import { isCommutative } from "../../ir/ops.js";
import { readTensor, type TensorData, tensorNumbers } from "../../ir/tensor.js";
import { elementCount, type ElementType, sameType, staticShape } from "../../ir/types.js";

/** The producer of a value, if it is one of these standard operators and all its shapes are fixed. */
export function producerOf(value: Value | undefined, ...opTypes: readonly StandardOperator[]): Node | undefined {
  const node = value?.producer;
  return node && isOp(node, ...opTypes) && hasFixedShapes(node) ? node : undefined;
}

/** Whether all operands and outputs that are present have a fixed shape. */
export function hasFixedShapes({ inputs, outputs }: Node): boolean {
  return [...inputs, ...outputs].every((value) => !value || (value.name === "" && !value.data) || staticShape(value.type) !== undefined);
}

/** Constants with more elements are weights and are not read. */
const MOST_ELEMENTS = 1 << 14;
/** Types of constants that are read as numbers. */
const NUMBERS: ReadonlySet<ElementType> = new Set<ElementType>(["float", "double", "float16", "int64", "int32"]);

/** The data of a numeric constant with at least one and at most `limit` elements. */
export function numbersOf(value: Value | undefined, limit: number): TensorData | undefined {
  const data = constantOf(value);
  const count = data ? elementCount(data.shape) : 0;
  return data && NUMBERS.has(data.elem) && count > 0 && count <= limit ? data : undefined;
}

/** The number that all elements of a constant equal; undefined for large constants. */
export function uniformOf(value: Value | undefined): number | undefined {
  const data = numbersOf(value, MOST_ELEMENTS);
  if (!data) return undefined;
  const bytes = readTensor(data);
  const width = bytes.byteLength / elementCount(data.shape);
  // All elements are equal if each equals the next one.
  if (Buffer.compare(bytes.subarray(width), bytes.subarray(0, -width)) !== 0) return undefined;
  return tensorNumbers({ elem: data.elem, shape: [], content: { kind: "bytes", bytes: bytes.slice(0, width) } })[0];
}

/** An operand of a binary node, and the number that is the other operand. */
export interface WithNumber {
  readonly value: Value;
  readonly number: number;
}

/**
 * The operands of a binary node if one is a number: the second, or either if the operator is commutative.
 * The result has the type of the other operand.
 */
export function withNumber(node: Node | undefined): WithNumber | undefined {
  const [first, second] = node?.inputs ?? [];
  const pairs = node && isCommutative(node) ? [[first, second] as const, [second, first] as const] : [[first, second] as const];
  for (const [value, other] of pairs) {
    const number = uniformOf(other);
    if (value && number !== undefined && sameType(value.type, node?.outputs[0]?.type)) return { value, number };
  }
  return undefined;
}

/** The two operands of a node, in both orders if it is commutative. */
export function operandPairs(node: Node | undefined): readonly (readonly [Value, Value])[] {
  const [first, second] = node?.inputs ?? [];
  if (!node || !first || !second) return [];
  return isCommutative(node) ? [[first, second], [second, first]] : [[first, second]]; // prettier-ignore
}

/** Whether two numbers are equal up to the rounding of a few float operations. */
export function isNear(a: number, b: number): boolean {
  return Math.abs(a - b) <= 1e-6 * Math.abs(b);
}

/** Whether a node with an attribute `axis` works along the last axis of its first operand. */
export function isAlongLast(node: Node): boolean {
  const rank = staticShape(node.inputs[0]?.type)?.length ?? 0;
  const axis = intAttribute(node, "axis", -1);
  return axis === -1 || axis === rank - 1;
}

/** Whether a mean is taken along the last axis alone, which stays with size 1. */
export function isMeanOfLast(mean: Node): boolean {
  const axes = intsAttribute(mean, "axes") ?? smallConstant(mean.inputs[1]);
  const rank = staticShape(mean.inputs[0]?.type)?.length ?? 0;
  return axes?.length === 1 && (axes[0] === -1 || axes[0] === rank - 1) && intAttribute(mean, "keepdims", 1) === 1;
}

/** Whether a node is a transpose by this permutation. */
export function isTransposeBy(node: Node | undefined, perm: readonly number[]): boolean {
  const own = node && intsAttribute(node, "perm");
  return own?.length === perm.length && own.every((axis, i) => axis === perm[i]);
}
