/**
 * Chains of residual sums x ← x + f(x), wherever they stand in a graph: the residual streams.
 *
 * The branch operand of a residual sum is computed from its other operand, the stream. The sums of rotary embeddings, shifts, biases,
 * masks and position tables fail this test. In parallel branches, (x + f(x)) + g(x), the second branch starts from a value of the
 * stream a few sums earlier.
 *
 * Which operand of a sum carries on is decided by the chains that lead to it, not by the sum alone. Every value has a place: the latest
 * residual sum that it comes from without passing through attention, which mixes streams. A sum with a value that is further down the
 * same chain, or further down than a branch could bring it, ends no branch: a long skip, a bypass x₀ + (x − x₀) · s, or the outer level of
 * an hourglass. There, and where neither operand is computed from the other (a condition or a position that is added again in every
 * block, a ControlNet's residual), the deeper chain carries on.
 */
import { operands, uses } from "../analysis.js";
import { type BranchKind, LATENT, TIME } from "../dit.js";
import { type Graph, isOp, type Node, type Value } from "../graph.js";
import { addedFirst, carriedOperand, isAttentionCore, isElementwise, isLinear, type Dependence } from "../ops.js";
import { kindOf } from "./branch.js";
import { unmoved, unscaled } from "./moves.js";
import { changesResolution } from "./functions.js";
import { levelOf, levelsOf, nodesBetween, type Region, type Visits } from "./regions.js";

/** The region of a branch is from a value of the stream to the operand, which comes after the gate and anything else that follows. */
export interface ResidualAdd extends Region {
  readonly node: Node;
  readonly kind: BranchKind;
  /** The operand that is the stream before the add. */
  readonly before: Value;
  /** The stream after the add. */
  readonly sum: Value;
  /** Whether the branch is parallel to the one that is added before it. */
  readonly parallel: boolean;
}

/** The residual adds of one stream, in order: each is added to what the one before has made. */
export type Chain = readonly ResidualAdd[];

export interface Chains {
  /** Longer ones first. Not all of them belong to transformer blocks. */
  readonly chains: readonly Chain[];
  /** Nodes that add something computed from the stream by weights, which is no attention and no feed-forward network. */
  readonly others: readonly Node[];
  /** The first node between two adds of a stream, behind attention, that changes its resolution. */
  readonly resampling?: Node | undefined;
}

/** How many adds back a parallel branch may start. */
const MOST_PARALLEL = 3;

/** How many adds of its own a branch may have: blocks whose attention reaches the stream through the feed-forward network have one. */
const MOST_NESTED = 1;

/** A point of a chain: behind so many of its adds. */
interface Place {
  /** The value that the chain begins with. */
  readonly front: Value;
  readonly depth: number;
  /** Whether attention is among them: what comes before may be an embedding. */
  readonly attends: boolean;
}

/** Where a value stands. `isWhole`: nothing but elementwise functions and data movement since that place. */
interface Standing {
  readonly place: Place;
  readonly isWhole: boolean;
  /** A node since that place that changes how many tokens there are, by pooling, interpolation or a convolution with strides. */
  readonly resampling?: Node | undefined;
}

/** All chains of a graph without dead nodes. */
export function chainsOf(graph: Graph, dependsOn: Dependence): Chains {
  const finder = new ChainFinder(graph, dependsOn);
  for (const node of graph.nodes) finder.visit(node);
  return { chains: untangled(finder.found), others: finder.others, resampling: finder.resampling };
}

interface Found {
  readonly add: ResidualAdd;
  readonly from: Place;
  readonly to: Place;
}

class ChainFinder {
  readonly found: Found[] = [];
  readonly others: Node[] = [];
  resampling: Node | undefined;
  private readonly levels;
  private readonly readers;
  private readonly visits: Visits = new Map();
  private readonly standings = new Map<Value, Standing>();
  private readonly sums = new Map<Value, ResidualAdd>();

