/**
 * SmoothCache's schedule files (github.com/Roblox/SmoothCache, `smoothcache_schedules/`): an object that maps kinds, or kinds and
 * blocks, to rows of 1 (compute) and 0 (reuse).
 */
import { badPlan, planFormat } from "../diagnostics.js";
import { settingsIn } from "../foreign-settings.js";
import type { Format } from "../format.js";
import { parseWith } from "../parse-with.js";
import { MODULE_NAMES } from "../plan.js";
import { flatRows, parseRows, rowsSchema } from "../plan-rows.js";

const NAME = "smoothcache";

export default {
  name: NAME,
  summary: "a schedule file of SmoothCache",
  /** Nothing but rows, whatever they are called: no settings of another method, and no `format` key of our own plans. */
  recognises: (json) =>
    typeof json === "object" &&
    json !== null &&
    !Array.isArray(json) &&
    Object.values(json).every(Array.isArray) &&
    settingsIn(json) === undefined,
  /** Also accepts terms as cells, and all plan keys. */
  read(json, source) {
    const rows = parseWith(rowsSchema, json, source);
    const steps = Object.values(rows)[0]?.length ?? 0;
    if (steps === 0) throw badPlan(source, "it has no cells");
    return { steps, cells: parseRows(rows, steps) };
  },
  /**
   * `smooth_cache_helper.py` looks for the last name of a module's path with its block, `attn-3`, then without. Rows stand under
   * the names of facebook's DiT and under those of diffusers, so that they are found in either.
   */
  write(schedule, branches) {
    const rows: Record<string, readonly (0 | 1)[]> = {};
    for (const kind of new Set(branches.map((branch) => branch.kind))) {
      const module = MODULE_NAMES.get(kind);
      if (module === undefined) throw planFormat(NAME, `SmoothCache wraps no modules of the kind '${kind}'`);
      const ofKind = branches.filter((branch) => branch.kind === kind);
      const inBlocks = flatRows(NAME, schedule, ofKind, ({ block }) => `-${block}`);
      const [[, first] = ["", []]] = inBlocks;
      const areAlike = [...inBlocks.values()].every((row) => row.join() === first.join());
      for (const name of [kind, module])
        for (const [block, row] of areAlike ? [["", first] as const] : inBlocks) rows[`${name}${block}`] = row;
    }
    return rows;
  },
} satisfies Format;
