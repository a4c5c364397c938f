/** From branches in a row to the blocks of a transformer: names, numbers, module paths. */
import type { Dependence } from "../analysis.js";
import type { BranchKind } from "../dit.js";
import type { Node, Value } from "../graph.js";
import { isLinear } from "../ops.js";
import { unmoved } from "./adds.js";
import type { ResidualBranch } from "./index.js";

/** A branch with its place in the network. */
export interface PlacedBranch {
  readonly branch: ResidualBranch;
  readonly stream: string;
  /** Index of its block among those of its stream, from 0. */
  readonly block: number;
}

/** Numbers the blocks of each stream. A block begins with attention, and has one branch of a kind, besides those that run beside it. */
export function placed(branches: readonly ResidualBranch[], streamOf: (branch: ResidualBranch) => string): readonly PlacedBranch[] {
  const blocks = new Map<string, { block: number; readonly kinds: Set<BranchKind> }>();
  return branches.map((branch) => {
    const stream = streamOf(branch);
    const { kind, parallel } = branch;
    const current = blocks.get(stream);
    const begins = !current || (!parallel && (kind === "attn" || kind === "single" || current.kinds.has(kind)));
    const here = begins ? { block: (current?.block ?? -1) + 1, kinds: new Set<BranchKind>() } : current;
    here.kinds.add(kind);
    blocks.set(stream, here);
    return { branch, stream, block: here.block };
  });
}

/** The paths of the modules that compute branches, as far as the exporter left them: labels for people, never evidence. */
export function modulePaths(
  branches: readonly PlacedBranch[],
  nodes: readonly Node[],
  dependsOn: Dependence,
): ReadonlyMap<PlacedBranch, string> {
  const shared = commonPrefix(nodes.flatMap(({ scope }) => (scope ? [scope.split(".")] : []))).length;
  const linear = (node: Node | undefined): boolean => node?.scope !== undefined && isLinear(node, dependsOn);
  const pathOf = (scopes: readonly (string | undefined)[]): string[] =>
    commonPrefix(scopes.flatMap((scope) => (scope ? [scope.split(".")] : []))).slice(shared);
  const blockOf = ({ stream, block }: PlacedBranch): string => `${stream} ${block}`;
  const common = new Map<PlacedBranch, string[]>();
  const siblings = new Map<string, string[][]>();
  for (const placed of branches) {
    const path = pathOf([...placed.branch.add.region].filter(linear).map(({ scope }) => scope));
    if (path.length === 0) continue;
    common.set(placed, path);
    siblings.set(blockOf(placed), [...(siblings.get(blockOf(placed)) ?? []), path]);
  }
  const paths = new Map<PlacedBranch, string>();
  for (const [placed, path] of common) {
    const paired = siblings.get(blockOf(placed)) ?? [];
    // The module one level below what the branches of a block have in common; of a lone branch, its last weight's.
    const last = pathOf([weightBehind(placed.branch.output)?.scope]);
    const own = paired.length > 1 ? path.slice(0, commonPrefix(paired).length + 1) : last.length > 0 ? last : path;
    paths.set(placed, own.join("."));
  }
  return paths;

  function weightBehind(value: Value): Node | undefined {
    const { producer } = value;
    if (linear(producer)) return producer;
    return producer?.inputs.flatMap((input) => (input ? [unmoved(input).producer] : [])).find(linear);
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
