/** Plans: which branch is computed at which step, and what is read instead. The unbound form of plan.json, and its binding to a run. */
import { z } from "zod";
import { badAdjustment, badCell, badPlan, badTerm, planFirstStep, planLength, unknownName } from "../ir/diagnostics.js";
import type { Branch } from "../ir/dit.js";
import { assertFits, parseAdjustments, type Adjustment, type Adjustments, type Arrays } from "./adjustment.js";
import { cachedBranches, callsAt, NO_GUIDANCE, type CachedBranch, type Guidance } from "./guidance.js";
import { parseWith } from "./parse.js";
import { evaluationsThatCount, type SamplerTable, type Term } from "./sampler.js";

/**
 * What happens to one branch at one step: it is computed, or is scale · Σ weight · value + shift over its values at earlier
 * steps that compute; or it is idle, as the guidance does not call its half of the network there or the sampler does not use
 * what it gives.
 */
export type Cell =
  { readonly kind: "compute" } | ({ readonly kind: "terms"; readonly terms: readonly Term[] } & Adjustment) | { readonly kind: "idle" };

/** A schedule bound to a run and a network: for every cached branch a row of one cell a step. Only `bind` makes one. */
export interface Plan {
  readonly table: SamplerTable;
  readonly cells: ReadonlyMap<string, readonly Cell[]>;
}

/** 1 compute, 0 reuse the latest computed value, or terms [step, weight]. */
export type ScheduleCell = 0 | 1 | readonly (readonly [step: number, weight: number])[];

/** A plan as it stands in plan.json: keys (sites, kinds and blocks, kinds, `*`) to rows of `steps` cells; a key left out computes always. */
export interface Schedule {
  readonly steps: number;
  readonly cells: ReadonlyMap<string, readonly ScheduleCell[]>;
  /** Of steps that are cached; keys are those of the cells. */
  readonly adjustments?: Adjustments | undefined;
  /** Who chose it, with the options. */
  readonly policy?: Readonly<Record<string, unknown>> | undefined;
  /** What the policy expects of it. */
  readonly predicted?: Readonly<Record<string, unknown>> | undefined;
}

const FORMAT = "smoothcc-plan/1";

const rowsSchema = z.record(z.string(), z.array(z.unknown()));
const scheduleSchema = z.strictObject({
  format: z.literal(FORMAT),
  steps: z.int().min(1),
  policy: z.record(z.string(), z.unknown()).optional(),
  predicted: z.record(z.string(), z.unknown()).optional(),
  cells: rowsSchema,
  tensors: z.string().optional(),
});

/**
 * A schedule from JSON: with `format`, or a plain object of rows such as SmoothCache's schedule files
 * (github.com/Roblox/SmoothCache, `smoothcache_schedules/`). `arraysOf` reads the file of its adjustments, where it
 * has any. Throws BAD_JSON_FIELD, BAD_PLAN, BAD_CELL, PLAN_LENGTH and what `arraysOf` throws.
 */
export function parseSchedule(
  json: unknown,
  source: string,
  arraysOf = (file: string): Arrays => {
    throw badPlan(source, `it needs the arrays of ${file}`);
  },
): Schedule {
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw badPlan(source, "it is not an object");
  if (!("format" in json)) {
    const rows = Object.entries(parseWith(rowsSchema, json, source));
    const steps = rows[0]?.[1].length ?? 0;
    if (steps === 0) throw badPlan(source, "it has no cells");
    return { steps, cells: parseRows(rows, steps) };
  }
  const { steps, policy, predicted, cells, tensors } = parseWith(scheduleSchema, json, source);
  const adjustments = tensors === undefined ? undefined : parseAdjustments(arraysOf(tensors), source);
  return { steps, cells: parseRows(Object.entries(cells), steps), adjustments, policy, predicted };
}

function parseRows(rows: readonly (readonly [string, readonly unknown[]])[], steps: number): Schedule["cells"] {
  return new Map(
    rows.map(([key, row]) => {
      if (row.length !== steps) throw planLength(key, row.length, steps);
      return [key, row.map((cell, step) => parseCell(key, step, cell))];
    }),
  );
}

const termsSchema = z.array(z.tuple([z.number(), z.number()]));

function parseCell(key: string, step: number, cell: unknown): ScheduleCell {
  if (cell === 0 || cell === 1) return cell;
  const terms = termsSchema.safeParse(cell);
  if (!terms.success) throw badCell(key, step, `is ${JSON.stringify(cell)}`);
  if (terms.data.length === 0) throw badCell(key, step, "has no terms");
  return terms.data;
}

/** The schedule as plan.json holds it; `tensors` names the file of its adjustments, where it has any. `parseSchedule` reads it back. */
export function scheduleJson({ steps, policy, predicted, cells }: Schedule, tensors?: string): Record<string, unknown> {
  return {
    format: FORMAT,
    steps,
    ...(policy && { policy }),
    ...(predicted && { predicted }),
    cells: Object.fromEntries(cells),
    ...(tensors !== undefined && { tensors }),
  };
}

/** Module names of diffusers, which SmoothCache's files use as keys, and the kinds that they stand for. */
const MODULES: ReadonlyMap<string, string> = new Map([
  ["attn1", "attn"],
  ["attn2", "cross_attn"],
  ["ff", "mlp"],
]);

/** What of a branch the keys of a plan speak of. */
export type BranchName = Pick<CachedBranch, "site" | "stream" | "kind" | "block" | "halves">;

