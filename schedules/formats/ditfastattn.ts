/**
 * DiTFastAttn's plans as xDiT saves them (arXiv 2406.08552; xdit-project/xDiT, `xfuser/core/fast_attention/utils.py`): a method
 * for the self-attention of every block at every step, `{ "block3": { "step7": "OUTPUT_SHARE" } }`.
 */
import { z } from "zod";
import { badPlan, planFormat } from "../diagnostics.js";
import type { Format } from "../format.js";
import { parseWith } from "../parse-with.js";
import type { ScheduleCell } from "../plan.js";
import { flatRows } from "../plan-rows.js";

const NAME = "ditfastattn";

/** The methods that a plan can express: reuse of the latest computed output, or full computation. */
const METHODS: ReadonlyMap<string, 0 | 1> = new Map([
  ["FULL_ATTN", 1],
  ["OUTPUT_SHARE", 0],
]);

const schema = z.record(z.string().regex(/^block\d+$/), z.record(z.string().regex(/^step\d+$/), z.string()));

export default {
  name: NAME,
  summary: "a plan of DiTFastAttn, as xDiT saves it",
  recognises: (json) => typeof json === "object" && json !== null && "block0" in json,
  /** xDiT reads steps by position and ignores their numbers. Here the numbers count, and none may be missing. */
  read(json, source) {
    const blocks = parseWith(schema, json, source);
    const steps = Object.keys(blocks["block0"] ?? {}).length;
    if (steps === 0) throw badPlan(source, "it has no steps");
    const rows = Object.entries(blocks).map(([block, methods]): [string, readonly ScheduleCell[]] => {
      const found = Object.keys(methods).length;
      if (found !== steps) throw badPlan(source, `${block} has ${found} steps, and block0 has ${steps}`);
      return [`attn-${block.slice("block".length)}`, Array.from({ length: steps }, (_, k) => cellAt(block, `step${k}`, methods, source))];
    });
    return { steps, cells: new Map(rows) };
  },
  write(schedule, branches) {
    const others = branches.filter(({ kind }) => kind !== "attn");
    for (const [site, row] of flatRows(NAME, schedule, others, ({ name }) => name))
      if (row.includes(0)) throw planFormat(NAME, `it speaks of self-attention alone, and '${site}' is cached`);
    const rows = flatRows(
      NAME,
      schedule,
      branches.filter(({ kind }) => kind === "attn"),
      ({ block }) => `block${block}`,
    );
    const methods = (row: readonly (0 | 1)[]): Record<string, string> =>
      Object.fromEntries(row.map((cell, step) => [`step${step}`, cell === 1 ? "FULL_ATTN" : "OUTPUT_SHARE"]));
    return Object.fromEntries([...rows].map(([block, row]) => [block, methods(row)]));
  },
} satisfies Format;

function cellAt(block: string, step: string, methods: Readonly<Record<string, string>>, source: string): ScheduleCell {
  const method = methods[step];
  if (method === undefined) throw badPlan(source, `${block} has no ${step}`);
  const cell = METHODS.get(method);
  if (cell !== undefined) return cell;
  throw planFormat(
    NAME,
    `${block} is to use ${method} at ${step}: only whole outputs of an earlier step are reused here`,
    `Write ${[...METHODS.keys()].join(" or ")} in its place.`,
  );
}
