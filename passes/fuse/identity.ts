/** Removes nodes that return their operand: casts to the same type, products with 1, reshapes to the same shape. */
import { isOp, type Node, type Value } from "../../ir/graph.js";
import { smallConstant } from "../../ir/constants.js";
import { withNumber } from "../fusing/match.js";
import { sameType } from "../../ir/types.js";
import type { FuseRule } from "../fuse-rule.js";

export default {
  name: "identity",
  opset: 1,
  apply(node) {
    const kept = isOp(node, "Identity") || keepsElements(node) ? node.inputs[0] : neutral(node);
    return kept && sameType(kept.type, node.outputs[0]?.type) && node.outputs.length === 1 ? [kept] : undefined;
  },
} satisfies FuseRule;

/** x · 1, x / 1, x + 0, x − 0, x ^ 1 */
function neutral(node: Node): Value | undefined {
  const found = withNumber(node);
  if (!found) return undefined;
  const isNeutral = isOp(node, "Mul", "Div", "Pow") ? found.number === 1 : isOp(node, "Add", "Sub") && found.number === 0;
  return isNeutral ? found.value : undefined;
}

/** Whether a node of one output that does not change the type of its operand leaves every element where it is. */
function keepsElements(node: Node): boolean {
  if (isOp(node, "Slice")) return !node.inputs[4] || (smallConstant(node.inputs[4])?.every((step) => step > 0) ?? false);
  return isOp(node, "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Concat", "Split");
}
