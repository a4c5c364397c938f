/** Numbers that are affine in the guidance scale of a run that takes it as an input. They are computed once, in front of the steps. */
import type { Builder } from "../../ir/build.js";
import { entryAt } from "../../ir/entries.js";
import { constant, type Value } from "../../ir/graph.js";
import { tensorOf } from "../../ir/tensor.js";
import type { ElementType } from "../../ir/types.js";
import type { RunRow } from "../../schedules/index.js";
import type { Step } from "./step.js";

/** Numbers of each row of the sampler's table. */
export interface Affine {
  /** Tells them apart: under one name they are the same at every step. */
  readonly name: string;
  readonly elem: ElementType;
  readonly shape: readonly number[];
  /** At a scale; affine in it. */
  readonly of: (row: number, scale: number) => readonly number[];
}

/** fixed + slope · scale, number by number. */
interface Coefficients {
  readonly fixed: readonly number[];
  readonly slope: readonly number[];
}

export class RunTimeScale {
  /** What has been asked for, by its name in the graph; nothing where rows differ. */
  private readonly made = new Map<string, Value | undefined>();

  constructor(
    private readonly prologue: Builder,
    /** The run's input: a float scalar. */
    private readonly input: Value,
    private readonly rows: readonly RunRow[],
  ) {}

  /** The numbers of a step's row. */
  at(step: Step, numbers: Affine): Value {
    const { name, shape } = numbers;
    const same = this.inAllRows(numbers);
    if (same) return same;
    const part = step.part(this.rowByRow(numbers), [...this.rows.keys()], name);
    return shape.length === 0 ? step.early.reshape(part, shape, `${step.label}/${name}`) : part;
  }

  /** The numbers of any row; undefined if rows differ in them. */
  inAllRows(numbers: Affine): Value | undefined {
    return this.once(`run/${numbers.name}`, (name) => {
      const [first, ...others] = this.rows.map((_, row) => this.coefficients(row, numbers));
      const text = ({ fixed, slope }: Coefficients): string => [...fixed, ...slope].join();
      return first && others.every((row) => text(row) === text(first)) ? this.computed(name, numbers, first) : undefined;
    });
  }

  /** The numbers of all rows, one after the other along axis 0. */
  rowByRow(numbers: Affine): Value {
    const [size = 1, ...rest] = numbers.shape;
    const made = this.once(`steps/${numbers.name}`, (name) => {
      const rows = this.rows.map((_, row) => this.coefficients(row, numbers));
      const all = { fixed: rows.flatMap(({ fixed }) => fixed), slope: rows.flatMap(({ slope }) => slope) };
      return this.computed(name, { ...numbers, shape: [rows.length * size, ...rest] }, all);
    });
    if (!made) throw new Error("internal: a table has been made of no rows");
    return made;
  }

  private once(name: string, make: (name: string) => Value | undefined): Value | undefined {
    const made = this.made.has(name) ? this.made.get(name) : make(name);
    this.made.set(name, made);
    return made;
  }

  /** At a row that does not take the input, the scale is a number. */
  private coefficients(row: number, { of }: Affine): Coefficients {
    const { scale, atRunTime } = entryAt(this.rows, row);
    if (!atRunTime) return { fixed: of(row, scale), slope: of(row, scale).map(() => 0) };
    const [fixed, next] = [of(row, 0), of(row, 1)];
    return { fixed, slope: next.map((number, i) => number - entryAt(fixed, i)) };
  }

  private computed(name: string, { elem, shape }: Affine, { fixed, slope }: Coefficients): Value {
    const { prologue, input } = this;
    const operand = (what: string, numbers: readonly number[]): Value => constant(`${name}/${what}`, tensorOf("float", shape, numbers));
    const type = { elem: "float", shape } as const;
    const isScaled = fixed.every((number) => number === 0);
    const scaled = prologue.op("Mul", [operand("slope", slope), input], isScaled ? name : `${name}/scaled`, type);
    const sum = isScaled ? scaled : prologue.op("Add", [scaled, operand("fixed", fixed)], name, type);
    return prologue.cast(sum, elem, `${name}/cast`);
  }
}
