/**
 * Residual adds x ← x + f(x), wherever they stand in a graph.
 *
 * The branch operand of a residual add is computed from its other operand, the stream. The adds of rotary embeddings, shifts, biases,
 * masks and position tables fail this test. In parallel branches, (x + f(x)) + g(x), the second branch starts from a value of the
 * stream a few adds earlier.
 */
import { operands, uses } from "../analysis.js";
import { constantOf } from "../constants.js";
import { type Graph, isOp, isRuntimeOp, type Node, type Value } from "../graph.js";
import { isDataMovement, isLinear, isShapeOnly, type Dependence } from "../ops.js";

export interface ResidualAdd {
  readonly node: Node;
  /** The operand that is the stream before the add. */
  readonly before: Value;
  /** The other operand: the output of the branch after its gate and anything else that follows it. */
  readonly operand: Value;
  /** The stream after the add. */
  readonly sum: Value;
  /** The value of the stream that the branch starts from. */
  readonly root: Value;
  /** The nodes on the paths from `root` to `operand`. */
  readonly region: ReadonlySet<Node>;
  /** Whether the branch is parallel to the one that is added before it. */
  readonly parallel: boolean;
}

/** How many adds back a parallel branch may start. */
const MOST_PARALLEL = 3;

export interface ResidualAdds {
  /** In the order of the graph. Not all of them belong to transformer blocks. */
  readonly adds: readonly ResidualAdd[];
  /** Long skips: maps the sum of a stream and an earlier value of the same stream to the stream before that add. */
  readonly skips: ReadonlyMap<Value, Value>;
}

/** All residual adds whose branch contains a linear layer. */
export function residualAdds(graph: Graph, dependsOn: Dependence): ResidualAdds {
  const levels = levelsOf(graph);
  const readers = uses(graph);
  const found = new Map<Value, ResidualAdd>();
  const skips = new Map<Value, Value>();
  for (const node of graph.nodes) {
    const add = additionOf(node);
    if (!add || dependsOn(add.a) === 0 || dependsOn(add.b) === 0) continue;
    const whole = startOf(add.a, add.b, add) ?? startOf(add.b, add.a, add);
    if (!whole) continue;
    if (isLater(whole.operand, whole.root)) skips.set(add.sum, unscaled(whole.operand));
    else if ([...whole.region].some((inner) => isLinear(inner, dependsOn))) found.set(add.sum, whole);
  }
  return { adds: [...found.values()], skips };

  /** Whether a value is a later value of the stream of `root`: `root` plus branches. */
  function isLater(value: Value, root: Value): boolean {
    let at: Value | undefined = unmoved(unscaled(value));
    while (at && at !== root) {
      const before: Value | undefined = skips.get(at) ?? found.get(at)?.before;
      at = before && unmoved(before);
    }
    return at === root;
  }

  /** The residual add with `before` as its stream, if `operand` is computed from that stream. */
  function startOf(before: Value, operand: Value, { node, sum }: Addition): ResidualAdd | undefined {
    let at: Value | undefined = unscaled(before);
    for (let back = 0; at && back < MOST_PARALLEL; back++) {
      const root = unmoved(at);
      const region = hasOtherReaders(at) ? nodesBetween(root, operand, levels) : undefined;
      // An earlier value of the stream itself is no branch.
      if (region && (region.size > 0 || back === 0)) return { node, before, operand, sum, root, region, parallel: back > 0 };
      at = found.get(root)?.before;
    }
    return undefined;
  }

  /** The value before a scaling by a constant number (DeepNorm scales the stream, arXiv 2203.00555). */
  function unscaled(value: Value): Value {
    const { producer } = unmoved(value);
    const factor = isOp(producer, "Mul") ? producer?.inputs.findIndex((input) => constantOf(input)?.shape.length === 0) : -1;
    return producer && factor !== undefined && factor >= 0 ? (producer.inputs[1 - factor] ?? value) : value;
  }

  /** Whether the value, or a value that it reshapes, has further readers: without any, no branch can start from it. */
  function hasOtherReaders(value: Value): boolean {
    const hasOthers = (readers.get(value)?.length ?? 0) > 1;
    return hasOthers || (unmoved(value) !== value && value.producer?.inputs[0] !== undefined && hasOtherReaders(value.producer.inputs[0]));
  }
}

interface Addition {
  readonly node: Node;
  readonly a: Value;
  readonly b: Value;
  readonly sum: Value;
}

/** The operands and the sum of a node that adds two values: an Add, or ONNX Runtime's fusion of an Add and the norm after it. */
function additionOf(node: Node): Addition | undefined {
  const [a, b] = node.inputs;
  const isFused = isRuntimeOp(node, "SkipLayerNormalization", "SkipSimplifiedLayerNormalization");
  // Its fourth output is the sum; exporters leave it out if nothing reads it.
  const sum = isFused ? (node.outputs[3] ?? node.outputs[0]) : isOp(node, "Add") ? node.outputs[0] : undefined;
  return a && b && sum ? { node, a, b, sum } : undefined;
}

/** The value before any reshaping, casting or clamping. */
export function unmoved(value: Value): Value {
  let at = value;
  for (let next = at.producer; next && (isDataMovement(next) || isOp(next, "Clip")) && next.inputs[0]; next = at.producer)
    at = next.inputs[0];
  return at;
}

/** For every node, the length of the longest path to it from an input or a constant. */
function levelsOf(graph: Graph): ReadonlyMap<Node, number> {
  const levels = new Map<Node, number>();
  for (const node of graph.nodes) {
    let level = 0;
    for (const { producer } of operands(node))
      if (producer && !isShapeOnly(producer)) level = Math.max(level, (levels.get(producer) ?? 0) + 1);
    levels.set(node, level);
  }
  return levels;
}

/** The nodes on the paths from `start` to `end`; undefined if there is no path. Only visits nodes on a higher level than `start`. */
function nodesBetween(start: Value, end: Value, levels: ReadonlyMap<Node, number>): ReadonlySet<Node> | undefined {
  const levelOf = (node: Node | undefined): number => (node ? (levels.get(node) ?? 0) : -1);
  const floor = levelOf(start.producer);
  const visited = new Set<Node>();
  const open = [end];
  let reached = false;
  for (let at = open.pop(); at; at = open.pop()) {
    if (at === start) reached = true;
    const { producer } = at;
    if (!producer || isShapeOnly(producer) || visited.has(producer) || levelOf(producer) <= floor) continue;
    visited.add(producer);
    open.push(...operands(producer));
  }
  if (!reached) return undefined;
  const region = new Set<Node>();
  for (const node of [...visited].sort((a, b) => levelOf(a) - levelOf(b))) {
    if (operands(node).some((value) => value === start || (value.producer && region.has(value.producer)))) region.add(node);
  }
  return region;
}
