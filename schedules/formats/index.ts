/** The known formats of plan files, and the way from a file's JSON to a schedule. */
import { badPlan } from "../diagnostics.js";
import { unknownName } from "../../ir/diagnostics.js";
import { hasMethods, loadFolder } from "../../ir/registry.js";
import type { Arrays } from "../adjustment.js";
import { settingsIn } from "../foreign-settings.js";
import type { Format } from "../format.js";
import type { Schedule } from "../plan.js";
import smoothcc from "./smoothcc.js";

function isFormat(candidate: unknown): candidate is Format {
  return hasMethods(candidate, "recognises", "read", "write");
}

/** By name, in alphabetical order. */
export const formats: ReadonlyMap<string, Format> = await loadFolder(import.meta.url, isFormat);

/** Throws UNKNOWN_NAME. */
export function formatNamed(name: string): Format {
  const format = formats.get(name);
  if (!format) throw unknownName("format", name, [...formats.keys()]);
  return format;
}

/**
 * The schedule of a JSON value, in the first format that recognises it. `arraysOf` reads the file of its adjustments, if it has any.
 * Throws BAD_PLAN if no format does, and what reading it throws.
 */
export function parseSchedule(
  json: unknown,
  source: string,
  arraysOf = (file: string): Arrays => {
    throw badPlan(source, `it needs the arrays of ${file}`);
  },
): Schedule {
  const format = [...formats.values()].find((candidate) => candidate.recognises(json));
  if (!format) {
    const settings = settingsIn(json);
    if (settings) throw badPlan(source, `it has settings of ${settings.name} (${settings.keys.join(", ")})`, settings.instead);
    throw badPlan(source, `it is in none of the known forms (${[...formats.keys()].join(", ")})`);
  }
  return format.read(json, source, arraysOf);
}

/** The schedule as plan.json holds it; `tensors` names the file of its adjustments, where it has any. `parseSchedule` reads it back. */
export function scheduleJson(schedule: Schedule, tensors?: string): Readonly<Record<string, unknown>> {
  return smoothcc.write(schedule, [], tensors);
}
