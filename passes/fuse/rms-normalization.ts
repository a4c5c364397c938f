/**
 * x / √(mean(x²) + epsilon) along the last axis.
 * Formula: Zhang and Sennrich, Root Mean Square Layer Normalization, equation 4; ONNX, RMSNormalization-23.
 */
import { elemOf, shapeOf } from "../../ir/build.js";
import { constant, isOp, only, type Value } from "../../ir/graph.js";
import { isMeanOfLast, operandPairs, producerOf, uniformOf, withNumber } from "../fusing/match.js";
import { tensorOf } from "../../ir/tensor.js";
import type { FuseRule, Surroundings } from "../fuse-rule.js";

export default {
  name: "rms-normalization",
  opset: 23,
  apply(node, { build, isInner }) {
    if (!isOp(node, "Mul", "Div")) return undefined;
    for (const [x, other] of operandPairs(node)) {
      const root = isOp(node, "Div") ? other : reciprocated(other, isInner);
      const epsilon = root && epsilonOf(root, x, isInner);
      const { name, type } = only(node);
      if (epsilon === undefined || !type) continue;
      const size = shapeOf(x).at(-1) ?? 1;
      const ones = constant("ones", tensorOf(elemOf(x), [size], new Array<number>(size).fill(1)));
      const attributes = { axis: { kind: "int", value: -1n }, epsilon: { kind: "float", value: epsilon } } as const;
      return [build.op("RMSNormalization", [x, ones], name, type, attributes)];
    }
    return undefined;
  },
} satisfies FuseRule;

/** The divisor d of a value that is 1 / d. */
function reciprocated(value: Value, isInner: Surroundings["isInner"]): Value | undefined {
  const node = isInner(value) ? producerOf(value, "Reciprocal", "Div") : undefined;
  if (!isOp(node, "Div")) return node?.inputs[0];
  return uniformOf(node?.inputs[0]) === 1 ? node?.inputs[1] : undefined;
}

/** The epsilon, if the value is √(mean(x²) + epsilon). */
function epsilonOf(root: Value, x: Value, isInner: Surroundings["isInner"]): number | undefined {
  const sum = isInner(root) ? producerOf(root, "Sqrt")?.inputs[0] : undefined;
  const shifted = isInner(sum) ? withNumber(producerOf(sum, "Add")) : undefined;
  const mean = isInner(shifted?.value) ? producerOf(shifted?.value, "ReduceMean") : undefined;
  const square = mean?.inputs[0];
  if (!mean || !isInner(square) || !isMeanOfLast(mean) || !isSquareOf(square, x)) return undefined;
  return shifted?.number;
}

function isSquareOf(value: Value | undefined, x: Value): boolean {
  const node = producerOf(value, "Mul", "Pow");
  if (node?.inputs[0] !== x) return false;
  return isOp(node, "Mul") ? node.inputs[1] === x : uniformOf(node.inputs[1]) === 2;
}
