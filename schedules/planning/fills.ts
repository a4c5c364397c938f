/** Which steps compute (fills), as a path through the run: from fill to fill, each edge at a cost, under a budget of fills. */
import { badOption } from "../diagnostics.js";
import { missedShare } from "./threshold.js";

/** How the costs of a path's edges become one that can be compared. Adding the same edge must not change which of two is less. */
export interface PathOrder<Cost> {
  readonly none: Cost;
  add(cost: Cost, edge: number): Cost;
  isLess(a: Cost, b: Cost): boolean;
}

/** The sum of the edges. */
export const SUM: PathOrder<number> = { none: 0, add: (cost, edge) => cost + edge, isLess: (a, b) => a < b };

/** The largest edge; where that is the same, the second largest, and so on (paths with equally many edges). */
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
  /** How many steps compute. */
  readonly fills: number;
  /** Steps that compute in any case; the first does. */
  readonly forced: ReadonlySet<number>;
  /**
   * What it costs that nothing computes between the fills `from` and `to`; `to` is `steps` behind the last fill, `before` is the
   * fill before `from`, if there is one. Not finite: it cannot be.
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

/** How many steps compute, from a number or a share of the steps, and no fewer than `least`; with a sentence where that is another share. */
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
