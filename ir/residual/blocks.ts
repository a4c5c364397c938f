/** Assigns branches to transformer blocks: block numbers and module paths. */
import type { BranchKind } from "../dit.js";
import type { Node, Value } from "../graph.js";
import { isLinear, type Dependence } from "../ops.js";
import { unmoved } from "./adds.js";
import type { ResidualBranch } from "./index.js";

/** A branch with its place in the network. */
export interface PlacedBranch {
  readonly branch: ResidualBranch;
  readonly stream: string;
  /** Index of its block among those of its stream, from 0. */
  readonly block: number;
}

/** Numbers the blocks of each stream. A block begins with attention and has one branch of each kind, not counting parallel branches. */
export function placed(branches: readonly ResidualBranch[], streamOf: (branch: ResidualBranch) => string): readonly PlacedBranch[] {
  const blocks = new Map<string, { block: number; readonly kinds: Set<BranchKind> }>();
  return branches.map((branch) => {
    const stream = streamOf(branch);
    const { kind, add } = branch;
    const current = blocks.get(stream);
    const begins = !current || (!add.parallel && (kind === "attn" || kind === "single" || current.kinds.has(kind)));
    const here = begins ? { block: (current?.block ?? -1) + 1, kinds: new Set<BranchKind>() } : current;
    here.kinds.add(kind);
    blocks.set(stream, here);
    return { branch, stream, block: here.block };
  });
}

/** Whether some attentions see the tokens in their order and others see them turned. */
export function takesTurns(branches: readonly ResidualBranch[]): boolean {
  return new Set(branches.filter(({ kind }) => kind === "attn").map(({ entry }) => entry.turned)).size > 1;
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
    const weights = site.branches.flatMap(({ branch }) => [...branch.add.region].filter(isScoped));
    const path = pathOf(weights.map(({ scope }) => scope));
    if (path.length === 0) continue;
    common.set(site, path);
    siblings.set(blockOf(site), [...(siblings.get(blockOf(site)) ?? []), path]);
  }
  const paths = new Map<T, string>();
  for (const [site, path] of common) {
    const paired = siblings.get(blockOf(site)) ?? [];
    // The module one level below the common prefix of the block's branches; for a single branch, the module of its last weight.
    const last = site.branches.length === 1 ? pathOf([weightBehind(site.value)?.scope]) : [];
    const own = paired.length > 1 ? path.slice(0, commonPrefix(paired).length + 1) : last.length > 0 ? last : path;
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
