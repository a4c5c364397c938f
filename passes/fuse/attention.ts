/**
 * softmax(scale · Q · Kᵀ + mask) · V, over [batch, heads, length, size]. The scale may stand at Q, at Kᵀ, at their product or
 * at several of them. Formula: Vaswani et al., Attention Is All You Need, equation 1; ONNX, Attention-23.
 */
import { type Builder, elemOf, shapeOf } from "../../ir/build.js";
import { constant, isOp, only, type Value } from "../../ir/graph.js";
import { isAlongLast, operandPairs, producerOf, withNumber } from "../fusing/match.js";
import { tensorOf } from "../../ir/tensor.js";
import { sameShape, sameType } from "../../ir/types.js";
import { reshaped, transposed } from "../fusing/views.js";
import type { FuseRule, Surroundings } from "../fuse-rule.js";

export default {
  name: "attention",
  opset: 23,
  apply(node, { build, isInner }) {
    const [weights, values] = node.inputs;
    if (!isOp(node, "MatMul") || !values || !isInner(weights)) return undefined;
    const softmax = producerOf(weights, "Softmax");
    if (!softmax || !isAlongLast(softmax) || !isInner(softmax.inputs[0])) return undefined;
    const { name, type } = only(node);
    for (const { scores, mask } of masked(softmax.inputs[0])) {
      const product = scaled(scores, isInner);
      const [q, turnedKeys] = isInner(product.value) ? (producerOf(product.value, "MatMul")?.inputs ?? []) : [];
      if (!q || !turnedKeys) continue;
      const [query, keys] = [scaled(q, isInner), scaled(turnedKeys, isInner)];
      if (!producerOf(keys.value, "Transpose") || shapeOf(query.value).length !== 4) continue;
      if (!isSameHeads([query.value, keys.value, values]) || !type) continue;
      const scale = product.factor * query.factor * keys.factor;
      const operands = [query.value, transposed(build, keys.value, [0, 1, 3, 2], `${name}/keys`), values];
      const seen = mask && spread(build, mask, shapeOf(scores).slice(-2), `${name}/mask`);
      return [build.op("Attention", seen ? [...operands, seen] : operands, name, type, { scale: { kind: "float", value: scale } })];
    }
    return undefined;
  },
} satisfies FuseRule;

interface Scaled {
  readonly value: Value;
  readonly factor: number;
}

/** A value as a multiple of another one. */
function scaled(value: Value, isInner: Surroundings["isInner"]): Scaled {
  const node = isInner(value) ? producerOf(value, "Mul", "Div") : undefined;
  const found = withNumber(node);
  if (!node || !found) return { value, factor: 1 };
  return { value: found.value, factor: isOp(node, "Div") ? 1 / found.number : found.number };
}

/** The ways to read a value as masked scores. */
function masked(value: Value | undefined): readonly { readonly scores: Value; readonly mask?: Value }[] {
  if (!value) return [];
  const sum = producerOf(value, "Add");
  if (!sum) return [{ scores: value }];
  return operandPairs(sum).flatMap(([scores, mask]) => (sameType(scores.type, value.type) ? [{ scores, mask }] : []));
}

/** Whether all have the same batch and heads. A matrix product would broadcast them, Attention does not. */
function isSameHeads(values: readonly Value[]): boolean {
  const [first, ...others] = values.map((value) => shapeOf(value).slice(0, -2));
  return first?.length === 2 && others.every((other) => sameShape(other, first));
}

/** A mask of four axes that has a row for every query and a column for every key, as ONNX Runtime's kernel wants it. */
function spread(build: Builder, mask: Value, lengths: readonly number[], name: string): Value {
  const shape = shapeOf(mask);
  const four = [...new Array<number>(4 - shape.length).fill(1), ...shape];
  const whole = [...four.slice(0, 2), ...lengths];
  const view = reshaped(build, mask, four, `${name}/view`);
  if (sameShape(four, whole)) return view;
  const sizes = constant(`${name}/shape`, tensorOf("int64", [whole.length], whole));
  return build.op("Expand", [view, sizes], name, { elem: elemOf(mask), shape: whole });
}
