/**
 * Where the cached sites of a network are: at each of its branches, or around whole blocks.
 *
 *   branch   the output of the branch, before its norm and its gate (SmoothCache, FORA)
 *   norm     after the norm that some networks have between branch and gate
 *   gate     after the gate: the value that is added to the stream
 *   block    everything that a block adds to its stream (Block Caching, Δ-DiT)
 *   ranges   everything that a range of blocks adds to its stream
 *   stack    everything that all blocks add to their stream (MagCache, TaylorSeer-Lite, TeaCache)
 *
 * A range is between two points of one chain (chains.ts). It ends where the width or the length of the stream changes. Where only the layout
 * does, the front is moved in the same way before the two are compared. The sum of what blocks add is no value of the graph. So the stream after the blocks is rewritten as the stream before them plus the
 * difference of the two. That is exact up to rounding, and the difference can be read from an earlier step.
 */
import { notRecognised, unknownName } from "../diagnostics.js";
import type { BranchKind } from "../dit.js";
import { entryAt } from "../entries.js";
import { type Graph, isOp, makeNode, makeOp, type Node, type Value } from "../graph.js";
import { carriedOperand, isDataMovement, isElementwise, isNorm } from "../ops.js";
import { rewrite } from "../rewrite.js";
import { elementCount, staticShape } from "../types.js";
import type { PlacedBranch } from "./blocks.js";
import type { Chain, ResidualBranch } from "./index.js";

/** `ranges`: blocks [first, last], both included. */
export type Cut =
  | { readonly at: "branch" | "norm" | "gate" | "block" | "stack" }
  | { readonly at: "ranges"; readonly ranges: readonly (readonly [first: number, last: number])[] };

const PLACES = ["branch", "norm", "gate", "block", "stack"] as const;
const RANGES = /^\d+-\d+(,\d+-\d+)*$/;

/** The cut of a text: `branch`, `norm`, `gate`, `block`, `stack`, or ranges of blocks such as `0-13,14-27`; undefined for anything else. */
export function parseCut(text: string): Cut | undefined {
  const at = PLACES.find((known) => known === text);
  if (at) return { at };
  const ranges = text.split(",").map((range) => {
    const [first = NaN, last = NaN] = range.split("-").map(Number);
    return [first, last] as const;
  });
  const bounds = ranges.flat();
  const ascend = bounds.every((bound, i) => i === 0 || bound > (bounds[i - 1] ?? 0) || (i % 2 === 1 && bound === bounds[i - 1]));
  return RANGES.test(text) && ascend ? { at: "ranges", ranges } : undefined;
}

/** A description of the texts that `parseCut` takes. */
export const CUT_WORDS = `${PLACES.join(", ")}, or ranges of blocks such as 0-13,14-27`;

/** A place where the network is cut, and the branches that it covers. */
export interface CutSite {
  readonly kind: BranchKind;
  readonly stream: string;
  /** The first block that it covers. */
  readonly block: number;
  /** The last block, if it covers several. */
  readonly last?: number | undefined;
  readonly gated: boolean;
  readonly value: Value;
  readonly branches: readonly PlacedBranch[];
}

/**
 * A branch as a recogniser returns it.
 * If several streams share it, `value` is its whole output and `places` are all the adds of its slices.
 */
export interface SharedBranch extends PlacedBranch {
  readonly value?: Value | undefined;
  readonly places?: readonly PlacedBranch[] | undefined;
}

/**
 * The sites of a cut, in execution order, and the graph with their values. Throws NOT_RECOGNISED where a fused node hides the end of a
 * block, UNKNOWN_NAME for blocks that do not exist.
 */
export function cutAt(
  graph: Graph,
  branches: readonly SharedBranch[],
  cut: Cut,
): { readonly graph: Graph; readonly sites: readonly CutSite[] } {
  switch (cut.at) {
    case "branch":
    case "norm":
    case "gate": {
      const points = { branch: "output", norm: "normed", gate: "gatedOutput" } as const;
      const point = points[cut.at];
      const sites = branches.map((one): CutSite => {
        const { branch, stream, block, value, places = [one] } = one;
        const gated = branch.gated && cut.at !== "gate";
        return { kind: branch.kind, stream, block, gated, value: value ?? branch[point], branches: places };
      });
      return { graph, sites };
    }
    case "block":
    case "ranges":
    case "stack":
      return aroundBlocks(graph, blockRangesOf(branches, cut));
    default:
      throw new Error(`internal: a cut at ${String(cut satisfies never)}`);
  }
}

/** Branches that follow one another on a chain. They are cached together. */
interface BlockRange {
  readonly branches: PlacedBranch[];
  /** What moves the stream between them, in order. */
  readonly moves: Node[];
}

