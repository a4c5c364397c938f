/** Plans as files: plan.json, and beside it the vectors of its adjustments, which numpy can read; or another program's form. */
import { dirname, join, parse, resolve } from "node:path";
import { adjustmentArrays, type BranchName, formatNamed, parseSchedule, type Schedule } from "../../schedules/index.js";
import { jsonText, npzBytes, readJson, readNpz, writeWhole } from "../files/index.js";

/** The schedule in a file, with its adjustments. Throws FILE_MISSING, BAD_JSON, BAD_NPZ, BAD_NPY and what `parseSchedule` throws. */
export function readPlan(file: string): Schedule {
  return parseSchedule(readJson(file), file, (tensors) => readNpz(resolve(dirname(file), tensors)));
}

/**
 * Writes a schedule and, as `plan.npz` beside `plan.json`, its adjustments; answers with the JSON. In a format other than our
 * own the branches are those that it is for. Throws UNKNOWN_NAME, PLAN_FORMAT and what `writeWhole` throws.
 */
export async function writePlan(
  file: string,
  schedule: Schedule,
  force: boolean,
  format = "smoothcc",
  branches: readonly BranchName[] = [],
): Promise<Readonly<Record<string, unknown>>> {
  const arrays = adjustmentArrays(schedule.adjustments ?? new Map());
  const tensors = arrays.size > 0 ? `${parse(file).name}.npz` : undefined;
  const json = formatNamed(format).write(schedule, branches, tensors);
  if (tensors !== undefined) await writeWhole(join(dirname(file), tensors), npzBytes(arrays), force);
  await writeWhole(file, jsonText(json), force);
  return json;
}
