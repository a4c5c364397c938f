/** Finds the residual streams of a graph and the branches that are added to them. All recognisers start from these. */
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
  /** The tokens that enter its first linear layer. */
  readonly entry: Tokens;
  /** The largest number of branches on a path from the inputs to it. */
  readonly depth: number;
}

export interface ResidualStreams {
  /** Branches that depend on the latent, in execution order; of parallel ones, those of the latent's stream come first. */
  readonly branches: readonly ResidualBranch[];
  /** Branches that do not depend on the latent. */
  readonly constant: readonly ResidualBranch[];
  /** Residual adds whose branch belongs to no block: it is neither attention nor a feed-forward network after one. */
  readonly others: readonly ResidualAdd[];
  /** A node between two blocks that changes the resolution of the stream. */
  readonly resampling?: Node | undefined;
}

/** The residual streams of a graph without dead nodes. */
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
 * For each add of a block, the number of block branches before it. Blocks begin with attention, so a feed-forward network without
 * any attention before it is an embedding and is left out.
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
  /** For values after an add: the node that has resampled the stream since, if any. */
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
