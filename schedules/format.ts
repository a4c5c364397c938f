/** What a format of plan files is. */
import type { Named } from "../ir/registry.js";
import type { Arrays } from "./adjustment.js";
import type { BranchName, Schedule } from "./plan.js";

/** A form in which plans are written down: a file of `formats/`. */
export interface Format extends Named {
  readonly summary: string;
  /** Whether a JSON value is meant to be of this form: no more is looked at than tells it from the others. */
  recognises(json: unknown): boolean;
  /**
   * `source` is the file's name, `arraysOf` reads a file of arrays beside it. Throws BAD_JSON_FIELD, BAD_PLAN, BAD_CELL,
   * PLAN_LENGTH, and PLAN_FORMAT for what it can say and no static plan does.
   */
  read(json: unknown, source: string, arraysOf: (file: string) => Arrays): Schedule;
  /**
   * The JSON of a schedule that fits these branches (`rowsOf`); `tensors` names the file that its adjustments stand in, where it has any.
   * Throws PLAN_FORMAT for what this form cannot hold.
   */
  write(schedule: Schedule, branches: readonly BranchName[], tensors?: string): Readonly<Record<string, unknown>>;
}
