/**
 * Fields of a file that the IR has no place for.
 * The `extra` of values, nodes, graphs and models carries them; only the writer reads them.
 */
import type { TensorType } from "../types.js";
import type { Draft, Message, Unknowns } from "./schema.js";

/** Fields of a graph or a model: doc strings, functions, producers, annotations. */
export class Leftovers {
  constructor(readonly unknowns: Unknowns | undefined) {}
}

/** Whether the leftovers of a model have `functions` (field 25 of ModelProto, here with its tag): operators that the file defines. */
export function definesFunctions(extra: unknown): boolean {
  return extra instanceof Leftovers && extra.unknowns?.some(([low, high]) => low === 0xca && high === 0x01) === true;
}

export class NodeExtra {
  constructor(
    readonly unknowns: Unknowns | undefined,
    /** By the name of the attribute: its doc string, the name and metadata of its tensor. */
    readonly attributes: ReadonlyMap<string, Draft<"AttributeProto">>,
    /** The node was read from a sparse initializer: it is a `Constant` with a `sparse_value`. */
    readonly isSparseInitializer = false,
  ) {}
}

export class ValueExtra {
  constructor(
    /** The type of the value when it was read. As long as that has not changed, the file's own description of the type still holds. */
    readonly type: TensorType | undefined,
    /** The entry among the inputs, or in value_info. */
    readonly info: Message<"ValueInfoProto"> | undefined,
    /** The entry among the outputs. */
    readonly output: Message<"ValueInfoProto"> | undefined,
    /** The doc string and metadata of the initializer. */
    readonly initializer: Unknowns | undefined,
  ) {}
}