/** The key that speaks of every branch. */
export const EVERY_BRANCH = "*";

/**
 * Keys that speak of a branch, the most specific first: its site, kind and block, kind, each with its stream before it or without; every branch.
 * A branch of one of two calls is also spoken of with its half behind the key, as in `attn@uncond`, before the key without it.
 */
function keysOf({ site, stream, kind, block, halves }: BranchName): readonly string[] {
  const names = [kind, ...[...MODULES].filter(([, known]) => known === kind).map(([name]) => name)];
  const qualified = names.map((name) => `${stream}_${name}`);
  const inBlock = [...qualified, ...names].map((name) => `${name}-${block}`);
  const keys = [site.replace(/@uncond$/, ""), ...inBlock, ...qualified, ...names, EVERY_BRANCH];
  return halves.length > 1 ? keys : keys.flatMap((key) => [`${key}@${halves.join()}`, key]);
}

/** The row that the most specific key gives a branch, if any speaks of it. */
export function rowFor(cells: Schedule["cells"], branch: BranchName): readonly ScheduleCell[] | undefined {
  const key = keysOf(branch).find((candidate) => cells.has(candidate));
  return key === undefined ? undefined : cells.get(key);
}

/**
 * The plan of a schedule for the branches of one network under one sampler and guidance; the most specific key wins.
 * A cell that would read a step at which the guidance did not call its half, or whose output the sampler does not use, computes.
 * Throws UNKNOWN_NAME for a key that speaks of no branch, PLAN_LENGTH, PLAN_FIRST_STEP, BAD_CELL, BAD_TERM, BAD_ADJUSTMENT.
 */
export function bind(schedule: Schedule, table: SamplerTable, branches: readonly Branch[], guidance: Guidance = NO_GUIDANCE): Plan {
  const steps = table.rows.length;
  const known = new Set<string>();
  const cells = new Map<string, readonly Cell[]>();
  const cached = cachedBranches(branches, guidance);
  const counting = evaluationsThatCount(table);
  for (const branch of cached) {
    const keys = keysOf(branch);
    for (const key of keys) known.add(key);
    const key = keys.find((candidate) => schedule.cells.has(candidate));
    const row = key === undefined ? undefined : schedule.cells.get(key);
    const calls = table.rows.map((_, k) => {
      const halves = counting.has(k) ? callsAt(guidance, k).flat() : [];
      return halves.filter((half) => branch.halves.includes(half)).length;
    });
    const bound = bindRow(branch.site, row ?? new Array<ScheduleCell>(steps).fill(1), key ?? branch.site, calls);
    const adjustments = keys.map((candidate) => schedule.adjustments?.get(candidate)).find((found) => found !== undefined);
    cells.set(branch.site, adjustments ? adjusted(branch, row, bound, adjustments) : bound);
  }
  for (const key of [...schedule.cells.keys(), ...(schedule.adjustments?.keys() ?? [])])
    if (!known.has(key)) throw unknownName("branch or kind of branch", key, shortestKeys(cached));
  return { table, cells };
}

const COMPUTE: Cell = { kind: "compute" };
const IDLE: Cell = { kind: "idle" };

/** `called` counts the halves of the branch that are called at each step. */
function bindRow(site: string, row: readonly ScheduleCell[], key: string, called: readonly number[]): readonly Cell[] {
  if (row.length !== called.length) throw planLength(key, row.length, called.length);
  if (row[0] !== 1) throw planFirstStep(site);
  let latest = 0;
  return row.map((cell, step): Cell => {
    const halves = called[step] ?? 0;
    const terms = cell === 1 ? [] : cell === 0 ? [{ step: latest, weight: 1 }] : termsOf(site, row, step, cell);
    if (halves === 0) return IDLE;
    if (cell !== 1 && terms.every((term) => (called[term.step] ?? 0) >= halves)) return { kind: "terms", terms };
    latest = step;
    return COMPUTE;
  });
}

function termsOf(site: string, row: readonly ScheduleCell[], step: number, cell: Exclude<ScheduleCell, 0 | 1>): readonly Term[] {
  if (cell.length === 0) throw badCell(site, step, "has no terms");
  return cell.map(([source, weight]) => {
    if (source >= step || row[source] !== 1) throw badTerm(site, step, source);
    if (!Number.isFinite(weight)) throw badCell(site, step, `gives step ${source} the weight ${weight}`);
    return { step: source, weight };
  });
}

/** The cells of a row with its adjustments. One of a cell that the schedule caches, but that has to compute here, has no effect. */
function adjusted(
  branch: Branch,
  row: readonly ScheduleCell[] | undefined,
  cells: readonly Cell[],
  adjustments: ReadonlyMap<number, Adjustment>,
): readonly Cell[] {
  for (const [step, adjustment] of adjustments) {
    if ((row?.[step] ?? 1) === 1) throw badAdjustment(branch.site, step, "is of a step that is not cached");
    assertFits(adjustment, branch, step);
  }
  return cells.map((cell, step) => (cell.kind === "terms" ? { ...cell, ...adjustments.get(step) } : cell));
}

/** The keys that a person would write: kinds, then sites. */
function shortestKeys(branches: readonly Branch[]): readonly string[] {
  return [...new Set([...branches.map(({ kind }) => kind), ...branches.map(({ site }) => site)])];
}

/** Whether every branch is computed at every step at which it is called. */
export function savesNothing(plan: Plan): boolean {
  return [...plan.cells.values()].every((row) => row.every(({ kind }) => kind !== "terms"));
}
