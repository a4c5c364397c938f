/** A cached branch in a loop: the rows in which it is computed, and the forecast from carried values for the other rows. */
import { type Builder, elemOf, shapeOf } from "../../ir/build.js";
import { inputValue, type Value } from "../../ir/graph.js";
import type { StandardOperator } from "../../ir/operators.js";
import type { Adjustment, Cell } from "../../schedules/index.js";
import type { Iteration } from "./iteration.js";

export class Site {
  readonly computes: readonly boolean[];
  /** The values of the latest computed steps, newest first, as many as any step reads. Inputs of the body. */
  readonly kept: readonly Value[];
  /** Whether every cached step reuses the latest value unchanged. */
  readonly isPureReuse: boolean;
  /** The weight of each kept value, row by row. */
  private readonly weights: readonly (readonly number[])[];

  constructor(
    site: string,
    readonly value: Value,
    private readonly cells: readonly Cell[],
  ) {
    this.computes = cells.map(({ kind }) => kind === "compute");
    const fills = cells.flatMap(({ kind }, row) => (kind === "compute" ? [row] : []));
    this.weights = cells.map((cell, row) => {
      const before = fills.filter((fill) => fill < row).reverse();
      const terms = cell.kind === "terms" ? cell.terms : [];
      const weights = before.map((fill) => terms.reduce((sum, { step, weight }) => sum + (step === fill ? weight : 0), 0));
      return weights.slice(0, weights.findLastIndex((weight) => weight !== 0) + 1);
    });
    const count = Math.max(1, ...this.weights.map(({ length }) => length));
    this.kept = Array.from({ length: count }, (_, i) => inputValue(`cache/${site}_${i}`, value.type));
    this.isPureReuse =
      count === 1 && cells.every((cell, row) => cell.kind !== "terms" || (this.weights[row]?.[0] === 1 && !cell.scale && !cell.shift));
  }

  /** The value in a row that does not compute it: scale · Σ weight · kept + shift. */
  forecast(step: Iteration, build: Builder): Value {
    const { name } = this.value;
    if (this.isPureReuse) return build.weightedSum([{ value: this.latest, weight: 1 }], name);
    const terms = this.kept.map((value, i) => ({
      value,
      weight: step.weight(`${name}_weight${i}`, (row) => this.weights[row]?.[i] ?? 0),
    }));
    const sum = build.weightedSum(terms, `${name}_forecast`);
    return this.adjusted("shift", "Add", 0, this.adjusted("scale", "Mul", 1, sum, step, build), step, build);
  }

  private get latest(): Value {
    const [latest] = this.kept;
    if (!latest) throw new Error("internal: a cached branch keeps no value");
    return latest;
  }

  /** Applies one part of the adjustments along the last axis; rows without it use `neutral`. */
  private adjusted(
    part: keyof Adjustment,
    opType: StandardOperator,
    neutral: number,
    value: Value,
    step: Iteration,
    build: Builder,
  ): Value {
    const ofRow = this.cells.map((cell) => (cell.kind === "terms" ? cell[part] : undefined));
    if (ofRow.every((vector) => !vector)) return value;
    const type = { elem: elemOf(value), shape: shapeOf(value) };
    const length = type.shape.at(-1) ?? 1;
    const neutralRow = new Array<number>(length).fill(neutral);
    const vector = step.constant(`${value.name}_${part}`, type.elem, [length], (row) => ofRow[row] ?? neutralRow);
    return build.op(opType, [value, vector], `${value.name}_${part}_applied`, type);
  }
}
