/**
 * The interface of a rule of `fuse`, a file of `fuse/`. A rule recognises one expression by its last node and replaces it by a shorter
 * one that computes the same up to rounding.
 */
import type { Builder } from "../ir/build.js";
import type { Node, Value } from "../ir/graph.js";
import type { Named } from "../ir/registry.js";

/** What a rule knows about the graph around a node, and where it builds its nodes. */
export interface Surroundings {
  readonly build: Builder;
  /** Whether only one node reads a value, and it is neither an output nor marked. Only such a value may be removed. */
  readonly isInner: (value: Value | undefined) => boolean;
  /** The nodes with the same first operand as this node, in order, as they were before the walk. */
  readonly siblings: () => readonly Node[];
  /** The value that has replaced a value from before the walk by now. */
  readonly now: (value: Value) => Value;
}

export interface FuseRule extends Named {
  /** The first version of the standard operator set with the operators that the rule makes. */
  readonly opset: number;
  /**
   * The values that replace the outputs of `node`, with the same types, if the rule's expression ends there.
   * Shapes of its operands and outputs are fixed.
   */
  apply(node: Node, around: Surroundings): readonly Value[] | undefined;
}
