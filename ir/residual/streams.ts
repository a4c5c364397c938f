/**
 * Streams: chains of residual adds, each of which starts from the sum of the one before. They select the adds of transformer blocks
 * from all residual adds of a graph. The others are inside a branch (in blocks whose attention reaches the stream only through the
 * feed-forward network) or span whole blocks (long skips).
 */
import { isOp, type Node, type Value } from "../graph.js";
import { type ResidualAdd, unmoved } from "./adds.js";

/** The adds that form streams, in the order of the graph. `skips` maps the stream after a long skip to the stream before it. */
export function streamAdds(adds: readonly ResidualAdd[], skips: ReadonlyMap<Value, Value>): readonly ResidualAdd[] {
  const bySum = new Map(adds.map((add) => [add.sum, add]));
  const previous = (add: ResidualAdd): ResidualAdd | undefined => bySum.get(whole(add.before));

  // `lengths`: the longest chain from an add to the end, with the add itself. Of adds that start from the same value, the one with the
  // longest chain continues the stream.
  const next = new Map<Value, ResidualAdd>();
  const lengths = new Map<ResidualAdd, number>();
  const lengthOf = (add: ResidualAdd): number => lengths.get(add) ?? 0;
  for (const add of [...adds].reverse()) {
    const follower = next.get(add.sum);
    lengths.set(add, 1 + (follower ? lengthOf(follower) : 0));
    const from = whole(add.before);
    const rival = next.get(from);
    // The walk goes backwards, so of two equally long chains the outer add, which came first here, stays.
    if (!rival || lengthOf(add) > lengthOf(rival)) next.set(from, add);
  }
  const carried = adds.filter((add) => next.get(whole(add.before)) === add);

  const chains = new Map<ResidualAdd, number>();
  for (const add of carried) {
    const before = previous(add);
    chains.set(add, (before && chains.get(before)) ?? lengthOf(add));
  }
  // Longer chains first. An add inside one of their branches, or whose branch contains one of their adds, is no part of a stream.
  const byLength = carried.map((add, i) => ({ add, i, length: chains.get(add) ?? 1 })).sort((a, b) => b.length - a.length || a.i - b.i);
  const accepted = new Set<ResidualAdd>();
  const sums = new Set<Node>();
  const inside = new Set<Node>();
  for (const { add } of byLength) {
    if (inside.has(add.node) || [...add.region].some((node) => sums.has(node))) continue;
    accepted.add(add);
    sums.add(add.node);
    for (const node of add.region) inside.add(node);
  }
  return carried.filter((add) => accepted.has(add));

  /** The value of the stream behind reshapings, reassembled slices and long skips. */
  function whole(value: Value): Value {
    const at = unmoved(value);
    const part = skips.get(at) ?? sliced(at);
    return part ? whole(part) : at;
  }
}

/** The value whose slices a Concat reassembles, if it does. */
function sliced(value: Value): Value | undefined {
  if (!isOp(value.producer, "Concat")) return undefined;
  const parts = (value.producer?.inputs ?? []).map((part) => {
    const { producer } = unmoved(part ?? value);
    return isOp(producer, "Slice", "Split") ? producer?.inputs[0] : undefined;
  });
  const [first] = parts;
  return parts.every((part) => part === first) ? first : undefined;
}
