/**
 * The rules of `fuse`. Each recognises one expression by its last node,
 * and replaces it by a shorter one that computes the same up to rounding.
 */
import affineNormalization from "./affine-normalization.js";
import attention from "./attention.js";
import gatherRows from "./gather-rows.js";
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
import type { FuseRule } from "../fuse-rule.js";

/** In the order in which they run: rules that simplify come first, and rules over fused operators after those that make them. */
export const fuseRules: readonly FuseRule[] = [
  ...[identity, gatherRows, split],
  ...[rotaryEmbedding, gelu, rmsNormalization, layerNormalization, affineNormalization],
  ...[sinkTranspose, transpose, reshape],
  ...[attention, groupedAttention, packedAttention],
];
