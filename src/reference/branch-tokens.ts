/** What the oracle keeps for cells that compute some tokens, beside the values of branches: keys and values of attention, and what came in. */
import type { CacheKey } from "../../ir/dit.js";
import type { Mark, Model, Value } from "../../ir/graph.js";
import { ATTENDED, type Attended, attendedTokens, incomingTokens, type TokenCounts } from "../../ir/own-tokens.js";
import { readTensor, type TensorData, tensorFloats, tensorFrom } from "../../ir/tensor.js";
import { type CacheMap, type Call, type Cell, type Fresh, halfOf, isPartial, lastReaders, networkOf, type Plan, type Run } from "../../schedules/index.js"; // prettier-ignore
import { halfOfRows } from "./feeds.js";

/** Values of branches beside their own, by site, for those of which a plan asks for them. */
export interface BranchTokens {
  readonly attended: ReadonlyMap<string, Attended>;
  readonly incoming: ReadonlyMap<string, Value>;
}

export const NO_TOKENS: BranchTokens = { attended: new Map(), incoming: new Map() };

/** The name of such a value: what comes in, which tokens were chosen (1, else 0), keys and values. */
export function partOf(site: string, part: "incoming" | "chosen" | keyof Attended): string {
  return `${site}/${part}`;
}

/** What the cells of a plan ask for in a call. */
export function tokensFor(run: Run, call: Call, plan: Plan | undefined): BranchTokens {
  const half = halfOf(call.halves);
  const counts = new Map(run.caches.map(({ site, tokens }) => [site, tokens?.count]));
  const bySite = <T>(
    find: (model: Model, countOf: TokenCounts) => ReadonlyMap<Mark, T>,
    isAsked: (cell: Cell) => boolean,
  ): ReadonlyMap<string, T> => {
    const sites = new Set(
      Array.from(plan?.cells ?? []).flatMap(([key, cells]) => (key.half === half && cells.some(isAsked) ? [key.site] : [])),
    );
    if (sites.size === 0) return new Map();
    const found = find(networkOf(run, call), (site) => (sites.has(site) ? counts.get(site) : undefined));
    return new Map(Array.from(found, ([{ site }, value]) => [site, value]));
  };
  return { attended: bySite(attendedTokens, keepsKeys), incoming: bySite(incomingTokens, choosesByChange) };
}

function keepsKeys(cell: Cell): boolean {
  return isPartial(cell) && cell.fresh.keepsKeys;
}

function choosesByChange(cell: Cell): boolean {
  return isPartial(cell) && !cell.fresh.tokens;
}

/** The last readers of a cache's values, and those of keys and values that cells keep. */
export function readersOf(key: CacheKey, cells: readonly Cell[]): readonly (readonly [CacheKey, ReadonlyMap<number, number>])[] {
  const keeping = cells.map((cell): Cell => (keepsKeys(cell) ? cell : { kind: "compute" }));
  const ofKeys = cells.some(keepsKeys) ? lastReaders(keeping) : undefined;
  const kept = ofKeys ? ATTENDED.map((part) => [{ ...key, site: partOf(key.site, part) }, ofKeys] as const) : [];
  return [[key, lastReaders(cells)], ...kept];
}

/**
 * By how much each token of a branch moves with each that is computed: those themselves wholly, others by their weights, [tokens, tokens]. Where there
 * are no weights, by how much with itself, [tokens, 1].
 */
export function movesOf({ tokens = [], count, move }: Pick<Fresh, "tokens" | "count" | "move">): TensorData {
  const width = move ? count : 1;
  const moves = new Float32Array(count * width);
  for (const [place, token] of tokens.entries()) {
    if (!move) moves[token] = 1;
    for (let other = 0; move && other < count; other++) moves[other * count + token] = move[other * tokens.length + place] ?? NaN;
    for (const computed of move ? tokens : []) moves[computed * count + token] = Number(computed === token);
  }
  return tensorFrom("float", [count, width], moves);
}

/**
 * What came in when each token was computed last, behind a step; undefined where that is not known of all halves that it called. `cond` is the place
 * of the conditional half, if a step calls that alone.
 */
export function seenAfter(
  cell: Cell | undefined,
  site: CacheKey,
  values: CacheMap<TensorData>,
  before: TensorData | undefined,
  cond: number,
): TensorData | undefined {
  const now = values.get({ ...site, site: partOf(site.site, "incoming") });
  if (!now) return before;
  if (!cell || !isPartial(cell)) return now;
  const [rows = 0, had = 0] = [now.shape[0], before?.shape[0]];
  if (!before || had < rows) return undefined;
  const chosen = values.get({ ...site, site: partOf(site.site, "chosen") });
  const marks = chosen && tensorFloats(chosen);
  const fresh = new Set(cell.fresh.tokens);
  const [batch = 1, count = 1] = now.shape;
  const [bytes, own] = [Uint8Array.from(readTensor(had > rows ? halfOfRows(before, cond) : before)), readTensor(now)];
  const size = own.length / batch / count;
  for (let at = 0; at < batch * count; at++)
    if (marks ? marks[at] === 1 : fresh.has(at % count)) bytes.set(own.subarray(at * size, (at + 1) * size), at * size);
  return { ...now, content: { kind: "bytes", bytes } };
}
