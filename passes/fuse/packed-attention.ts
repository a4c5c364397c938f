/**
 * An Attention over [batch, heads, length, size] whose operands and result are transposed from and to [batch, length, heads,
 * size] is one over [batch, length, heads · size], and the transposes are gone. ONNX, Attention-23: its 3-D form.
 */
import { type Builder, elemOf, shapeOf } from "../../ir/build.js";
import { type Attribute, isOp, makeNode, only, type Value } from "../../ir/graph.js";
import { isTransposeBy, producerOf } from "../fusing/match.js";
import { reshaped, transposed, TURN } from "../fusing/views.js";
import type { FuseRule } from "../fuse-rule.js";

export default {
  name: "packed-attention",
  opset: 23,
  apply(node, { build, isInner }) {
    const [turned] = node.inputs;
    const turn = isOp(node, "Reshape") && isInner(turned) ? producerOf(turned, "Transpose") : undefined;
    const attention = isInner(turn?.inputs[0]) && isTransposeBy(turn, TURN) ? producerOf(turn?.inputs[0], "Attention") : undefined;
    const [query, keys, values, mask, ...past] = attention?.inputs ?? [];
    if (!turned || !attention || attention.outputs.length !== 1 || !query || !keys || !values || past.some(Boolean)) return undefined;
    const { name } = only(node);
    const operands = [query, keys, values];
    // The kernel transposes the operands itself. That pays if fewer than two of them need a new transpose for it.
    if (operands.filter((value) => isTransposeBy(value.producer, TURN)).length < 2) return undefined;
    const heads = (value: Value): Attribute => ({ kind: "int", value: BigInt(shapeOf(value)[1] ?? 1) });
    const made = makeNode({
      opType: "Attention",
      name,
      scope: attention.scope,
      inputs: [...operands.map((value) => packed(build, value)), ...(mask ? [mask] : [])],
      outputs: [{ name, type: { elem: elemOf(query), shape: packedShape(shapeOf(turned)) } }],
      attributes: new Map([...attention.attributes, ["q_num_heads", heads(query)], ["kv_num_heads", heads(keys)]]),
    });
    build.nodes.push(made);
    return [reshaped(build, only(made), shapeOf(only(node)), `${name}/shaped`)];
  },
} satisfies FuseRule;

function packed(build: Builder, value: Value): Value {
  const turned = transposed(build, value, TURN, `${value.name}/turned`);
  return reshaped(build, turned, packedShape(shapeOf(turned)), `${value.name}/packed`);
}

/** [batch, length, heads, size] → [batch, length, heads · size] */
function packedShape([batch = 1, length = 1, heads = 1, size = 1]: readonly number[]): readonly number[] {
  return [batch, length, heads * size];
}
