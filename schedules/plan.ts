/** Plans: which branch is computed at which step, and what is read instead. The unbound form of plan files, and its binding to a run. */
import { badAdjustment, badCell, badTerm, planFirstStep, planLength, planMismatch } from "./diagnostics.js";
import { unknownName } from "../ir/diagnostics.js";
import type { BranchKind } from "../ir/dit.js";
import { type Adjustment, type Adjustments, assertFits } from "./adjustment.js";
import { CacheMap, type CachedBranch } from "./cache.js";
import type { Predicted } from "./predicted.js";
import { differenceOf, type Run, type RunIdentity } from "./run.js";
import type { Term } from "./sampler.js";

/**
 * What happens to one branch at one step: it is computed, or is scale · Σ weight · value + shift over its values at earlier
 * steps that compute; or it is idle, as the guidance does not call its half of the network there or the sampler does not use
 * what it gives.
 */
export type Cell =
  { readonly kind: "compute" } | ({ readonly kind: "terms"; readonly terms: readonly Term[] } & Adjustment) | { readonly kind: "idle" };

/** A schedule bound to a run: for every cache a row of one cell a step. Only `bind` makes one. */
export interface Plan {
  readonly of: RunIdentity;
  readonly cells: CacheMap<readonly Cell[]>;
}

/** What binding needs to know of a run. */
export interface PlannedRun extends Pick<Run, "of" | "called"> {
  readonly caches: readonly PlannedCache[];
}

/** A cache as plans know it. */
export type PlannedCache = Omit<CachedBranch, "gated" | "module">;

/** 1 compute, 0 reuse the latest computed value, or terms [step, weight]. */
export type ScheduleCell = 0 | 1 | readonly (readonly [step: number, weight: number])[];

/** A plan as it stands in plan.json: keys (sites, kinds and blocks, kinds, `*`) to rows of `steps` cells; a key left out computes always. */
export interface Schedule {
  readonly steps: number;
  /** The run that it was made for; absent in plans that do not say so. */
  readonly of?: RunIdentity | undefined;
  /** Where the network is cut for it (`cutSchema`); where the recipe says if absent. */
  readonly cut?: string | undefined;
  readonly cells: ReadonlyMap<string, readonly ScheduleCell[]>;
  /** Of steps that are cached; keys are those of the cells. */
  readonly adjustments?: Adjustments | undefined;
  /** Who chose it, with the options. */
  readonly policy?: Readonly<Record<string, unknown>> | undefined;
  readonly predicted?: Predicted | undefined;
}

/** Kinds, and the names that diffusers' transformer blocks give to their modules: SmoothCache's files use these as keys, too. */
export const MODULE_NAMES: ReadonlyMap<BranchKind, string> = new Map([
  ["attn", "attn1"],
  ["cross_attn", "attn2"],
  ["mlp", "ff"],
]);

/** What of a branch the keys of a plan speak of. */
export type BranchName = Pick<PlannedCache, "site" | "name" | "stream" | "kind" | "block" | "halves">;

/** The key that speaks of every branch. */
export const EVERY_BRANCH = "*";

/**
 * Keys that speak of a branch, the most specific first: its site, kind and block, kind, each with its stream before it or without; every branch.
 * A branch of one of two calls is also spoken of with its half behind the key, as in `attn@uncond`, before the key without it.
 */
function keysOf({ site, stream, kind, block, halves }: BranchName): readonly string[] {
  const module = MODULE_NAMES.get(kind);
  const names = [kind, ...(module === undefined ? [] : [module])];
  const qualified = names.map((name) => `${stream}_${name}`);
  const inBlock = [...qualified, ...names].map((name) => `${name}-${block}`);
  const keys = [site, ...inBlock, ...qualified, ...names, EVERY_BRANCH];
  return halves.length > 1 ? keys : keys.flatMap((key) => [`${key}@${halves.join()}`, key]);
}

/** What the most specific key gives a branch, if any speaks of it. */
export function valueFor<V>(entries: ReadonlyMap<string, V>, branch: BranchName): V | undefined {
  return entries.get(keysOf(branch).find((key) => entries.has(key)) ?? "");
}

