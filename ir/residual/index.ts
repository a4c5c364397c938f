/** Finds the residual streams of a graph and the branches that are added to them. All recognisers start from these. */
import { operands } from "../analysis.js";
import { type BranchKind, LATENT } from "../dit.js";
import { type Graph, isOp, type Node, type Value } from "../graph.js";
import { type Dependence, isAttentionCore, isElementwise, isLinear, isProduct } from "../ops.js";
import { courseOf, cutPoints, type CutPoints, spanOf } from "./branch.js";
import { type Chain, chainsOf, type ResidualAdd } from "./chains.js";
import { mixesNeighbours } from "./functions.js";
import { liveTokens, sourcesOf, type Tokens, tokensOf } from "./tokens.js";

export { sourcesOf, type TokenSource } from "./tokens.js";

export type { Chain, CutPoints, ResidualAdd, Tokens };

/** A branch of a transformer block. */
export interface ResidualBranch extends CutPoints {
  readonly kind: BranchKind;
  readonly add: ResidualAdd;
  /** The stream that it is added to. */
  readonly chain: Chain;
  /** The tokens of the stream that it is added to. */
  readonly tokens: Tokens;
  /** The tokens that enter its first linear layer. */
  readonly entry: Tokens;
  /** How many tokens each token attends to, where that is known. */
  readonly span: number | undefined;
  /** The largest number of branches on a path from the inputs to it. */
  readonly depth: number;
}

export interface ResidualStreams {
  /** Branches that depend on the latent, in execution order; of parallel ones, those of the latent's stream come first. */
  readonly branches: readonly ResidualBranch[];
  /** Branches that do not depend on the latent. */
  readonly constant: readonly ResidualBranch[];
  /** Residual adds whose branch belongs to no block: it is neither attention nor a feed-forward network of a stream with attention. */
  readonly others: readonly Node[];
  /** Nodes of attention to tokens of the latent that are in no branch. */
  readonly stray: readonly Node[];
  /** A node between two blocks that changes the resolution of the stream. */
  readonly resampling?: Node | undefined;
}

/** The residual streams of a graph without dead nodes. */
export function residualStreams(graph: Graph, dependsOn: Dependence): ResidualStreams {
  const { chains: all, others, resampling } = chainsOf(graph, dependsOn);
  const chains = all.flatMap((chain) => withoutEmbedding(chain));
  const adds = chains.flat();
  const tokens = tokensOf(graph, adds, dependsOn);
  const depths = depthsOf(graph, adds);
  const isLive = liveTokens(graph, tokens, dependsOn);
  const branches = chains.flatMap((chain) =>
    chain
      .filter(({ sum }) => isLive(sum))
      .map((add): ResidualBranch => {
        const course = courseOf(add, dependsOn);
        const first = [...add.nodes].find((node) => isLinear(node, dependsOn));
        const entry = tokens(first?.inputs.find((value) => dependsOn(value) !== 0) ?? add.root);
        return {
          ...{ kind: add.kind, add, chain, tokens: tokens(add.before), entry, depth: depths.get(add) ?? 0 },
          span: spanOf(course),
          ...cutPoints(add, course, dependsOn),
        };
      }),
  );
  const rank = ({ add, tokens }: ResidualBranch): number => (add.parallel ? 2 : 0) + (sourcesOf(tokens)[0] === LATENT ? 0 : 1);
  const places = new Map(graph.nodes.map((node, place) => [node, place]));
  const placeOf = ({ add }: ResidualBranch): number => places.get(add.node) ?? 0;
  branches.sort((a, b) => a.depth - b.depth || rank(a) - rank(b) || placeOf(a) - placeOf(b));
  const changes = ({ output }: ResidualBranch): boolean => (dependsOn(output) & LATENT) !== 0;
  return {
    branches: branches.filter(changes),
    constant: branches.filter((branch) => !changes(branch)),
    others: [...others, ...all.flat().flatMap((add) => (depths.has(add) ? [] : [add.node]))],
    stray: strayAttention(graph, all, dependsOn),
    resampling,
  };
}

/**
 * A chain without what embeds its tokens: feed-forward networks that no attention follows or goes before; and in front of the first
 * attention what mixes neighbouring tokens, if nothing does so later.
 */
function withoutEmbedding(chain: Chain): readonly Chain[] {
  const attends = chain.findIndex(({ kind }) => kind !== "mlp");
  if (attends < 0) return [];
  const mixes = ({ nodes }: ResidualAdd): boolean => [...nodes].some(mixesNeighbours);
  if (chain.slice(attends).some(mixes)) return [chain];
  const first = chain.slice(0, attends).findLastIndex(mixes) + 1;
  return [first === 0 ? chain : chain.slice(first)];
}

/** Attention that is in no branch: of the products of activations, those that give scores to a softmax, and attention in one node. */
function strayAttention(graph: Graph, chains: readonly Chain[], dependsOn: Dependence): readonly Node[] {
  const held = new Set(chains.flat().flatMap(({ nodes }) => [...nodes]));
  const scores = new Set<Value>();
  for (const node of graph.nodes) {
    const read = node.inputs.some((value) => value && scores.has(value));
    const isScore = isProduct(node) && isAttentionCore(node, dependsOn);
    if (isScore || (read && isElementwise(node))) for (const output of node.outputs) scores.add(output);
  }
  const attends = (node: Node): boolean =>
    isOp(node, "Softmax") ? node.inputs.some((value) => value && scores.has(value)) : isAttentionCore(node, dependsOn) && !isProduct(node);
  return graph.nodes.filter((node) => !held.has(node) && (dependsOn(node.outputs[0]) & LATENT) !== 0 && attends(node));
}

/** For each residual add, the number of those before it. */
function depthsOf(graph: Graph, adds: readonly ResidualAdd[]): ReadonlyMap<ResidualAdd, number> {
  const sums = new Map(adds.map((add) => [add.node, add]));
  const behind = new Map<Value, number>();
  const depths = new Map<ResidualAdd, number>();
  for (const node of graph.nodes) {
    let depth = operands(node).reduce((most, value) => Math.max(most, behind.get(value) ?? 0), 0);
    const add = sums.get(node);
    if (add) {
      const own = behind.get(add.operand) ?? 0;
      depths.set(add, own);
      depth = Math.max(depth, own + 1);
    }
    if (depth > 0) for (const output of node.outputs) behind.set(output, depth);
  }
  return depths;
}
