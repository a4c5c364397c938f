/** Rows of cells in plan files: parsed, and flattened for programs that only know 0 and 1. */
import { z } from "zod";
import { badCell, planFormat, planLength } from "./diagnostics.js";
import { MAX_ROWS } from "../ir/limits.js";
import { isPartialCell, partialSchema } from "./partial.js";
import { type BranchName, type Schedule, type ScheduleCell, valueFor } from "./plan.js";

/** Keys to rows of anything. */
export const rowsSchema = z.record(z.string(), z.array(z.unknown()).max(MAX_ROWS));

/** The rows, each of `steps` cells. Throws PLAN_LENGTH, BAD_CELL. */
export function parseRows(rows: Readonly<Record<string, readonly unknown[]>>, steps: number): Schedule["cells"] {
  return new Map(
    Object.entries(rows).map(([key, row]) => {
      if (row.length !== steps) throw planLength(key, row.length, steps);
      return [key, row.map((cell, step) => parseCell(key, step, cell))];
    }),
  );
}

export const cellSchema = z.union([z.literal(0), z.literal(1), z.array(z.tuple([z.number(), z.number()])), partialSchema], {
  error: 'a cell is 1, 0, [[step, weight], …] or { "tokens": share, "by": choice }',
});

function parseCell(key: string, step: number, cell: unknown): ScheduleCell {
  const parsed = cellSchema.safeParse(cell);
  if (!parsed.success) throw badCell(key, step, `is ${JSON.stringify(cell)}`);
  if (Array.isArray(parsed.data) && parsed.data.length === 0) throw badCell(key, step, "has no terms");
  return parsed.data;
}

/**
 * The rows of all branches, under a format's own keys. Throws PLAN_FORMAT for a cell other than 1 or 0, and if two branches with the
 * same key have different rows.
 */
export function flatRows(
  format: string,
  schedule: Schedule,
  branches: readonly BranchName[],
  keyOf: (branch: BranchName) => string,
): ReadonlyMap<string, readonly (0 | 1)[]> {
  if (schedule.cut !== undefined) throw planFormat(format, `it has the network cut at '${schedule.cut}'`);
  if (schedule.across === true) throw planFormat(format, "it reads values of another network of the run");
  if (schedule.adjustments && schedule.adjustments.size > 0) throw planFormat(format, "it scales or shifts cached values");
  const computed = new Array<1>(schedule.steps).fill(1);
  const flat = new Map<string, { readonly site: string; readonly row: readonly (0 | 1)[] }>();
  for (const branch of branches) {
    const { name: site } = branch;
    const row = (valueFor(schedule.cells, branch) ?? computed).map((cell, step) => {
      if (cell === 0 || cell === 1) return cell;
      throw planFormat(
        format,
        `at step ${step} '${site}' is ${isPartialCell(cell) ? "computed for some tokens" : "a weighted sum of earlier values"}`,
      );
    });
    const key = keyOf(branch);
    const known = flat.get(key);
    if (known && known.row.join() !== row.join())
      throw planFormat(format, `it has one row for '${known.site}' and '${site}', which differ`);
    if (!known) flat.set(key, { site, row });
  }
  return new Map([...flat].map(([key, { row }]) => [key, row]));
}
