/** Consecutive reshapes, squeezes and unsqueezes become one reshape, or none. */
import { shapeOf } from "../../ir/build.js";
import { isOp, only } from "../../ir/graph.js";
import { producerOf } from "../fusing/match.js";
import { reshaped, RESHAPES } from "../fusing/views.js";
import type { FuseRule } from "../fuse-rule.js";

export default {
  name: "reshape",
  opset: 5,
  apply(node, { build }) {
    if (!isOp(node, ...RESHAPES) || !producerOf(node.inputs[0], ...RESHAPES)) return undefined;
    const output = only(node);
    return [reshaped(build, output, shapeOf(output), output.name)];
  },
} satisfies FuseRule;
