/**
 * Plans: which branch is computed at which step, and what is read instead.
 * A schedule is the form of plan files; binding it to a run makes a plan.
 */
import { badAdjustment, badCell, badTerm, planFirstStep, planLength, planMismatch, tokensMixed } from "./diagnostics.js";
import { unknownName } from "../ir/diagnostics.js";
import { type Macs, NO_MACS } from "../ir/cost.js";
import type { BranchKind } from "../ir/dit.js";
import { MAX_WEIGHT } from "../ir/limits.js";
import type { SiteTokens } from "../ir/site-tokens.js";
import { type Adjustment, type Adjustments, assertFits, type CellArrays } from "./adjustment.js";
import { CacheMap, type CachedBranch } from "./cache.js";
import { type Fresh, freshOf, isPartialCell, partialMacs, partialShare, type PartialCell } from "./partial.js";
import type { Predicted } from "./predicted.js";
import { differenceOf, placeAt, type Run, type RunIdentity } from "./run.js";
import type { Term } from "./sampler.js";

/**
 * What happens to one branch at one step. It is computed; or it is scale · Σ weight · value + shift over its values at earlier
 * steps, but for tokens that are computed after all (`fresh`); or it is idle, because guidance does not call its half of the network at this step, or because the sampler does
 * not use the output.
 */
export type Cell =
  | { readonly kind: "compute" }
  | ({ readonly kind: "terms"; readonly terms: readonly Term[]; readonly fresh?: Fresh | undefined } & Adjustment)
  | { readonly kind: "idle" };

/** Whether a branch is computed for some of its tokens. */
export function isPartial(cell: Cell): cell is CachedCell & { readonly fresh: Fresh } {
  return cell.kind === "terms" && cell.fresh !== undefined;
}

/** How much of a branch's value a cell computes, from 0 to 1: its share of the tokens. */
export function computedPart(cell: Cell): number {
  return isPartial(cell) ? cell.fresh.size / cell.fresh.count : Number(cell.kind === "compute");
}

/** What a cell takes of the MACs of its branch. */
export function cellMacs(cell: Cell, { macs, tokens }: { readonly macs: Macs; readonly tokens?: SiteTokens | undefined }): Macs {
  if (isPartial(cell) && tokens) return partialMacs(macs, cell.fresh, tokens);
  return cell.kind === "compute" ? macs : NO_MACS;
}

export type CachedCell = Extract<Cell, { readonly kind: "terms" }>;

/** A schedule bound to a run: a row for every cache, with one cell per step. Made by `bind`. */
export interface Plan {
  readonly of: RunIdentity;
  readonly cells: CacheMap<readonly Cell[]>;
}

/** The parts of a run that binding needs. */
export interface PlannedRun extends Pick<Run, "of" | "called"> {
  readonly caches: readonly PlannedCache[];
}

/** A cache, as far as plans need it. */
export type PlannedCache = Omit<CachedBranch, "gated" | "module">;

/**
 * 1: compute; 0: reuse the latest value that was computed, for some tokens or for all; a list: the sum of terms [step, weight]; an object: compute some
 * tokens. Terms may read steps that compute and those that compute some tokens, whose value has these and what was cached.
 */
export type ScheduleCell = 0 | 1 | readonly (readonly [step: number, weight: number])[] | PartialCell;

/**
 * A plan as in plan.json: maps keys (sites, kinds and blocks, kinds, `*`) to rows of `steps` cells.
 * A branch without a key is always computed.
 */
export interface Schedule {
  readonly steps: number;
  /** The run that it was made for, if the file states it. */
  readonly of?: RunIdentity | undefined;
  /** Where the network must be cut (`cutSchema`). Default: the cut of the recipe. */
  readonly cut?: string | undefined;
  /** Whether a cell may read values of another network of the run than that of its step. Default: no. */
  readonly across?: boolean | undefined;
  readonly cells: ReadonlyMap<string, readonly ScheduleCell[]>;
  /** Adjustments of cached cells, under the same keys as the cells. */
  readonly adjustments?: Adjustments | undefined;
  /** The policy that chose it, with its options. */
  readonly policy?: Readonly<Record<string, unknown>> | undefined;
  readonly predicted?: Predicted | undefined;
}

/** By kind, the name of the module in diffusers' transformer blocks: SmoothCache's files also use these names as keys. */
export const MODULE_NAMES: ReadonlyMap<BranchKind, string> = new Map([
  ["attn", "attn1"],
  ["cross_attn", "attn2"],
  ["mlp", "ff"],
]);

/** The fields of a branch that plan keys are made from. */
export type BranchName = Pick<PlannedCache, "site" | "name" | "stream" | "kind" | "block" | "halves">;

/** The key that applies to every branch. */
export const EVERY_BRANCH = "*";

/**
 * The keys that apply to a branch, the most specific first: its site, kind and block, kind (each with and without its stream in front), and
 * the key for every branch. A branch in one of two calls has each key also with its half, as in `attn@uncond`, before the plain key.
 */
