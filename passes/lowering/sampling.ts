/** The parts of a sampler that are no weighted sums: drawn noise and clamping. */
import { type Builder, shapeOf } from "../../ir/build.js";
import type { Value } from "../../ir/graph.js";
import type { Calls } from "./calls.js";
import type { OfRow, Step } from "./step.js";

/**
 * The unit normal of a step: the rows of the input `noise` in order.
 * In rows of the table without noise it is an arbitrary one, of weight 0.
 */
export function drawAt({ body, draws, noise, run }: Calls, step: Step): Value | undefined {
  if (!draws) return undefined;
  const adds = run.table.rows.map(({ next }) => next.noise !== 0);
  const before = (row: number): number => adds.slice(0, row).filter(Boolean).length;
  const last = (shapeOf(draws)[0] ?? 1) - 1;
  const index = step.constant(`${step.label}/draw`, "int64", [], (row) => [Math.min(before(row), last)]);
  return body.op("Gather", [draws, index], `${step.label}/noise`, { elem: "float", shape: shapeOf(noise) });
}

export function clamped(body: Builder, value: Value, step: Step, bound: OfRow<number>): Value {
  const at = (sign: number): Value => step.constant(`${step.label}/bound`, "float", [], (row) => [sign * bound(row)]);
  return body.op("Clip", [value, at(-1), at(1)], `${step.label}/clamped`, { elem: "float", shape: shapeOf(value) });
}
