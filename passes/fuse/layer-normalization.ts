/**
 * The RMSNormalization of x − mean(x) is the LayerNormalization of x. Formula: Ba, Kiros and Hinton, Layer Normalization, equation 4;
 * ONNX, LayerNormalization-17.
 */
import { isOp, only } from "../../ir/graph.js";
import { isAlongLast, isMeanOfLast, producerOf } from "../fusing/match.js";
import type { FuseRule } from "../fuse-rule.js";

export default {
  name: "layer-normalization",
  opset: 17,
  apply(node, { build, isInner }) {
    const [centred, scale] = node.inputs;
    if (!isOp(node, "RMSNormalization") || !isAlongLast(node) || !isInner(centred)) return undefined;
    const [x, mean] = producerOf(centred, "Sub")?.inputs ?? [];
    const average = isInner(mean) ? producerOf(mean, "ReduceMean") : undefined;
    const { name, type } = only(node);
    if (!x || !type || average?.inputs[0] !== x || !isMeanOfLast(average)) return undefined;
    return [build.op("LayerNormalization", [x, scale], name, type, Object.fromEntries(node.attributes))];
  },
} satisfies FuseRule;
