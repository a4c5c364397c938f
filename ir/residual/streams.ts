/**
 * Streams: chains of residual adds, each of which starts from the sum of the one before. Of all the adds in a graph they are
 * those of a transformer's blocks; the others stand inside a branch (the inner add of a block whose attention reaches the
 * stream through the feed-forward network only) or reach over whole blocks (long skips).
 */
import { isOp, type Node, type Value } from "../graph.js";
import { type ResidualAdd, unmoved } from "./adds.js";

/** The adds that carry a stream on, in the order of the graph; `skips` gives the stream in front of a long skip by that behind it. */
export function streamAdds(adds: readonly ResidualAdd[], skips: ReadonlyMap<Value, Value>): readonly ResidualAdd[] {
  const bySum = new Map(adds.map((add) => [add.sum, add]));
  const previous = (add: ResidualAdd): ResidualAdd | undefined => bySum.get(whole(add.before));

  // The longest chain that goes on from an add, itself counted; of the adds that start from one value, only the longest goes on.
  const next = new Map<Value, ResidualAdd>();
  const lengths = new Map<ResidualAdd, number>();
  const lengthOf = (add: ResidualAdd): number => lengths.get(add) ?? 0;
  for (const add of [...adds].reverse()) {
    const follower = next.get(add.sum);
    lengths.set(add, 1 + (follower ? lengthOf(follower) : 0));
    const from = whole(add.before);
    const rival = next.get(from);
    // Walking backwards, the rival is the outer one.
    if (!rival || lengthOf(add) > lengthOf(rival)) next.set(from, add);
  }
  const carried = adds.filter((add) => next.get(whole(add.before)) === add);

  const chains = new Map<ResidualAdd, number>();
  for (const add of carried) {
    const before = previous(add);
    chains.set(add, (before && chains.get(before)) ?? lengthOf(add));
  }
  // Longer chains first: what stands inside one of their branches, or has one of their adds inside, is no stream.
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

  /** What a value is a reshaping of, or all slices of put together again, or a long skip to. */
  function whole(value: Value): Value {
    const at = unmoved(value);
    const part = skips.get(at) ?? sliced(at);
    return part ? whole(part) : at;
  }
}

/** The value that a Concat puts together again from its slices. */
function sliced(value: Value): Value | undefined {
  if (!isOp(value.producer, "Concat")) return undefined;
  const parts = (value.producer?.inputs ?? []).map((part) => {
    const { producer } = unmoved(part ?? value);
    return isOp(producer, "Slice", "Split") ? producer?.inputs[0] : undefined;
  });
  const [first] = parts;
  return parts.every((part) => part === first) ? first : undefined;
}