function keysOf({ site, stream, kind, block, halves }: BranchName): readonly string[] {
  const module = MODULE_NAMES.get(kind);
  const names = [kind, ...(module === undefined ? [] : [module])];
  const qualified = names.map((name) => `${stream}_${name}`);
  const inBlock = [...qualified, ...names].map((name) => `${name}-${block}`);
  const keys = [site, ...inBlock, ...qualified, ...names, EVERY_BRANCH];
  return halves.length > 1 ? keys : keys.flatMap((key) => [`${key}@${halves.join()}`, key]);
}

/** The entry under the most specific key that applies to a branch, if there is one. */
export function valueFor<V>(entries: ReadonlyMap<string, V>, branch: BranchName): V | undefined {
  return entries.get(keysOf(branch).find((key) => entries.has(key)) ?? "");
}

/**
 * The row of every cache in a run of `steps` steps, by the name of the cache. The most specific key wins, and a branch without a key is
 * always computed. Throws UNKNOWN_NAME for a key that applies to no branch, PLAN_LENGTH, PLAN_FIRST_STEP, BAD_CELL, BAD_TERM.
 */
export function rowsOf(
  { cells, adjustments }: Schedule,
  steps: number,
  branches: readonly BranchName[],
): ReadonlyMap<string, readonly ScheduleCell[]> {
  const known = new Set(branches.flatMap(keysOf));
  for (const key of [...cells.keys(), ...(adjustments?.keys() ?? [])])
    if (!known.has(key)) throw unknownName("branch or kind of branch", key, shortestKeys(branches));
  for (const [key, row] of cells) if (row.length !== steps) throw planLength(key, row.length, steps);
  const rows = new Map<string, readonly ScheduleCell[]>();
  for (const branch of branches) {
    const row = valueFor(cells, branch) ?? new Array<1>(steps).fill(1);
    checkCells(branch.name, row);
    rows.set(branch.name, row);
  }
  return rows;
}

function checkCells(site: string, row: readonly ScheduleCell[]): void {
  if (row[0] !== 1) throw planFirstStep(site);
  for (const [step, cell] of row.entries()) {
    if (typeof cell === "number") continue;
    const terms = isPartialCell(cell) ? (cell.terms ?? [[0, 1]]) : cell;
    if (terms.length === 0) throw badCell(site, step, "has no terms");
    for (const [source, weight] of terms) {
      const read = row[source];
      if (source >= step || (read !== 1 && !isPartialCell(read))) throw badTerm(site, step, source);
      if (!(Math.abs(weight) <= MAX_WEIGHT)) throw badCell(site, step, `gives step ${source} the weight ${weight}, beyond ±${MAX_WEIGHT}`);
    }
  }
}

/**
 * Binds a schedule to a run. A cached cell is computed after all if it would read a step whose value is missing, as guidance did not call
 * all of the halves there, or the sampler does not use that step's output; or one at which another network was called, unless the
 * schedule reads across (`Schedule.across`).
 * Throws what `rowsOf` throws, PLAN_MISMATCH for a schedule of another run, and BAD_ADJUSTMENT.
 */
export function bind(schedule: Schedule, { of, caches, called }: PlannedRun): Plan {
  const difference = schedule.of && differenceOf(schedule.of, of);
  if (difference) throw planMismatch(difference.what, difference.own, difference.other);
  const rows = rowsOf(schedule, called.length, caches);
  const cells = new CacheMap<readonly Cell[]>();
  for (const cache of caches) {
    const row = rows.get(cache.name) ?? [];
    const calls = called.map((halves) => halves.filter((half) => cache.halves.includes(half)).length);
    const bound = bindRow(row, calls, schedule.across === true ? [] : of.borders);
    const adjustments = schedule.adjustments && valueFor(schedule.adjustments, cache);
    const adjusted = adjustments ? withAdjustments(cache, row, bound, adjustments) : bound;
    cells.set(cache, withFresh(cache, row, adjusted, adjustments));
  }
  return { of, cells };
}

const COMPUTE: Cell = { kind: "compute" };
const IDLE: Cell = { kind: "idle" };

/** `called` counts the halves of the branch that are called at each step. No cell reads across a border. */
function bindRow(row: readonly ScheduleCell[], called: readonly number[], borders: readonly number[] = []): readonly Cell[] {
  const places = row.map((_, step) => placeAt(borders, step));
  let latest = 0;
  /** The halves of which it is known what came in when their tokens were computed last. */
  let seen = 0;
  return row.map((cell, step): Cell => {
    const halves = called[step] ?? 0;
    const isThere = (term: Term): boolean => (called[term.step] ?? 0) >= halves && places[term.step] === places[step];
    const terms = cell === 1 ? [] : termsOf(cell, latest);
    if (halves === 0) return IDLE;
    const isSeen = !isPartialCell(cell) || cell.by !== "change" || seen >= halves;
    const isCached = cell !== 1 && terms.every(isThere) && isSeen;
    if (!isCached) seen = halves;
    else if (isPartialCell(cell)) seen = seen >= halves ? halves : 0;
    if (!isCached || isPartialCell(cell)) latest = step;
    return isCached ? { kind: "terms", terms } : COMPUTE;
  });
}

