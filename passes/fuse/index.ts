/** The rules of `fuse`. Each knows one expression by its last node, and a shorter one that computes the same up to rounding. */
import type { Builder } from "../../ir/build.js";
import type { Node, Value } from "../../ir/graph.js";
import type { Named } from "../../ir/registry.js";
import affineNormalization from "./affine-normalization.js";
import attention from "./attention.js";
import gelu from "./gelu.js";
import groupedAttention from "./grouped-attention.js";
import identity from "./identity.js";
import layerNormalization from "./layer-normalization.js";
import packedAttention from "./packed-attention.js";
import reshape from "./reshape.js";
import rmsNormalization from "./rms-normalization.js";
import rotaryEmbedding from "./rotary-embedding.js";
import sinkTranspose from "./sink-transpose.js";
import split from "./split.js";
import transpose from "./transpose.js";

/** What a rule is told about the graph around a node, and where it builds. */
export interface Place {
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
  apply(node: Node, place: Place): readonly Value[] | undefined;
}

/** In the order of their walks: what clears the view comes first, and what is made of fused operators after those. */
export const fuseRules: readonly FuseRule[] = [
  ...[identity, split],
  ...[rotaryEmbedding, gelu, rmsNormalization, layerNormalization, affineNormalization],
  ...[sinkTranspose, transpose, reshape],
  ...[attention, groupedAttention, packedAttention],
];
