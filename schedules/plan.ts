/** Plans: which branch is computed at which step, and what is read instead. The unbound form of plan.json, and its binding to a run. */
import { z } from "zod";
import { badCell, badPlan, badTerm, planFirstStep, planLength, unknownName } from "../ir/diagnostics.js";
import type { Branch } from "../ir/dit.js";
import { parseWith } from "./parse.js";
import type { SamplerTable, Term } from "./sampler.js";

/** What happens to one branch at one step: it is computed, or is the weighted sum of its values at earlier steps that compute. */
export type Cell = { readonly kind: "compute" } | { readonly kind: "terms"; readonly terms: readonly Term[] };

/** A schedule bound to a run and a network: for every branch site a row of one cell a step. Only `bind` makes one. */
export interface Plan {
  readonly table: SamplerTable;
  readonly cells: ReadonlyMap<string, readonly Cell[]>;
}

/** 1 compute, 0 reuse the latest computed value, or terms [step, weight]. */
export type ScheduleCell = 0 | 1 | readonly (readonly [step: number, weight: number])[];

/** A plan as it stands in plan.json: keys (kinds, kinds and blocks, sites) to rows of `steps` cells; a key left out computes always. */
export interface Schedule {
  readonly steps: number;
  readonly cells: ReadonlyMap<string, readonly ScheduleCell[]>;
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
 * (github.com/Roblox/SmoothCache, `smoothcache_schedules/`). Throws BAD_JSON_FIELD, BAD_PLAN, BAD_CELL, PLAN_LENGTH.
 */
export function parseSchedule(json: unknown, source: string): Schedule {
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw badPlan(source, "it is not an object");
  if (!("format" in json)) {
    const rows = Object.entries(parseWith(rowsSchema, json, source));
    const steps = rows[0]?.[1].length ?? 0;
    if (steps === 0) throw badPlan(source, "it has no cells");
    return { steps, cells: parseRows(rows, steps) };
  }
  const { steps, policy, predicted, cells, tensors } = parseWith(scheduleSchema, json, source);
  if (tensors !== undefined) throw badPlan(source, `it needs the tensors of ${tensors}, which this version does not read`);
  return { steps, cells: parseRows(Object.entries(cells), steps), policy, predicted };
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

/** The schedule as plan.json holds it; `parseSchedule` reads it back. */
export function scheduleJson({ steps, policy, predicted, cells }: Schedule): Record<string, unknown> {
  return {
    format: FORMAT,
    steps,
    ...(policy && { policy }),
    ...(predicted && { predicted }),
    cells: Object.fromEntries(cells),
  };
}

/** Module names of diffusers, which SmoothCache's files use as keys, and the kinds that they stand for. */
const MODULES: ReadonlyMap<string, string> = new Map([
  ["attn1", "attn"],
  ["attn2", "cross_attn"],
  ["ff", "mlp"],
]);

/** Keys that speak of a branch, the most specific first: its site, kind and block, kind; each with its stream before it or without. */
function keysOf({ site, stream, kind, block }: Branch): readonly string[] {
  const names = [kind, ...[...MODULES].filter(([, known]) => known === kind).map(([name]) => name)];
  const qualified = names.map((name) => `${stream}_${name}`);
  const inBlock = [...qualified, ...names].map((name) => `${name}-${block}`);
  return [site, ...inBlock, ...qualified, ...names];
}

/**
 * The plan of a schedule for the branches of one network under one sampler; the most specific key wins.
 * Throws UNKNOWN_NAME for a key that speaks of no branch, PLAN_LENGTH, PLAN_FIRST_STEP, BAD_CELL, BAD_TERM.
 */
export function bind(schedule: Schedule, table: SamplerTable, branches: readonly Branch[]): Plan {
  const steps = table.rows.length;
  const known = new Set<string>();
  const cells = new Map<string, readonly Cell[]>();
  for (const branch of branches) {
    const keys = keysOf(branch);
    for (const key of keys) known.add(key);
    const key = keys.find((candidate) => schedule.cells.has(candidate));
    const row = key === undefined ? undefined : schedule.cells.get(key);
    cells.set(branch.site, row && key !== undefined ? bindRow(branch.site, row, key, steps) : Array.from({ length: steps }, () => COMPUTE));
  }
  for (const key of schedule.cells.keys()) if (!known.has(key)) throw unknownName("branch or kind of branch", key, shortestKeys(branches));
  return { table, cells };
}

const COMPUTE: Cell = { kind: "compute" };

function bindRow(site: string, row: readonly ScheduleCell[], key: string, steps: number): readonly Cell[] {
  if (row.length !== steps) throw planLength(key, row.length, steps);
  if (row[0] !== 1) throw planFirstStep(site);
  let latest = 0;
  return row.map((cell, step): Cell => {
    if (cell === 1) {
      latest = step;
      return COMPUTE;
    }
    if (cell === 0) return { kind: "terms", terms: [{ step: latest, weight: 1 }] };
    if (cell.length === 0) throw badCell(site, step, "has no terms");
    const terms = cell.map(([source, weight]) => {
      if (source >= step || row[source] !== 1) throw badTerm(site, step, source);
      if (!Number.isFinite(weight)) throw badCell(site, step, `gives step ${source} the weight ${weight}`);
      return { step: source, weight };
    });
    return { kind: "terms", terms };
  });
}

/** The keys that a person would write: kinds, then sites. */
function shortestKeys(branches: readonly Branch[]): readonly string[] {
  return [...new Set([...branches.map(({ kind }) => kind), ...branches.map(({ site }) => site)])];
}

/** Whether every branch is computed at every step. */
export function savesNothing(plan: Plan): boolean {
  return [...plan.cells.values()].every((row) => row.every(({ kind }) => kind === "compute"));
}
