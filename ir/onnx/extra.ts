/** What a file said that the IR has no words for: carried in the `extra` of values, nodes, graphs and models, read by the writer alone. */
import type { TensorType } from "../types.js";
import type { Draft, Message, Unknowns } from "./schema.js";

/** Fields of a graph or a model: doc strings, functions, producers, annotations. */
export class Leftovers {
  constructor(readonly unknowns: Unknowns | undefined) {}
}

export class NodeExtra {
  constructor(
    readonly unknowns: Unknowns | undefined,
    /** By the name of the attribute: its doc string, the name and metadata of its tensor. */
    readonly attributes: ReadonlyMap<string, Draft<"AttributeProto">>,
    /** The node stands for a sparse initializer: a `Constant` with a `sparse_value`. */
    readonly isSparseInitializer = false,
  ) {}
}

export class ValueExtra {
  constructor(
    /** The type that the value had when it was read: if it still has it, what the file said of the type still holds. */
    readonly type: TensorType | undefined,
    /** The entry among the inputs, or in value_info. */
    readonly info: Message<"ValueInfoProto"> | undefined,
    /** The entry among the outputs. */
    readonly output: Message<"ValueInfoProto"> | undefined,
    /** The doc string and metadata of the initializer. */
    readonly initializer: Unknowns | undefined,
  ) {}
}
