/**
 * Row-wise nodes: row i (axis 0) of every result depends only on row i of the operands. Such a node can compute the rows of many
 * steps at once. Only nodes that are known to be row-wise count as such.
 */
import { constant, intAttribute, intsAttribute, isOp, type Node, type Value } from "../../ir/graph.js";
import { isElementwise } from "../../ir/ops.js";
import { tensorNumbers, tensorOf } from "../../ir/tensor.js";
import { elementCount, staticShape } from "../../ir/types.js";

/** For each operand, whether it brings rows (true) or is the same for all of them (false). */
export type RowOperands = readonly boolean[];

/**
 * Which operands of `node` must bring rows, if the values that satisfy `carriesRows` do; `rows` is the size of axis 0 of a value with
 * rows. Undefined if the node is not row-wise. An operand that does not carry rows yet, such as a constant with `rows` rows, may have
 * to bring some too.
 */
export function rowOperands(node: Node, rows: number, carriesRows: (value: Value | undefined) => boolean): RowOperands | undefined {
  const out = staticShape(node.outputs[0]?.type);
  const [data, second] = node.inputs;
  const first = staticShape(data?.type);
  if (!out || out[0] !== rows || node.captures.length > 0) return undefined;
  const aligned = (value: Value | undefined): boolean => {
    const shape = staticShape(value?.type);
    return shape?.length === out.length && shape[0] === rows;
  };
  const onlyFirst = (ok: boolean): RowOperands | undefined =>
    ok && carriesRows(data) && !node.inputs.slice(1).some(carriesRows) ? node.inputs.map((_, i) => i === 0) : undefined;
  const apartFromRows = (axes: readonly number[] | undefined, rank = first?.length ?? 0): boolean =>
    axes?.every((axis) => (axis < 0 ? axis + rank : axis) > 0) ?? false;

  if (isElementwise(node) || (isOp(node, "Concat") && apartFromRows([intAttribute(node, "axis", 0)], out.length))) {
    const needs = node.inputs.map(aligned);
    return node.inputs.every((value, i) => needs[i] === true || !carriesRows(value)) ? needs : undefined;
  }
  if (isOp(node, "Gemm")) {
    if (intAttribute(node, "transA", 0) !== 0 || !carriesRows(data) || carriesRows(second) || carriesRows(node.inputs[2])) return undefined;
    return node.inputs.map((value, i) => i === 0 || (i === 2 && rows > 1 && aligned(value)));
  }
  if (isOp(node, "MatMul")) return onlyFirst((first?.length ?? 0) >= 2 && (staticShape(second?.type)?.length ?? 3) <= 2);
  if (isOp(node, "Gather")) {
    const axis = intAttribute(node, "axis", 0);
    if (axis === 0) return carriesRows(second) && !carriesRows(data) ? [false, true] : undefined;
    return onlyFirst(apartFromRows([axis]));
  }
  // One scale for all, or one for each index of an axis; a block's scales would lie along the rows as well.
  if (isOp(node, "QuantizeLinear", "DequantizeLinear"))
    return onlyFirst(
      elementCount(staticShape(second?.type) ?? [0]) === 1 ||
        (apartFromRows([intAttribute(node, "axis", 1)]) && staticShape(second?.type)?.length === 1),
    );
  if (isOp(node, "Reshape", "Expand")) return onlyFirst(first?.[0] === rows && (isOp(node, "Reshape") || first.length === out.length));
  if (isOp(node, "Flatten")) return onlyFirst(intAttribute(node, "axis", 1) === 1);
  if (isOp(node, "Transpose")) return onlyFirst(intsAttribute(node, "perm")?.[0] === 0);
  if (isOp(node, "Unsqueeze")) return onlyFirst(apartFromRows(axesOf(node, 1), out.length));
  if (isOp(node, "Squeeze")) return onlyFirst(apartFromRows(axesOf(node, 1)));
  if (isOp(node, "Slice")) return onlyFirst(apartFromRows(axesOf(node, 3)));
  if (isOp(node, "Split")) return onlyFirst(apartFromRows([intAttribute(node, "axis", 0)]));
  if (isOp(node, "Softmax", "LayerNormalization", "RMSNormalization")) return onlyFirst(apartFromRows([intAttribute(node, "axis", -1)]));
  if (isOp(node, "ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")) return onlyFirst(apartFromRows(axesOf(node, 1)));
  return undefined;
}

/** The operands of a row-wise node for `rows` rows: the shape operand of a Reshape or Expand changes. */
export function withRows(node: Node, inputs: readonly (Value | undefined)[], rows: number): readonly (Value | undefined)[] {
  if (!isOp(node, "Reshape", "Expand")) return inputs;
  const [, ...rest] = staticShape(node.outputs[0]?.type) ?? [];
  const shape = constant(`${node.name}_shape`, tensorOf("int64", [rest.length + 1], [rows, ...rest]));
  return [inputs[0], shape];
}

/** Axes as an attribute, or as the constant operand that newer opsets have. */
function axesOf(node: Node, operand: number): readonly number[] | undefined {
  const data = node.inputs[operand]?.data;
  return intsAttribute(node, "axes") ?? (data && tensorNumbers(data));
}