  constructor(
    graph: Graph,
    private readonly dependsOn: Dependence,
  ) {
    this.levels = levelsOf(graph);
    this.readers = uses(graph);
  }

  visit(node: Node): void {
    const addition = additionOf(node);
    const isActive = addition && this.dependsOn(addition.a) !== 0 && this.dependsOn(addition.b) !== 0;
    const add = isActive ? (this.residual(addition.a, addition.b, addition) ?? this.residual(addition.b, addition.a, addition)) : undefined;
    if (!add) {
      const standing = this.carried(node);
      if (standing) for (const output of node.outputs) this.standings.set(output, standing);
      return;
    }
    const from = this.placeOf(add.before);
    if (from.attends) this.resampling ??= this.standings.get(add.before)?.resampling;
    const to = { front: from.front, depth: from.depth + 1, attends: from.attends || add.kind !== "mlp" };
    this.found.push({ add, from, to });
    this.sums.set(add.sum, add);
    for (const output of node.outputs) this.standings.set(output, { place: to, isWhole: true });
  }

  /** The residual add with `before` as its stream, if `operand` is a branch of that stream. */
  private residual(before: Value, operand: Value, { node, sum }: Addition): ResidualAdd | undefined {
    const end = this.standings.get(operand);
    let at: Value | undefined = unscaled(before);
    for (let back = 0; at && back < MOST_PARALLEL; back++) {
      const root = unmoved(at);
      const start = this.placeOf(root);
      if (start.depth === 0 && this.isEmbedding(root)) return undefined;
      const isFurther = end !== undefined && this.isBehind(end, start);
      const region = !isFurther && this.hasOtherReaders(at) ? this.regionOf(root, operand, start) : undefined;
      if (region && region.size > 0 && [...region].some((inner) => isLinear(inner, this.dependsOn))) {
        const branch = { root, nodes: region, operand };
        const kind = kindOf(branch, this.dependsOn);
        if (kind) return { ...branch, node, kind, before, sum, parallel: back > 0 };
        this.others.push(node);
        return undefined;
      }
      at = this.sums.get(root)?.before;
    }
    return undefined;
  }

  /** Whether a value is so far down a chain that it is the stream itself, or a level of its own, and no branch from `start`. */
  private isBehind({ place, isWhole }: Standing, start: Place): boolean {
    const isLater = place.front === start.front ? place.depth > start.depth : this.isComputedAfter(place.front, start.front);
    if (!isLater) return false;
    return place.depth > start.depth + MOST_NESTED || (isWhole && place.front === start.front);
  }

  /** Whether a value can be computed from another one in the same branch, as far as levels and inputs tell. */
  private isComputedAfter(value: Value, from: Value): boolean {
    const [bits, needed] = [this.dependsOn(value), this.dependsOn(from)];
    const isSameSide = (bits & LATENT) === (needed & LATENT);
    return isSameSide && (bits & needed) === needed && levelOf(value, this.levels) > levelOf(from, this.levels);
  }

  /** Whether a value is an embedded time, with conditions or without: it modulates streams and is none. */
  private isEmbedding(value: Value): boolean {
    return (this.dependsOn(value) & (LATENT | TIME)) === TIME;
  }

  /** The branch from `root` to `operand`. It does not pass the sums of another stream, which was there before. */
  private regionOf(root: Value, operand: Value, { front }: Place): ReadonlySet<Node> | undefined {
    const isBarrier = (value: Value): boolean => {
      if (!this.sums.has(value)) return false;
      const other = this.placeOf(value).front;
      return other !== front && !this.isComputedAfter(other, root);
    };
    return nodesBetween(root, operand, { levels: this.levels, visits: this.visits, isBarrier });
  }

  private placeOf(value: Value): Place {
    const known = this.standings.get(value) ?? { place: { front: value, depth: 0, attends: false }, isWhole: true };
    this.standings.set(value, known);
    return known.place;
  }

