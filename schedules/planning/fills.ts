/**
 * Chooses which steps compute (fills) as a path through the run:
 * each edge from fill to fill has a cost, and the number of fills is given.
 */
import { badOption } from "../diagnostics.js";
import { missedShare } from "./threshold.js";

/** How the costs of edges combine into the cost of a path. Adding the same edge to two paths must not change which one costs less. */
export interface PathOrder<Cost> {
  readonly none: Cost;
  add(cost: Cost, edge: number): Cost;
  isLess(a: Cost, b: Cost): boolean;
}

/** The sum of the edges. */
export const SUM: PathOrder<number> = { none: 0, add: (cost, edge) => cost + edge, isLess: (a, b) => a < b };

/** Compares the largest edges, then the second largest, and so on. For paths with equally many edges. */
export const LEXICOGRAPHIC_MAX: PathOrder<readonly number[]> = {
  none: [],
  add(cost, edge) {
    const at = cost.findIndex((other) => other < edge);
    return cost.toSpliced(at < 0 ? cost.length : at, 0, edge);
  },
  isLess(a, b) {
    const at = a.findIndex((edge, i) => edge !== b[i]);
    return at >= 0 && (a[at] ?? 0) < (b[at] ?? 0);
  },
};

export interface PathRequest<Cost> {
  readonly steps: number;
  /** The number of steps that compute. */
  readonly fills: number;
  /** Steps that must compute. The first one always does. */
  readonly forced: ReadonlySet<number>;
  /**
   * The cost of computing nothing between the fills `from` and `to`; after the last fill, `to` is `steps`. `before` is the fill before
   * `from`, if there is one. An edge whose cost is not finite is not allowed.
   */
  readonly edge: (before: number | undefined, from: number, to: number) => number;
  readonly order: PathOrder<Cost>;
}

interface Path<Cost> {
  readonly fill: number;
  readonly before?: Path<Cost>;
  readonly cost: Cost;
}

/**
 * The fills of the path with the least cost, by dynamic programming over the last two fills, which is exact: O(fills · steps³).
 * Undefined if no path has so many fills.
 */
export function bestFills<Cost>({ steps, fills, forced, edge, order }: PathRequest<Cost>): readonly number[] | undefined {
  let paths: readonly Path<Cost>[] = [{ fill: 0, cost: order.none }];
  const lastForced = Math.max(0, ...forced);
  for (let count = 1; count < fills; count++) {
    const best = new Map<number, Path<Cost>>();
    for (const path of paths) {
      for (let to = path.fill + 1; to < steps; to++) {
        const next = extended(path, to, edge, order);
        const key = path.fill * steps + to;
        const known = best.get(key);
        if (next && (!known || order.isLess(next.cost, known.cost))) best.set(key, next);
        if (forced.has(to)) break;
      }
    }
    paths = [...best.values()];
  }
  let found: Path<Cost> | undefined;
  for (const path of paths.filter(({ fill }) => fill >= lastForced)) {
    const whole = extended(path, steps, edge, order);
    if (whole && (!found || order.isLess(whole.cost, found.cost))) found = whole;
  }
  return found?.before && fillsOf(found.before);
}

function extended<Cost>(path: Path<Cost>, to: number, edge: PathRequest<Cost>["edge"], order: PathOrder<Cost>): Path<Cost> | undefined {
  const cost = edge(path.before?.fill, path.fill, to);
  return Number.isFinite(cost) ? { fill: to, before: path, cost: order.add(path.cost, cost) } : undefined;
}

function fillsOf<Cost>({ fill, before }: Path<Cost>): readonly number[] {
  return before ? [...fillsOf(before), fill] : [fill];
}

/**
 * The number of steps that compute, from a number or a share of the steps, at least `least`.
 * With a warning if that is another share than asked for.
 */
export function budgetOf(
  policy: string,
  { fills, share }: { readonly fills?: number | undefined; readonly share?: number | undefined },
  steps: number,
  least: number,
): { readonly fills: number; readonly warnings: readonly string[] } {
  if (fills === undefined) {
    const asked = share ?? 1;
    const count = Math.max(Math.round(asked * steps), least);
    return { fills: count, warnings: missedShare(steps, asked, count / steps) };
  }
  if (fills < least || fills > steps) throw badOption(`policy ${policy}: fills`, `takes ${least} to ${steps} here, not ${fills}`);
  return { fills, warnings: [] };
}
