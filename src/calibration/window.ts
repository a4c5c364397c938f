/** Fits calibration into memory: chooses how many steps of how many branches are held at a time. */
import { badOption } from "../../schedules/diagnostics.js";
import { ditView } from "../../ir/graph.js";
import { elemOf, shapeOf } from "../../ir/build.js";
import { byteSize, elementCount } from "../../ir/types.js";
import type { Job } from "../job/index.js";
import { formatQuantity } from "../words/index.js";
import { L1_LAGS } from "./trace.js";

/** What is held: the values of every branch at `rows` steps. */
export interface StepWindow {
  readonly rows: number;
  /** How many steps back values are compared. New values come in batches of `rows − lags` steps. */
  readonly lags: number;
  /** Branches that are measured together. Each group needs a repetition of the trajectory. */
  readonly groups: readonly ReadonlySet<string>[];
}

export const DEFAULT_MEMORY = 4e9;

/** Steps whose values exist besides those that are held: one in the runtime, and the copy that it returns. */
const TRANSIENT_ROWS = 2;

/** The batch of new steps if not all fit: one matrix product computes the inner products of several steps. */
const CHUNK = 8;

/**
 * The window of a job's branches: all steps if they fit into `memory` bytes, else fewer, down to what L1 differences need;
 * if that is too much as well, as few groups of branches as will do. The weights and activations of the network come on top.
 * Throws BAD_OPTION if one branch alone does not fit.
 */
export function windowOf({ model, run }: Job, memory = DEFAULT_MEMORY): StepWindow {
  const steps = run.rows.length;
  const calls = run.calls.length;
  const sizeOf = new Map(model.graph.marks.map(({ site, value }) => [site, calls * byteSize(elemOf(value), elementCount(shapeOf(value)))]));
  const fewest = Math.min(steps, L1_LAGS + 1) + TRANSIENT_ROWS;
  const groups: Set<string>[] = [];
  let [largest, size] = [0, Infinity];
  for (const { site } of ditView(model).branches) {
    const added = sizeOf.get(site) ?? 0;
    if (fewest * added > memory)
      throw badOption("--memory", `${site} alone takes ${formatQuantity(fewest * added, "B")}, not ${formatQuantity(memory, "B")}`);
    if (fewest * (size + added) > memory) {
      groups.push(new Set());
      size = 0;
    }
    groups.at(-1)?.add(site);
    size += added;
    largest = Math.max(largest, size);
  }
  const rows = Math.min(steps, Math.floor(memory / largest) - TRANSIENT_ROWS);
  const lags = rows === steps ? steps - 1 : Math.max(L1_LAGS, rows - CHUNK);
  return { rows, lags, groups };
}