  /** The standing of a node's results: that of the operand which is furthest down a chain. Attention and joined streams begin anew. */
  private carried(node: Node): Standing | undefined {
    if (isAttentionCore(node, this.dependsOn) || (isOp(node, "Concat") && this.joinsChains(node))) return undefined;
    let best: Standing | undefined;
    let rank = -1;
    for (const value of operands(node)) {
      const standing = this.standings.get(value);
      if (!standing) continue;
      // Of two values at the same depth the stream itself goes on, and of two streams that of the latent.
      const own = 4 * standing.place.depth + ((this.dependsOn(value) & LATENT) !== 0 ? 2 : 0) + (standing.isWhole ? 1 : 0);
      if (own > rank) [best, rank] = [standing, own];
    }
    if (!best) return undefined;
    const isWhole = best.isWhole && (isElementwise(node) || carriedOperand(node) !== undefined);
    return { place: best.place, isWhole, resampling: changesResolution(node) ? node : best.resampling };
  }

  private joinsChains(node: Node): boolean {
    const fronts = operands(node).flatMap((value) => this.standings.get(value)?.place.front ?? []);
    return fronts.some((front) => front !== fronts[0]);
  }

  /** Whether the value, or a value that it reshapes, has further readers: without any, no branch can start from it. */
  private hasOtherReaders(value: Value): boolean {
    for (let at: Value | undefined = value; at; at = at.producer && carriedOperand(at.producer))
      if ((this.readers.get(at)?.length ?? 0) > 1) return true;
    return false;
  }
}

/**
 * The adds as chains. Of adds that start from the same place, the one with the longest chain behind it goes on. An add inside a branch
 * of a longer chain is no part of a stream.
 */
function untangled(found: readonly Found[]): readonly Chain[] {
  /** The place where the longest chain from here goes on. */
  const next = new Map<Place, Found>();
  const lengths = new Map<Place, number>();
  for (const one of [...found].reverse()) {
    const length = 1 + (lengths.get(one.to) ?? 0);
    // The walk goes backwards, so of two equally long chains the outer add, which came first here, stays.
    if (length <= (lengths.get(one.from) ?? 0)) continue;
    next.set(one.from, one);
    lengths.set(one.from, length);
  }
  const chains: Found[][] = [];
  const begun = new Set<Found>();
  for (const one of found) {
    if (begun.has(one)) continue;
    const chain: Found[] = [];
    for (let at: Found | undefined = one; at; at = next.get(at.to)) {
      chain.push(at);
      begun.add(at);
    }
    chains.push(chain);
  }
  // A fork that is not the longest comes after that one.
  const isFork = ([first]: Found[]): number => (first && next.get(first.from) === first ? 0 : 1);
  chains.sort((a, b) => b.length - a.length || isFork(a) - isFork(b));
  const sums = new Set<Node>();
  const inside = new Set<Node>();
  return chains.flatMap((chain): Chain[] => {
    const kept = chain.filter(({ add }) => {
      if (inside.has(add.node) || [...add.nodes].some((node) => sums.has(node))) return false;
      sums.add(add.node);
      for (const node of add.nodes) inside.add(node);
      return true;
    });
    return kept.length > 0 ? [kept.map(({ add }) => add)] : [];
  });
}

interface Addition {
  readonly node: Node;
  readonly a: Value;
  readonly b: Value;
  readonly sum: Value;
}

/** The operands and the sum of a node that adds two values: an Add, or an addition in one node with the norm after it. */
function additionOf(node: Node): Addition | undefined {
  const fused = addedFirst(node);
  const [a, b, ...others] = fused?.operands ?? (isOp(node, "Add") ? node.inputs : []);
  // Exporters leave the sum out if nothing reads it.
  const sum = fused?.sum ?? node.outputs[0];
  return a && b && sum && others.every((operand) => operand === undefined || operand.data !== undefined) ? { node, a, b, sum } : undefined;
}
