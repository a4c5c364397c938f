/** Plans that forecast, looked at from outside: the weights of a cell, and what a branch's values become. */
import { isPartialCell, type PolicyInput, type ScheduleCell } from "../../schedules/index.js";
import { choose, single } from "./policy-input.js";

export type Weights = readonly (readonly [step: number, weight: number])[];

/** The weights that a policy gives one step, the newest first, rounded to nine digits; plain reuse too as a weight. */
export async function weightsAt(name: string, options: unknown, input: PolicyInput, step: number): Promise<Weights> {
  const row = (await choose(name, options, input)).schedule.cells.get("attn") ?? [];
  return rounded([...weightsOf(row, step)].sort(([a], [b]) => b - a));
}

/** To be compared with those of `weightsAt`. */
export function rounded(weights: Weights): Weights {
  return weights.map(([step, weight]) => [step, Number(weight.toFixed(9))]);
}

/** What a branch returns at every step if it would return `values`, and a policy's plan is followed. */
export async function forecastsOf(name: string, options: unknown, values: readonly number[], input?: PolicyInput): Promise<number[]> {
  const row = (await choose(name, options, input ?? single(values.length))).schedule.cells.get("attn") ?? [];
  return values.map((_, step) => weightsOf(row, step).reduce((sum, [source, weight]) => sum + weight * (values[source] ?? NaN), 0));
}

function weightsOf(row: readonly ScheduleCell[], step: number): Weights {
  const cell = row[step];
  if (cell === undefined) throw new Error(`there is no step ${step}`);
  if (cell === 1) return [[step, 1]];
  if (cell === 0) return [[row.lastIndexOf(1, step), 1]];
  if (isPartialCell(cell)) throw new Error(`step ${step} computes some tokens`);
  for (const [source] of cell) if (row[source] !== 1) throw new Error(`step ${step} reads ${source}, which does not compute`);
  return cell;
}
