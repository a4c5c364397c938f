/** What a rule of `fuse` is: a file of `fuse/`. It knows one expression by its last node, and a shorter one that computes the same up to rounding. */
import type { Builder } from "../ir/build.js";
import type { Node, Value } from "../ir/graph.js";
import type { Named } from "../ir/registry.js";

/** What a rule is told about the graph around a node, and where it builds. */
export interface Surroundings {
  readonly build: Builder;
  /** Whether one node alone needs a value: no other reads it, no output and no mark is it. Only such a value may go. */
  readonly isInner: (value: Value | undefined) => boolean;
  /** The nodes, in their order, whose first operand is that of the node, as they were before the walk. */
  readonly siblings: () => readonly Node[];
  /** What stands by now for a value as it was before the walk. */
  readonly now: (value: Value) => Value;
}

export interface FuseRule extends Named {
  /** The first version of the standard operator set that has the operators which the rule makes. */
  readonly opset: number;
  /** What stands for the outputs of `node`, of the same types, if an expression of the rule ends there. Shapes of its operands and outputs are fixed. */
  apply(node: Node, around: Surroundings): readonly Value[] | undefined;
}
