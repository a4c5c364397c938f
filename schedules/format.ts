/** The interface of a format of plan files. */
import type { Named } from "../ir/registry.js";
import type { Arrays } from "./adjustment.js";
import type { BranchName, Schedule } from "./plan.js";

/** A format of plan files: a file of `formats/`. */
export interface Format extends Named {
  readonly summary: string;
  /** Whether a JSON value is meant to be of this format. Only checks what distinguishes it from other formats. */
  recognises(json: unknown): boolean;
  /**
   * `source` is the name of the file; `arraysOf` reads a file of arrays beside it. Throws BAD_JSON_FIELD, BAD_PLAN, BAD_CELL,
   * PLAN_LENGTH, and PLAN_FORMAT for what the format can express but a static plan cannot.
   */
  read(json: unknown, source: string, arraysOf: (file: string) => Arrays): Schedule;
  /**
   * The JSON of a schedule that fits these branches (`rowsOf`). `tensors` is the name of the file with its adjustments, if it has any.
   * Throws PLAN_FORMAT for what this format cannot express.
   */
  write(schedule: Schedule, branches: readonly BranchName[], tensors?: string): Readonly<Record<string, unknown>>;
}
