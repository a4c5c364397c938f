/**
 * cache-dit's step masks (github.com/vipshop/cache-dit, `DBCacheConfig.steps_computation_mask`): whole steps that are computed
 * (1) or not (0), as a list, in a configuration, or as the two lists of bins that `cache_dit.steps_mask` takes. cache-dit caches the
 * sum of the blocks after its first ones, while here every branch is cached: a mask gives the same steps, but not the same result.
 */
import { z } from "zod";
import { badPlan } from "../diagnostics.js";
import { MAX_ROWS } from "../../ir/limits.js";
import type { Format } from "../format.js";
import { parseWith } from "../parse-with.js";
import { EVERY_BRANCH } from "../plan.js";
import { flatRows, parseRows } from "../plan-rows.js";

const NAME = "cache-dit";

const mask = z.array(z.unknown()).min(1).max(MAX_ROWS);
const configSchema = z.looseObject({ steps_computation_mask: mask });
const bins = z.array(z.int().min(0).max(MAX_ROWS)).max(MAX_ROWS);
const binsSchema = z.strictObject({ compute_bins: bins, cache_bins: bins, total_steps: z.int().min(1).max(MAX_ROWS).optional() });

const has = (json: unknown, key: string): boolean => typeof json === "object" && json !== null && key in json;

/** A configuration without a mask decides while the run goes on, and is no plan. */
const isConfigured = (json: unknown): boolean =>
  typeof json === "object" && json !== null && "cache_config" in json && has(json.cache_config, "steps_computation_mask");

export default {
  name: NAME,
  summary: "a step mask of cache-dit",
  recognises: (json) => Array.isArray(json) || has(json, "steps_computation_mask") || has(json, "compute_bins") || isConfigured(json),
  read(json, source) {
    const row = maskOf(json, source);
    return { steps: row.length, cells: parseRows({ [EVERY_BRANCH]: row }, row.length) };
  },
  write(schedule, branches) {
    const [row = []] = flatRows(NAME, schedule, branches, () => EVERY_BRANCH).values();
    return {
      cache_config: { num_inference_steps: schedule.steps, steps_computation_mask: row, steps_computation_policy: "static" },
    };
  },
} satisfies Format;

function maskOf(json: unknown, source: string): readonly unknown[] {
  if (has(json, "compute_bins")) return maskOfBins(parseWith(binsSchema, json, source), source);
  if (has(json, "cache_config"))
    return parseWith(z.looseObject({ cache_config: configSchema }), json, source).cache_config.steps_computation_mask;
  if (has(json, "steps_computation_mask")) return parseWith(configSchema, json, source).steps_computation_mask;
  return parseWith(mask, json, source);
}

/**
 * `_steps_mask` of `cache_interface.py`: computed and cached bins alternate, starting with a computed one, and end after `total_steps`.
 * Throws BAD_PLAN if they cover fewer steps, or more than a plan has.
 */
function maskOfBins(
  { compute_bins: compute, cache_bins: cache, total_steps: total }: z.infer<typeof binsSchema>,
  source: string,
): readonly (0 | 1)[] {
  const length = [...compute, ...cache].reduce((sum, bin) => sum + bin, 0);
  if (length > MAX_ROWS) throw badPlan(source, `its bins have ${length} steps, and a plan has ${MAX_ROWS} at most`);
  const pairs = Array.from({ length: Math.max(compute.length, cache.length) }, (_, i) => [
    ...new Array<1>(compute[i] ?? 0).fill(1),
    ...new Array<0>(cache[i] ?? 0).fill(0),
  ]);
  const row = pairs.flat();
  if (row.length < (total ?? 1)) throw badPlan(source, `its bins have ${row.length} steps, of ${total ?? 1}`);
  return row.slice(0, total);
}