/**
 * The row of every cache in a run of `steps` steps, by its name; the most specific key wins, and a branch that none speaks of
 * computes always. Throws UNKNOWN_NAME for a key that speaks of no branch, PLAN_LENGTH, PLAN_FIRST_STEP, BAD_CELL, BAD_TERM.
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
    if (cell.length === 0) throw badCell(site, step, "has no terms");
    for (const [source, weight] of cell) {
      if (source >= step || row[source] !== 1) throw badTerm(site, step, source);
      if (!Number.isFinite(weight)) throw badCell(site, step, `gives step ${source} the weight ${weight}`);
    }
  }
}

/**
 * The plan of a schedule for a run. A cell that would read a step at which the guidance did not call its half, or whose output the
 * sampler does not use, computes.
 * Throws what `rowsOf` throws, PLAN_MISMATCH for a schedule that is of another run, and BAD_ADJUSTMENT.
 */
export function bind(schedule: Schedule, { of, caches, called }: PlannedRun): Plan {
  const difference = schedule.of && differenceOf(schedule.of, of);
  if (difference) throw planMismatch(difference.what, difference.own, difference.other);
  const rows = rowsOf(schedule, called.length, caches);
  const cells = new CacheMap<readonly Cell[]>();
  for (const cache of caches) {
    const row = rows.get(cache.name) ?? [];
    const calls = called.map((halves) => halves.filter((half) => cache.halves.includes(half)).length);
    const bound = bindRow(row, calls);
    const adjustments = schedule.adjustments && valueFor(schedule.adjustments, cache);
    cells.set(cache, adjustments ? withAdjustments(cache, row, bound, adjustments) : bound);
  }
  return { of, cells };
}

const COMPUTE: Cell = { kind: "compute" };
const IDLE: Cell = { kind: "idle" };

/** `called` counts the halves of the branch that are called at each step. */
function bindRow(row: readonly ScheduleCell[], called: readonly number[]): readonly Cell[] {
  let latest = 0;
  return row.map((cell, step): Cell => {
    const halves = called[step] ?? 0;
    const terms = cell === 1 ? [] : termsOf(cell, latest);
    if (halves === 0) return IDLE;
    if (cell !== 1 && terms.every((term) => (called[term.step] ?? 0) >= halves)) return { kind: "terms", terms };
    latest = step;
    return COMPUTE;
  });
}

/** The cell that is a sum of these terms. */
export function cellOf(terms: readonly Term[]): ScheduleCell {
  return terms.map(({ step, weight }) => [step, weight]);
}

/** What a cached cell is the sum of, where `latest` is the latest step that computes. */
export function termsOf(cell: Exclude<ScheduleCell, 1>, latest: number): readonly Term[] {
  return cell === 0 ? [{ step: latest, weight: 1 }] : cell.map(([step, weight]) => ({ step, weight }));
}

/** The cells of a row with its adjustments. One of a cell that the schedule caches, but that has to compute here, has no effect. */
function withAdjustments(
  branch: PlannedCache,
  row: readonly ScheduleCell[],
  cells: readonly Cell[],
  adjustments: ReadonlyMap<number, Adjustment>,
): readonly Cell[] {
  for (const [step, adjustment] of adjustments) {
    if ((row[step] ?? 1) === 1) throw badAdjustment(branch.name, step, "is of a step that is not cached");
    assertFits(adjustment, branch, step);
  }
  return cells.map((cell, step) => (cell.kind === "terms" ? { ...cell, ...adjustments.get(step) } : cell));
}

/** The keys that a person would write: kinds, then sites. */
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

/** Of the steps whose values later ones read, the last that does. */
export function lastReaders(cells: readonly Cell[]): ReadonlyMap<number, number> {
  const last = new Map<number, number>();
  for (const [step, cell] of cells.entries()) if (cell.kind === "terms") for (const term of cell.terms) last.set(term.step, step);
  return last;
}
