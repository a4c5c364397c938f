/**
 * Consecutive transposes become one, or none; a transpose that only moves axes of size 1 becomes a reshape. torch.export merges the
 * leading axes by a reshape, exchanges the last two axes, and splits the leading axes again: that becomes a single transpose.
 */
import { type Builder, lastTwoExchanged, shapeOf } from "../../ir/build.js";
import { intsAttribute, isOp, type Node, only, type Value } from "../../ir/graph.js";
import { isTransposeBy, producerOf } from "../fusing/match.js";
import { permOf, reshaped, transposed } from "../fusing/views.js";
import type { FuseRule, Surroundings } from "../fuse-rule.js";

export default {
  name: "transpose",
  opset: 5,
  apply(node, around) {
    const made = isOp(node, "Transpose") ? composed(node, around.build) : isOp(node, "Reshape") ? betweenReshapes(node, around) : undefined;
    return made && [made];
  },
} satisfies FuseRule;

function composed(node: Node, build: Builder): Value | undefined {
  const [source] = node.inputs;
  if (!source) return undefined;
  const made = transposed(build, source, permOf(source, intsAttribute(node, "perm")), only(node).name);
  // Undefined if this is the transpose that the node already was.
  return isOp(made.producer, "Transpose") && made.producer?.inputs[0] === source ? undefined : made;
}

/** [b, h, s, d] → [b · h, s, d] → [b · h, d, s] → [b, h, d, s] */
function betweenReshapes(node: Node, { build, isInner }: Surroundings): Value | undefined {
  const turn = isInner(node.inputs[0]) ? producerOf(node.inputs[0], "Transpose") : undefined;
  const merged = producerOf(turn?.inputs[0], "Reshape")?.outputs[0];
  if (!merged || !isTransposeBy(turn, [0, 2, 1])) return undefined;
  const { name } = only(node);
  const shape = shapeOf(only(node));
  const [rows = 1, columns = 1] = shapeOf(merged).slice(1);
  if (shape.length < 3 || shape.at(-2) !== columns || shape.at(-1) !== rows) return undefined;
  const apart = reshaped(build, merged, [...shape.slice(0, -2), rows, columns], `${name}/apart`);
  return transposed(build, apart, lastTwoExchanged(shape.length), name);
}
