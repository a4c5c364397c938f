/** The step that is being built: one known row of the sampler's table, or in a loop each row in turn. */
import { type Builder, elemOf, shapeOf, type Weight } from "../../ir/build.js";
import { entryAt } from "../../ir/entries.js";
import { constant, type Value } from "../../ir/graph.js";
import { tensorOf } from "../../ir/tensor.js";
import type { ElementType } from "../../ir/types.js";

/** A function of the row of the sampler's table. */
export type OfRow<T> = (row: number) => T;

/** `W`: the type of a weight that depends on the row; a number if the row is known. */
export interface Step<W extends Weight = Weight> {
  /** The number of the step in marks. */
  readonly index: number;
  /** The prefix of the names of its nodes. */
  readonly label: string;
  /** Receives the nodes that depend on the time but not on the latent. */
  readonly early: Builder;
  weight(name: string, of: OfRow<number>): W;
  /** The numbers of the step's row as a value. */
  constant(name: string, elem: ElementType, shape: readonly number[], of: OfRow<ArrayLike<number>>): Value;
  /** The value of this step in one with a value for each row, [values, …]; `places` says which a row has. */
  value(all: Value, places: readonly number[], name: string): Value;
  /** The rows of this step in a value with the rows of several steps, this one among them: [steps · n, …] → [n, …]. */
  part(all: Value, steps: readonly number[], name: string): Value;
  /** The single row of this step in such a value, repeated `count` times. */
  repeated(all: Value, steps: readonly number[], count: number, name: string): Value;
}

/** What `Step.value` gives: found by `place`, an int64 scalar. */
export function valueAt(all: Value, place: Value, name: string, build: Builder): Value {
  const [, ...shape] = shapeOf(all);
  return build.op("Gather", [all, place], name, { elem: elemOf(all), shape }, { axis: { kind: "int", value: 0n } });
}

/** Splits a value with the rows of several steps into the parts of each step, by one node for all of them. */
export class StepParts {
  private readonly parts = new Map<Value, readonly Value[]>();

  constructor(private readonly prologue: Builder) {}

  of(all: Value, steps: number, name: string): readonly Value[] {
    const known = this.parts.get(all);
    if (known) return known;
    const parts = this.prologue.splitRows(all, steps, `steps/${name}`);
    this.parts.set(all, parts);
    return parts;
  }
}

/** A step whose row is known. */
export class KnownStep implements Step<number> {
  constructor(
    readonly index: number,
    readonly label: string,
    readonly early: Builder,
    private readonly parts: StepParts,
  ) {}

  weight(_name: string, of: OfRow<number>): number {
    return of(this.index);
  }

  constant(name: string, elem: ElementType, shape: readonly number[], of: OfRow<ArrayLike<number>>): Value {
    return constant(name, tensorOf(elem, shape, of(this.index)));
  }

  value(all: Value, places: readonly number[], name: string): Value {
    return valueAt(
      all,
      this.constant(`${name}_place`, "int64", [], (row) => [entryAt(places, row)]),
      name,
      this.early,
    );
  }

  part(all: Value, steps: readonly number[], name: string): Value {
    const part = this.parts.of(all, steps.length, name)[steps.indexOf(this.index)];
    if (!part) throw new Error(`internal: '${all.name}' has no part for step ${this.index}`);
    return part;
  }

  repeated(all: Value, steps: readonly number[], count: number, name: string): Value {
    return this.early.gatherRows(all, new Array<number>(count).fill(steps.indexOf(this.index)), name);
  }
}
