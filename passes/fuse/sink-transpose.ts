/**
 * Moves a transpose behind operators that work on any order of axes: norms of a last axis that stays last, splits, squeezes, and
 * concatenations of values that are all transposed in the same way. There it can cancel with the opposite transpose.
 */
import { elemOf, shapeOf } from "../../ir/build.js";
import { smallConstant } from "../../ir/constants.js";
import { type Attribute, constant, intAttribute, intsAttribute, isOp, makeNode, type Node, type Value } from "../../ir/graph.js";
import { isAlongLast, isTransposeBy, producerOf } from "../fusing/match.js";
import { tensorOf } from "../../ir/tensor.js";
import { permOf, transposed } from "../fusing/views.js";
import type { FuseRule, Surroundings } from "../fuse-rule.js";

export default {
  name: "sink-transpose",
  opset: 13,
  apply(node, { build, isInner }) {
    const turn = isInner(node.inputs[0]) ? producerOf(node.inputs[0], "Transpose") : undefined;
    const [source] = turn?.inputs ?? [];
    if (!turn || !source) return undefined;
    const perm = permOf(source, intsAttribute(turn, "perm"));
    const before = movedBefore(node, source, perm, isInner);
    if (!before) return undefined;
    const outputs = node.outputs.map((value) => {
      const shape = shapeOf(value);
      const from = before.perm.map((_, axis) => shape[before.perm.indexOf(axis)] ?? 1);
      return { name: `${value.name}/unturned`, type: { elem: elemOf(value), shape: from } };
    });
    const attributes = new Map([...node.attributes, ...Object.entries(before.attributes ?? {})]);
    const made = makeNode({ ...node, inputs: before.inputs, outputs, attributes });
    build.nodes.push(made);
    return made.outputs.map((value, i) => transposed(build, value, before.perm, node.outputs[i]?.name ?? ""));
  },
} satisfies FuseRule;

/** The node when it comes before the transpose: its operands and attributes there, and the transpose of its results. */
interface Before {
  readonly inputs: Node["inputs"];
  readonly attributes?: Readonly<Record<string, Attribute>>;
  readonly perm: readonly number[];
}

function movedBefore(node: Node, source: Value, perm: readonly number[], isInner: Surroundings["isInner"]): Before | undefined {
  const [, ...others] = node.inputs;
  const own = (axis: number): number => perm[axis < 0 ? axis + perm.length : axis] ?? 0;
  const axisAttribute = (axis: number): Readonly<Record<string, Attribute>> => ({ axis: { kind: "int", value: BigInt(axis) } });
  if (isOp(node, "LayerNormalization", "RMSNormalization")) {
    const isOfLast = isAlongLast(node) && own(-1) === perm.length - 1 && others.every((value) => !value || shapeOf(value).length === 1);
    return isOfLast ? { inputs: [source, ...others], attributes: axisAttribute(-1), perm } : undefined;
  }
  if (isOp(node, "Split")) return { inputs: [source, ...others], attributes: axisAttribute(own(intAttribute(node, "axis", 0))), perm };
  if (isOp(node, "Squeeze")) {
    const axes = smallConstant(others[0])?.map(own);
    if (!axes) return undefined;
    const left = perm.filter((axis) => !axes.includes(axis));
    const given = constant("axes", tensorOf("int64", [axes.length], axes));
    return { inputs: [source, given], perm: left.map((axis) => axis - axes.filter((gone) => gone < axis).length) };
  }
  if (isOp(node, "Concat")) {
    const turns = node.inputs.map((value) => (isInner(value) ? producerOf(value, "Transpose") : undefined));
    if (!turns.every((turn) => isTransposeBy(turn, perm))) return undefined;
    return { inputs: turns.map((turn) => turn?.inputs[0]), attributes: axisAttribute(own(intAttribute(node, "axis", 0))), perm };
  }
  return undefined;
}
