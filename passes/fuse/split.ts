/** Slices that together cut a whole axis into parts become one Split. */
import { type Builder, shapeOf } from "../../ir/build.js";
import { smallConstant } from "../../ir/constants.js";
import { constant, isOp, makeNode, type Node, only, type Value } from "../../ir/graph.js";
import { tensorOf } from "../../ir/tensor.js";
import type { FuseRule } from "../fuse-rule.js";

export default {
  name: "split",
  opset: 13,
  apply(node, { build, siblings, now }) {
    const own = partOf(node);
    const [x] = node.inputs;
    if (!own || !x) return undefined;
    const parts = siblings()
      .flatMap((sibling) => partOf(sibling) ?? [])
      .filter(({ axis }) => axis === own.axis);
    const sorted = [...parts].sort((a, b) => a.start - b.start);
    if (parts.length < 2 || !sorted.every(({ start }, i) => start === (sorted[i - 1]?.end ?? 0))) return undefined;
    if (sorted.at(-1)?.end !== shapeOf(x)[own.axis]) return undefined;
    const earlier = parts[0] && now(parts[0].value).producer;
    const split = earlier && isOp(earlier, "Split") ? earlier : makeSplit(build, x, sorted);
    return split.outputs.filter((_, i) => sorted[i]?.start === own.start);
  },
} satisfies FuseRule;

/** Elements `start` to `end` of an axis. */
interface Part {
  readonly axis: number;
  readonly start: number;
  readonly end: number;
  readonly value: Value;
}

/** The part that a slice takes, if it slices one axis in steps of 1. */
function partOf(node: Node): Part | undefined {
  const [x, ...bounds] = node.inputs;
  if (!isOp(node, "Slice") || !x) return undefined;
  const [starts, ends, axes, steps] = bounds.map(smallConstant);
  const shape = shapeOf(x);
  const [start, end, axis] = [starts?.[0], ends?.[0], axes?.[0]];
  if (start === undefined || end === undefined || axis === undefined || axes?.length !== 1) return undefined;
  if (bounds[3] && steps?.[0] !== 1) return undefined;
  const own = axis < 0 ? axis + shape.length : axis;
  const size = shape[own] ?? 0;
  const within = (at: number): number => Math.min(size, Math.max(0, at < 0 ? at + size : at));
  return { axis: own, start: within(start), end: within(end), value: only(node) };
}

function makeSplit(build: Builder, x: Value, parts: readonly Part[]): Node {
  const [first] = parts;
  const sizes = parts.map(({ start, end }) => end - start);
  const name = `${first?.value.name ?? x.name}/split`;
  const split = makeNode({
    opType: "Split",
    name,
    inputs: [x, constant(`${name}/sizes`, tensorOf("int64", [sizes.length], sizes))],
    outputs: parts.map(({ value: { name, type } }) => ({ name, type })),
    attributes: new Map([["axis", { kind: "int", value: BigInt(first?.axis ?? 0) }]]),
  });
  build.nodes.push(split);
  return split;
}