/** The block ranges of each chain that the cut asks for, in execution order. */
function blockRangesOf(branches: readonly SharedBranch[], cut: Cut): readonly BlockRange[] {
  const most = branches.reduce((last, { block }) => Math.max(last, block), 0);
  const outside = cut.at === "ranges" ? cut.ranges.find(([, last]) => last > most) : undefined;
  if (outside) throw unknownName("range of blocks", outside.join("-"), [`0-${most}`]);
  /** What the branches of one range have in common; undefined for those of no range. */
  const rangeOf = ({ stream, block }: PlacedBranch): string | undefined => {
    if (cut.at === "block") return `${stream} ${block}`;
    const range = cut.at === "ranges" ? cut.ranges.find(([first, last]) => first <= block && block <= last) : "all";
    return range && String(range);
  };
  const ranges: BlockRange[] = [];
  const open = new Map<Chain, BlockRange>();
  for (const one of branches.flatMap((branch) => branch.places ?? [branch])) {
    const { chain } = one.branch;
    const current = open.get(chain);
    const last = current?.branches.at(-1);
    const moves = last && rangeOf(last) === rangeOf(one) ? movesBetween(last.branch, one.branch) : undefined;
    if (current && moves) {
      current.branches.push(one);
      for (const move of moves) current.moves.push(move);
    } else if (rangeOf(one) === undefined) open.delete(chain);
    else {
      const begun = { branches: [one], moves: [] };
      ranges.push(begun);
      open.set(chain, begun);
    }
  }
  return ranges;
}

/** What moves the stream from one branch to the next; undefined where it changes its width or length, or is moved in other ways. */
function movesBetween(
  { add: { sum }, tokens }: ResidualBranch,
  { add: { before }, tokens: later }: ResidualBranch,
): readonly Node[] | undefined {
  const moves: Node[] = [];
  let at: Value | undefined = before;
  for (; at && at !== sum; at = at.producer && streamOperand(at.producer))
    if (at.producer && isDataMovement(at.producer)) moves.push(at.producer);
  if (at) return moves.reverse();
  const isSameShape = (sum.type?.shape?.join() ?? "") === (before.type?.shape?.join() ?? "");
  return isSameShape && tokens.turned === later.turned ? [] : undefined;
}

/** The operand of a node between two branches that is the stream: what it moves, or what it scales, shifts or normalises without a change of shape. */
function streamOperand(node: Node): Value | undefined {
  const count = ({ type }: Value): number => elementCount(staticShape(type) ?? []);
  const [output] = node.outputs;
  if (isNorm(node) || isDataMovement(node)) return node.inputs[0];
  if (!isElementwise(node)) return carriedOperand(node);
  return node.inputs.find((value) => value && output && !value.data && count(value) === count(output));
}

function aroundBlocks(graph: Graph, ranges: readonly BlockRange[]): { readonly graph: Graph; readonly sites: readonly CutSite[] } {
  const begins = new Map<Node, BlockRange>();
  const ends = new Map<Node, BlockRange>();
  for (const range of ranges) {
    const [first, last] = [entryAt(range.branches, 0).branch.add, entryAt(range.branches, range.branches.length - 1).branch.add];
    if (!isOp(last.node, "Add"))
      throw notRecognised(
        `The end of a block is inside a fused node, ${last.node.opType}.`,
        "Cut at branches, or export the model without ONNX Runtime's extended optimisation.",
        last.node.name,
      );
    begins.set(first.node, range);
    ends.set(last.node, range);
  }
  const moving = new Set(ranges.flatMap(({ moves }) => moves));
  /** The nodes that move the stream, with the operands that they have by now. */
  const moved = new Map<Node, Node>();
  const fronts = new Map<BlockRange, Value>();
  const sites = new Map<BlockRange, CutSite>();
  const next = rewrite(graph, (node, original) => {
    if (moving.has(original)) moved.set(original, node);
    const begun = begins.get(original);
    if (begun) fronts.set(begun, frontOf(begun, node, original));
    const range = ends.get(original);
    if (!range) return undefined;
    const [sum, front] = [entryAt(node.outputs, 0), fronts.get(range)];
    if (!front) throw new Error(`internal: the blocks before '${sum.name}' end before they begin`);
    const moves = range.moves.map((move) => moved.get(move) ?? move);
    const copies: Node[] = [];
    for (const move of moves) copies.push(movedAlike(move, copies.at(-1)?.outputs[0] ?? front));
    const start = copies.at(-1)?.outputs[0] ?? front;
    const added = makeOp("Sub", [sum, start], { name: `${sum.name}/added`, type: sum.type });
    const again = makeOp("Add", [start, added.value], { name: `${sum.name}/again`, type: sum.type });
    const blocks = range.branches.map(({ block }) => block);
    const [block, last] = [Math.min(...blocks), Math.max(...blocks)];
    sites.set(range, {
      kind: "block",
      stream: [...new Set(range.branches.map(({ stream }) => stream))].join("+"),
      block,
      last: last > block ? last : undefined,
      gated: false,
      value: added.value,
      branches: range.branches,
    });
    return { nodes: [node, ...copies, added.node, again.node], outputs: [again.value] };
  });
  return { graph: next, sites: ranges.flatMap((range) => sites.get(range) ?? []) };
}

/** A copy of a node that moves its first operand, for another value. */
function movedAlike(move: Node, value: Value): Node {
  const [, ...others] = move.inputs;
  const outputs = move.outputs.map(({ name, type }) => ({ name: `${name}/front`, type }));
  return makeNode({ ...move, name: `${move.name}/front`, inputs: [value, ...others], outputs });
}

/** The value in front of a range, as an operand of its first sum. */
function frontOf(range: BlockRange, node: Node, original: Node): Value {
  const front = node.inputs[original.inputs.indexOf(entryAt(range.branches, 0).branch.add.before)];
  if (!front) throw new Error(`internal: '${node.name}' does not add to the stream`);
  return front;
}