/**
 * How many steps a row computes in a run with these borders that calls all halves at every step. Those that compute some of the branch's tokens
 * count as the share of its MACs that they take.
 */
export function computedSteps(row: readonly ScheduleCell[], borders: readonly number[] = [], tokens?: SiteTokens): number {
  const called = new Array<number>(row.length).fill(1);
  const shareOf = (step: number): number => {
    const cell = row[step];
    if (!isPartialCell(cell)) return 0;
    return tokens ? partialShare(cell, tokens) : cell.tokens;
  };
  return bindRow(row, called, borders).reduce((sum, { kind }, step) => sum + (kind === "compute" ? 1 : shareOf(step)), 0);
}

/** The schedule cell for a sum of these terms. */
export function cellOf(terms: readonly Term[]): ScheduleCell {
  return terms.map(({ step, weight }) => [step, weight]);
}

/** The terms of a cached cell. `latest` is the latest computed step before it, which a 0 reuses. */
export function termsOf(cell: Exclude<ScheduleCell, 1>, latest: number): readonly Term[] {
  const terms = isPartialCell(cell) ? (cell.terms ?? 0) : cell;
  return terms === 0 ? [{ step: latest, weight: 1 }] : terms.map(([step, weight]) => ({ step, weight }));
}

/**
 * Adds the tokens that are computed to the cells of a row. Throws BAD_CELL where their arrays do not fit, or the branch has no tokens;
 * TOKENS_MIXED where its tokens cannot be computed apart.
 */
function withFresh(
  { name, kind, tokens }: PlannedCache,
  row: readonly ScheduleCell[],
  cells: readonly Cell[],
  arrays: ReadonlyMap<number, CellArrays> | undefined,
): readonly Cell[] {
  let turn = 0;
  return cells.map((bound, step) => {
    const cell = row[step];
    if (!isPartialCell(cell) || bound.kind !== "terms") return bound;
    if (!tokens) throw badCell(name, step, "computes some tokens, and it is not known which axis of the branch counts them");
    if (tokens.mixer !== undefined) throw tokensMixed(name, step, tokens.mixer);
    if (cell.by === "change" && tokens.choice === undefined)
      throw badCell(
        name,
        step,
        "chooses tokens by change, and there is no one value, [batch, tokens, channels], that comes into the branch",
      );
    if (cell.by === "change" && tokens.choice?.mixer !== undefined) throw tokensMixed(name, step, tokens.choice.mixer);
    if (cell.kv === "cached" && (kind === "attn" || kind === "single") && tokens.shareWithKeys === undefined)
      throw badCell(name, step, "caches keys and values, and no attention of the branch to its own tokens is found");
    return { ...bound, fresh: freshOf(cell, { ...tokens, key: name, step, turn: turn++ }, arrays?.get(step)) };
  });
}

/**
 * Adds adjustments to the cells of a row.
 * An adjustment has no effect on a cell that the schedule caches but that must be computed in this run.
 */
function withAdjustments(
  branch: PlannedCache,
  row: readonly ScheduleCell[],
  cells: readonly Cell[],
  adjustments: ReadonlyMap<number, CellArrays>,
): readonly Cell[] {
  for (const [step, adjustment] of adjustments) {
    const cell = row[step] ?? 1;
    if (cell === 1) throw badAdjustment(branch.name, step, "is of a step that is not cached");
    if ((adjustment.tokens ?? adjustment.move) && !isPartialCell(cell))
      throw badAdjustment(branch.name, step, "has tokens for a step that computes none");
    assertFits(adjustment, branch, step);
  }
  return cells.map((cell, step) => {
    const { scale, shift } = adjustments.get(step) ?? {};
    return cell.kind === "terms" && (scale ?? shift) ? { ...cell, ...(scale && { scale }), ...(shift && { shift }) } : cell;
  });
}

/** The keys that `UNKNOWN_NAME` suggests: kinds, then names of caches. */
function shortestKeys(branches: readonly BranchName[]): readonly string[] {
  return [...new Set([...branches.map(({ kind }) => kind), ...branches.map(({ name }) => name)])];
}

/** Whether every branch is computed at every step at which it is called. */
export function savesNothing({ cells }: Pick<Plan, "cells">): boolean {
  return [...cells].every(([, row]) => row.every(({ kind }) => kind !== "terms"));
}

/** The same plan with every branch computed at every step at which it is called. */
export function uncached({ of }: Plan): Plan {
  return { of, cells: new CacheMap() };
}

/** For each step whose value later steps read, the last step that reads it. */
export function lastReaders(cells: readonly Cell[]): ReadonlyMap<number, number> {
  const last = new Map<number, number>();
  for (const [step, cell] of cells.entries()) if (cell.kind === "terms") for (const term of cell.terms) last.set(term.step, step);
  return last;
}
