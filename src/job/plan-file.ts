/** Plan files: plan.json, with the vectors of its adjustments in an .npz file beside it; or the format of another program. */
import { dirname, join, parse } from "node:path";
import { adjustmentArrays, type BranchName, formatNamed, parseSchedule, type Schedule } from "../../schedules/index.js";
import { containedFile, jsonText, npzBytes, readJson, readNpz, writeWhole } from "../files/index.js";

/**
 * The schedule in a file, with its adjustments.
 * Throws FILE_MISSING, FILE_OUTSIDE, BAD_JSON, BAD_NPZ, BAD_NPY and what `parseSchedule` throws.
 */
export function readPlan(file: string): Schedule {
  return parseSchedule(readJson(file), file, (tensors) => readNpz(containedFile(tensors, dirname(file))));
}

/**
 * Writes a schedule and its adjustments (`plan.npz` beside `plan.json`); returns the JSON. Formats other than our own need the branches
 * that the schedule is for. Throws UNKNOWN_NAME, PLAN_FORMAT and what `writeWhole` throws.
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
