/** Where one step of a run is built: at a row of the sampler's table that is known, or at each of them in turn. */
import type { Builder, Weight } from "../../ir/build.js";
import { constant, type Value } from "../../ir/graph.js";
import { tensorOf } from "../../ir/tensor.js";
import type { ElementType } from "../../ir/types.js";

/** What is said of a row of the table. */
export type OfRow<T> = (row: number) => T;

/** `W`: what a weight is that the table has for each row. */
export interface Step<W extends Weight = Weight> {
  /** In marks. */
  readonly index: number;
  /** In front of the names of its nodes. */
  readonly label: string;
  /** Where nodes go that depend on the time and not on the latent. */
  readonly early: Builder;
  weight(name: string, of: OfRow<number>): W;
  /** The numbers of the step's row as a value. */
  constant(name: string, elem: ElementType, shape: readonly number[], of: OfRow<ArrayLike<number>>): Value;
  /** What the step has of a value that holds the rows of all steps: [steps · n, …] → [n, …]. */
  part(all: Value, name: string): Value;
  /** The one row that the step has of such a value, `count` times. */
  repeated(all: Value, count: number, name: string): Value;
}

/** Steps in front of which values of all steps are cut into parts: by one node for all of them. */
export class StepParts {
  private readonly parts = new Map<Value, readonly Value[]>();

  constructor(
    private readonly prologue: Builder,
    private readonly steps: number,
  ) {}

  of(all: Value, name: string): readonly Value[] {
    const known = this.parts.get(all);
    if (known) return known;
    const parts = this.prologue.splitRows(all, this.steps, `steps/${name}`);
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

  part(all: Value, name: string): Value {
    const part = this.parts.of(all, name)[this.index];
    if (!part) throw new Error(`internal: '${all.name}' has no part for step ${this.index}`);
    return part;
  }

  repeated(all: Value, count: number, name: string): Value {
    return this.early.gatherRows(all, new Array<number>(count).fill(this.index), name);
  }
}
