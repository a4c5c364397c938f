/** The step of a loop body. Numbers that differ between rows are gathered from tables by the iteration counter. */
import { type Builder, elemOf, shapeOf, type Weight } from "../../ir/build.js";
import { entryAt } from "../../ir/entries.js";
import { constant, type Value } from "../../ir/graph.js";
import { tensorOf } from "../../ir/tensor.js";
import type { ElementType } from "../../ir/types.js";
import { type OfRow, type Step, valueAt } from "../lowering/step.js";

export class Iteration implements Step {
  readonly index = 0;
  readonly label = "step";
  readonly rows: readonly number[];
  private readonly parts = new Map<Value, Value>();

  constructor(
    /** The iteration counter: an int64 scalar. */
    private readonly number: Value,
    private readonly steps: number,
    private readonly prologue: Builder,
    /** Receives the nodes that read the tables. */
    readonly early: Builder,
  ) {
    this.rows = Array.from({ length: steps }, (_, row) => row);
  }

  /** The same step, which reads its tables in another builder. */
  within(builder: Builder): Iteration {
    return new Iteration(this.number, this.steps, this.prologue, builder);
  }

  weight(name: string, of: OfRow<number>): Weight {
    const first = of(0);
    const isFixed = this.rows.every((row) => of(row) === first);
    return isFixed ? first : this.constant(name, "float", [], (row) => [of(row)]);
  }

  constant(name: string, elem: ElementType, shape: readonly number[], of: OfRow<ArrayLike<number>>): Value {
    const rows = this.rows.map((row) => Array.from(of(row)));
    const [first = []] = rows;
    if (rows.every((row) => row.every((number, i) => number === first[i]))) return constant(name, tensorOf(elem, shape, first));
    return this.gathered(constant(`${name}_rows`, tensorOf(elem, [this.steps, ...shape], rows.flat())), name);
  }

  value(all: Value, places: readonly number[], name: string): Value {
    return valueAt(
      all,
      this.constant(`${name}_place`, "int64", [], (row) => [entryAt(places, row)]),
      name,
      this.early,
    );
  }

  /** `steps` are all rows, as all make the same calls. */
  part(all: Value, _steps: readonly number[], name: string): Value {
    const known = this.parts.get(all);
    if (known) return known;
    const [rows = 0, ...rest] = shapeOf(all);
    const shape = [this.steps, rows / this.steps, ...rest];
    const sizes = constant(`steps/${name}_sizes`, tensorOf("int64", [shape.length], shape));
    const table = this.prologue.op("Reshape", [all, sizes], `steps/${name}_rows`, { elem: elemOf(all), shape });
    const part = this.gathered(table, `${this.label}/${name}`);
    this.parts.set(all, part);
    return part;
  }

  repeated(all: Value, steps: readonly number[], count: number, name: string): Value {
    const order = this.rows.flatMap((row) => new Array<number>(count).fill(row));
    return this.part(this.prologue.gatherRows(all, order, `steps/${name}`), steps, name);
  }

  private gathered(table: Value, name: string): Value {
    return valueAt(table, this.number, name, this.early);
  }
}
