/** Assigns branches to transformer blocks: block numbers and module paths. */
import type { BranchKind } from "../dit.js";
import type { Node, Value } from "../graph.js";
import { isLinear, type Dependence } from "../ops.js";
import { unmoved } from "./moves.js";
import type { ResidualBranch } from "./index.js";

/** A branch with its place in the network. */
export interface PlacedBranch {
  readonly branch: ResidualBranch;
  readonly stream: string;
  /** Index of its block among those of its stream, from 0. */
  readonly block: number;
}

/** Numbers the blocks of each stream. */
export function placed(branches: readonly ResidualBranch[], streamOf: (branch: ResidualBranch) => string): readonly PlacedBranch[] {
  const streams = new Map<string, ResidualBranch[]>();
  for (const branch of branches) {
    const own = streams.get(streamOf(branch));
    if (own) own.push(branch);
    else streams.set(streamOf(branch), [branch]);
  }
  const blocks = new Map([...streams.values()].flatMap((own) => blocksOf(own).map((block, i) => [own[i], block])));
  return branches.map((branch) => ({ branch, stream: streamOf(branch), block: blocks.get(branch) ?? 0 }));
}

/** The block of each branch of a stream: blocks are what repeats; where nothing does, each begins with attention. */
function blocksOf(branches: readonly ResidualBranch[]): readonly number[] {
  const kinds = branches.map(({ kind }) => kind);
  const period = periodOf(kinds);
  if (period === undefined) return attentionFirst(branches);
  // Blocks of self attention and blocks of cross attention may take turns.
  const roles = kinds.slice(0, period).map((kind) => (kind === "cross_attn" ? "attn" : kind));
  const shorter = roles.includes("mlp") ? (periodOf(roles) ?? period) : period;
  const size = period % shorter === 0 ? shorter : period;
  return kinds.map((_, i) => Math.floor(i / size));
}

/**
 * The length of the shortest pattern that a list repeats; the last repetition may be cut off if the pattern begins with attention.
 * Undefined if there is none.
 */
function periodOf(kinds: readonly BranchKind[]): number | undefined {
  const { length } = kinds;
  // For every start of the list, the longest end of it with which it begins as well (Knuth, Morris, Pratt): a list repeats what is left of it.
  const borders = [0];
  const borderOf = (size: number): number => borders[size - 1] ?? 0;
  for (let i = 1; i < length; i++) {
    let border = borderOf(i);
    while (border > 0 && kinds[border] !== kinds[i]) border = borderOf(border);
    borders.push(kinds[border] === kinds[i] ? border + 1 : 0);
  }
  for (let border = borderOf(length); border > 0; border = borderOf(border))
    if (length % (length - border) === 0 || kinds[0] !== "mlp") return length - border;
  return undefined;
}

/** A block begins with attention and has one branch of each kind, not counting parallel branches. */
function attentionFirst(branches: readonly ResidualBranch[]): readonly number[] {
  let block = -1;
  const here = new Set<BranchKind>();
  return branches.map(({ kind, add: { parallel } }) => {
    if (block < 0 || (!parallel && (kind === "attn" || kind === "single" || here.has(kind)))) {
      block++;
      here.clear();
    }
    here.add(kind);
    return block;
  });
}

/** A site, as far as its module path depends on it. */
interface Computed {
  readonly stream: string;
  readonly block: number;
  readonly value: Value;
  readonly branches: readonly PlacedBranch[];
}

/** The paths of the modules that compute the sites, if the exporter left any. They are only labels for people. */
export function modulePaths<T extends Computed>(
  sites: readonly T[],
  nodes: readonly Node[],
  dependsOn: Dependence,
): ReadonlyMap<T, string> {
  const shared = commonPrefix(nodes.flatMap(({ scope }) => (scope ? [scope.split(".")] : []))).length;
  const isScoped = (node: Node | undefined): boolean => node?.scope !== undefined && isLinear(node, dependsOn);
  const pathOf = (scopes: readonly (string | undefined)[]): string[] =>
    commonPrefix(scopes.flatMap((scope) => (scope ? [scope.split(".")] : []))).slice(shared);
  const blockOf = ({ stream, block }: Computed): string => `${stream} ${block}`;
  const common = new Map<T, string[]>();
  const siblings = new Map<string, string[][]>();
  for (const site of sites) {
    const weights = site.branches.flatMap(({ branch }) => [...branch.add.nodes].filter(isScoped));
    const path = pathOf(weights.map(({ scope }) => scope));
    if (path.length === 0) continue;
    common.set(site, path);
    const paired = siblings.get(blockOf(site));
    if (paired) paired.push(path);
    else siblings.set(blockOf(site), [path]);
  }
  const ofBlocks = new Map(Array.from(siblings, ([block, paths]) => [block, { isOne: paths.length === 1, path: commonPrefix(paths) }]));
  const paths = new Map<T, string>();
  for (const [site, path] of common) {
    const block = ofBlocks.get(blockOf(site));
    // The module one level below the common prefix of the block's branches; for a single branch, the module of its last weight.
    const last = site.branches.length === 1 ? pathOf([weightBehind(site.value)?.scope]) : [];
    const own = block && !block.isOne ? path.slice(0, block.path.length + 1) : last.length > 0 ? last : path;
    paths.set(site, own.join("."));
  }
  return paths;

  function weightBehind({ producer }: Value): Node | undefined {
    if (isScoped(producer)) return producer;
    return producer?.inputs.flatMap((input) => (input ? [unmoved(input).producer] : [])).find(isScoped);
  }
}

function commonPrefix(paths: readonly (readonly string[])[]): string[] {
  const [first = [], ...rest] = paths;
  let length = first.length;
  for (const path of rest) {
    let same = 0;
    while (same < length && path[same] === first[same]) same++;
    length = same;
  }
  return first.slice(0, length);
}
