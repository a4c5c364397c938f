/**
 * Spells out sequences of tensors that are taken apart again, as exporters write splits and lists before they are simplified. No other
 * pass knows sequences, and the runtime does not tell what they hold.
 */
import { constantOf, smallConstant } from "../ir/constants.js";
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import { constant, intAttribute, isOp, makeNode, type Node, type Value, withGraph } from "../ir/graph.js";
import { type Replacement, rewrite } from "../ir/rewrite.js";
import { tensorOf } from "../ir/tensor.js";
import { isFixed } from "../ir/type-rules.js";
import type { Pass, Questions } from "./pass.js";

export default {
  name: "unpack-sequences",
  summary: "spell out sequences that are taken apart again",
  preserves: "bits",
  run: (model) =>
    withGraph(
      model,
      rewrite(model.graph, (node) => {
        if (isOp(node, "SequenceAt")) return element(node);
        return isOp(node, "ConcatFromSequence") ? joined(node) : undefined;
      }),
    ),
} satisfies Pass<Questions>;

/** One tensor of a sequence whose making is known. */
function element(node: Node): Replacement | undefined {
  const [sequence, position] = node.inputs;
  const index = smallConstant(position)?.[0];
  const { producer } = sequence ?? {};
  const [output] = node.outputs;
  if (index === undefined || !producer || !output) return undefined;
  if (isOp(producer, "SequenceConstruct")) {
    const value = producer.inputs.at(index);
    return value && { nodes: [], outputs: [value] };
  }
  const part = isOp(producer, "SplitToSequence") ? partOf(producer, index) : undefined;
  if (!part) return undefined;
  const { value, axis, start, end, isSqueezed } = part;
  const build = new Builder(node.scope);
  if (!isSqueezed) return { outputs: [build.slice(value, axis, start, end, output.name)], nodes: build.nodes };
  const at = constant(`${output.name}/at`, tensorOf("int64", [], [start]));
  const type = { elem: elemOf(value), shape: shapeOf(value).toSpliced(axis, 1) };
  const taken = build.op("Gather", [value, at], output.name, type, { axis: { kind: "int", value: BigInt(axis) } });
  return { outputs: [taken], nodes: build.nodes };
}

interface Part {
  readonly value: Value;
  readonly axis: number;
  readonly start: number;
  readonly end: number;
  /** Whether the axis goes. */
  readonly isSqueezed: boolean;
}

/** The part of a split at an index, if sizes are known. */
function partOf(split: Node, index: number): Part | undefined {
  const [value, given] = split.inputs;
  if (!value || !isFixed(value.type)) return undefined;
  const { shape } = value.type;
  const axis = (intAttribute(split, "axis", 0) + shape.length) % shape.length;
  const whole = shape[axis] ?? 0;
  const sizes = given && smallConstant(given);
  // Without sizes, and with a scalar, parts are of equal length, but for the last.
  const isList = (constantOf(given)?.shape.length ?? 0) > 0;
  if (given && !sizes) return undefined;
  const each = sizes?.[0] ?? 1;
  const lengths = isList ? (sizes ?? []) : Array.from({ length: Math.ceil(whole / each) }, (_, i) => Math.min(each, whole - i * each));
  const at = index < 0 ? index + lengths.length : index;
  const start = lengths.slice(0, at).reduce((sum, length) => sum + length, 0);
  const length = lengths[at];
  const isSqueezed = !given && intAttribute(split, "keepdims", 1) === 0;
  return length === undefined ? undefined : { value, axis, start, end: start + length, isSqueezed };
}

/** A list of tensors that are joined. */
function joined(node: Node): Replacement | undefined {
  const { producer } = node.inputs[0] ?? {};
  if (!producer || !isOp(producer, "SequenceConstruct") || intAttribute(node, "new_axis", 0) !== 0) return undefined;
  const concat = makeNode({ ...node, opType: "Concat", inputs: producer.inputs, outputs: node.outputs, attributes: axisOf(node) });
  return { nodes: [concat], outputs: concat.outputs };
}

function axisOf({ attributes }: Node): Node["attributes"] {
  return new Map([...attributes].filter(([name]) => name === "axis"));
}
