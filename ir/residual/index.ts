/** Residual streams of a graph, and what is added to them: the mechanism that every recogniser reads. */
import { operands } from "../analysis.js";
import { type BranchKind, LATENT } from "../dit.js";
import { type Graph, intsAttribute, isOp, type Node, type Value } from "../graph.js";
import { isLinear, type Dependence } from "../ops.js";
import { type ResidualAdd, residualAdds } from "./adds.js";
import { cutPoints, type CutPoints, kindOf } from "./branch.js";
import { streamAdds } from "./streams.js";
import { liveTokens, type Tokens, tokensOf } from "./tokens.js";
export type { TokenSource } from "./tokens.js";

export type { CutPoints, ResidualAdd, Tokens };

/** A branch of a transformer block. */
export interface ResidualBranch extends CutPoints {
  readonly kind: BranchKind;
  readonly add: ResidualAdd;
  /** The tokens of the stream that it is added to. */
  readonly tokens: Tokens;
  /** The tokens that its first weights are applied to. */
  readonly entry: Tokens;
  /** How many branches precede it on the way through the network, at most. */
  readonly depth: number;
}

export interface ResidualStreams {
  /** Those whose value changes with the latent, in the order of execution; of those that run beside each other, the latent's first. */
  readonly branches: readonly ResidualBranch[];
  /** Those that do not depend on the latent. */
  readonly constant: readonly ResidualBranch[];
  /** Adds to a stream that are no branch of a block: neither attention nor a feed-forward network behind some. */
  readonly others: readonly ResidualAdd[];
  /** A node between two blocks that changes the resolution of the stream. */
  readonly resampling?: Node | undefined;
}

/** What is added to the residual streams of a graph without dead nodes. */
export function residualStreams(graph: Graph, dependsOn: Dependence): ResidualStreams {
  const { adds: all, skips } = residualAdds(graph, dependsOn);
  const kinds = new Map<ResidualAdd, BranchKind>();
  for (const add of all) {
    const kind = kindOf(add, dependsOn);
    if (kind) kinds.set(add, kind);
  }
  const adds = streamAdds([...kinds.keys()], skips);
  const tokens = tokensOf(graph, adds, dependsOn);
  const depths = depthsOf(graph, adds, kinds);
  const isLive = liveTokens(graph, tokens, dependsOn);
  const branches = [...depths]
    .filter(([{ sum }]) => isLive(sum))
    .map(([add, depth]): ResidualBranch => {
      const first = [...add.region].find((node) => isLinear(node, dependsOn));
      const entry = tokens(first?.inputs.find((value) => dependsOn(value) !== 0) ?? add.root);
      return { kind: kinds.get(add) ?? "mlp", add, tokens: tokens(add.before), entry, depth, ...cutPoints(add, dependsOn) };
    });
  const rank = ({ add, tokens: { sources } }: ResidualBranch): number => (add.parallel ? 2 : 0) + (sources[0] === "latent" ? 0 : 1);
  branches.sort((a, b) => a.depth - b.depth || rank(a) - rank(b));
  const carried = new Set(adds);
  const changes = ({ output }: ResidualBranch): boolean => (dependsOn(output) & LATENT) !== 0;
  return {
    branches: branches.filter(changes),
    constant: branches.filter((branch) => !changes(branch)),
    others: all.filter((add) => !kinds.has(add) || (carried.has(add) && !depths.has(add))),
    resampling: resamplingOf(graph, all),
  };
}

/**
 * How many branches of blocks precede each add of a block. Blocks begin with attention: a feed-forward network without any
 * attention in front of it embeds something, and is left out.
 */
function depthsOf(
  graph: Graph,
  adds: readonly ResidualAdd[],
  kinds: ReadonlyMap<ResidualAdd, BranchKind>,
): ReadonlyMap<ResidualAdd, number> {
  const sums = new Map(adds.map((add) => [add.node, add]));
  const behind = new Map<Value, number>();
  const depths = new Map<ResidualAdd, number>();
  for (const node of graph.nodes) {
    let depth = operands(node).reduce((most, value) => Math.max(most, behind.get(value) ?? 0), 0);
    const add = sums.get(node);
    const own = (add && behind.get(add.operand)) ?? 0;
    const isPreamble = add && kinds.get(add) === "mlp" && own === 0 && !behind.has(add.before);
    if (add && !isPreamble) {
      depths.set(add, own);
      depth = Math.max(depth, own + 1);
    }
    if (depth > 0) for (const output of node.outputs) behind.set(output, depth);
  }
  return depths;
}

/** The first node between two residual adds that changes how many tokens a stream has. */
function resamplingOf(graph: Graph, adds: readonly ResidualAdd[]): Node | undefined {
  const sums = new Set(adds.map(({ node }) => node));
  /** Behind an add: by which node the stream was resampled there, if it was. */
  const behind = new Map<Value, Node | undefined>();
  for (const node of graph.nodes) {
    const known = operands(node).filter((value) => behind.has(value));
    let by = known.map((value) => behind.get(value)).find((found) => found !== undefined);
    if (by && sums.has(node)) return by;
    if (known.length > 0 && changesResolution(node)) by ??= node;
    if (known.length > 0 || sums.has(node)) for (const output of node.outputs) behind.set(output, by);
  }
  return undefined;
}

function changesResolution(node: Node): boolean {
  if (isOp(node, "Resize", "Upsample", "ConvTranspose", "MaxPool", "AveragePool")) return true;
  return isOp(node, "Conv") && (intsAttribute(node, "strides") ?? []).some((stride) => stride > 1);
}
