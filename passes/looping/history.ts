/** A value of every step that later steps read: the latent, the guided output, or the clamped history value. */
import type { Weight, WeightedValue } from "../../ir/build.js";
import { inputValue, type Value } from "../../ir/graph.js";
import type { OfRow, Step } from "../lowering/step.js";
import type { Sum } from "../lowering/sums.js";
import type { Carried } from "./branches.js";

/** Sums by row; rows without one add nothing. */
export type SumsByRow = readonly (Sum | undefined)[];

export class History {
  /** The values of the previous step, of the one before it, and so on, as far back as any row reads. Inputs of the body. */
  private readonly earlier: readonly Value[];

  constructor(
    private readonly part: keyof Sum,
    /** The value of the current step. */
    private readonly value: Value,
    read: SumsByRow,
  ) {
    const ages = read.flatMap((sum, row) => Array.from(sum?.[part] ?? [], ([step]) => row - step));
    const count = Math.max(0, ...ages);
    this.earlier = Array.from({ length: count }, (_, i) => inputValue(`history/${part}_${i + 1}`, value.type));
  }

  /** The terms that this history contributes to the sum of each row. */
  terms(sums: SumsByRow, step: Step, label: string): readonly WeightedValue<Weight>[] {
    return [this.value, ...this.earlier].map((value, age) => {
      const weight: OfRow<number> = (row) => sums[row]?.[this.part].get(row - age) ?? 0;
      return { value, weight: step.weight(`${label}/${this.part}_${age}`, weight) };
    });
  }

  get carried(): readonly Carried[] {
    return this.earlier.map((input, i) => ({ input, output: this.earlier[i - 1] ?? this.value }));
  }
}
