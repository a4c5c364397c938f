/**
 * Keys and values whose heads are each repeated for a group of query heads: Attention can repeat them itself. Formula: Ainslie
 * et al., GQA, section 2.2; ONNX, Attention-23: query head i reads key head ⌊i / group⌋.
 */
import { type Builder, shapeOf } from "../../ir/build.js";
import { isOp, makeNode, type Value } from "../../ir/graph.js";
import { isTransposeBy, producerOf } from "../fusing/match.js";
import { sameShape } from "../../ir/types.js";
import { reshaped, RESHAPES, transposed, TURN } from "../fusing/views.js";
import type { FuseRule } from "../fuse-rule.js";

export default {
  name: "grouped-attention",
  opset: 23,
  apply(node, { build }) {
    const [query, keys, values, ...rest] = node.inputs;
    if (!isOp(node, "Attention") || !query || !keys || !values || shapeOf(query).length !== 4) return undefined;
    const [k, v] = [ungrouped(build, keys), ungrouped(build, values)];
    if (!k || !v || shapeOf(k)[1] !== shapeOf(v)[1]) return undefined;
    const made = makeNode({ ...node, inputs: [query, k, v, ...rest] });
    build.nodes.push(made);
    return made.outputs;
  },
} satisfies FuseRule;

/** The value [batch, heads, length, size] with each head once, from one in which each head is repeated next to itself. */
function ungrouped(build: Builder, value: Value): Value | undefined {
  const turn = isTransposeBy(value.producer, TURN) ? value.producer : undefined;
  const flat = turn?.inputs[0] ?? value;
  const repeated = producerOf(flat, ...RESHAPES)?.inputs[0];
  const once = producerOf(repeated, "Expand", "Tile")?.inputs[0];
  if (!repeated || !once) return undefined;
  // The axis after the heads is the one that repeats them.
  const axis = turn ? 3 : 2;
  const [from, to, merged] = [shapeOf(once), shapeOf(repeated), shapeOf(flat)];
  const group = to[axis] ?? 1;
  const isRepeat = from[axis] === 1 && sameShape(to, from.toSpliced(axis, 1, group));
  if (!isRepeat || !sameShape(merged, to.toSpliced(axis - 1, 2, (to[axis - 1] ?? 1) * group))) return undefined;
  const single = reshaped(build, once, from.toSpliced(axis, 1), `${value.name}/once`);
  return turn ? transposed(build, single, TURN, `${value.name}/turned`) : single;
}
