/** Regions: the nodes on the paths between two values of a graph. */
import { operands } from "../analysis.js";
import type { Graph, Node, Value } from "../graph.js";
import { isShapeOnly } from "../ops.js";

/** What is computed from a value of a stream, up to what is added to it. */
export interface Region {
  readonly root: Value;
  readonly operand: Value;
  /** The nodes on the paths from `root` to `operand`, in the order of their longest paths. */
  readonly nodes: ReadonlySet<Node>;
}

/** Whether a value belongs to a region: it is the root, or is computed from it. */
export function isWithin({ root, nodes }: Region, value: Value | undefined): boolean {
  return value !== undefined && (value === root || (value.producer !== undefined && nodes.has(value.producer)));
}

/** For every node, the length of the longest path to it from an input or a constant. Reading a shape is no step of a path. */
export type Levels = ReadonlyMap<Node, number>;

export function levelsOf(graph: Graph): Levels {
  const levels = new Map<Node, number>();
  for (const node of graph.nodes) {
    let level = 0;
    if (!isShapeOnly(node))
      for (const { producer } of operands(node)) if (producer && !isShapeOnly(producer)) level = Math.max(level, levelOf(producer) + 1);
    levels.set(node, level);
  }
  return levels;

  function levelOf(node: Node): number {
    return levels.get(node) ?? 0;
  }
}

/** The level of the node that computes a value; −1 for inputs and constants. */
export function levelOf({ producer }: Value, levels: Levels): number {
  return producer ? (levels.get(producer) ?? 0) : -1;
}

/** How often nodes have been visited in search of regions. */
export type Visits = Map<Node, number>;

/** A node that was visited so often is passed no more: it is in no branch of any network, and the search stays linear. */
const MOST_VISITS = 50;

/**
 * The nodes on the paths from `start` to `end` that pass no value for which `isBarrier` holds, in the order of their longest paths;
 * undefined if there is no such path. Only visits nodes on a higher level than `start`, and counts the visits.
 */
export function nodesBetween(
  start: Value,
  end: Value,
  { levels, visits, isBarrier }: { readonly levels: Levels; readonly visits: Visits; readonly isBarrier: (value: Value) => boolean },
): ReadonlySet<Node> | undefined {
  const floor = levelOf(start, levels);
  const visited = new Set<Node>();
  const open = [end];
  let reached = false;
  for (let at = open.pop(); at; at = open.pop()) {
    if (at === start) reached = true;
    const { producer } = at;
    if (!producer || isShapeOnly(producer) || visited.has(producer) || levelOf(at, levels) <= floor || isBarrier(at)) continue;
    const times = visits.get(producer) ?? 0;
    if (times === MOST_VISITS) continue;
    visits.set(producer, times + 1);
    visited.add(producer);
    for (const value of operands(producer)) open.push(value);
  }
  if (!reached) return undefined;
  const region = new Set<Node>();
  const inOrder = [...visited].sort((a, b) => (levels.get(a) ?? 0) - (levels.get(b) ?? 0));
  for (const node of inOrder)
    if (operands(node).some((value) => value === start || (value.producer && region.has(value.producer)))) region.add(node);
  return region;
}
