/** The rules of `fuse`. Each knows one expression by its last node, and a shorter one that computes the same up to rounding. */
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
import type { FuseRule } from "../fuse-rule.js";

/** In the order of their walks: what clears the view comes first, and what is made of fused operators after those. */
export const fuseRules: readonly FuseRule[] = [
  ...[identity, split],
  ...[rotaryEmbedding, gelu, rmsNormalization, layerNormalization, affineNormalization],
  ...[sinkTranspose, transpose, reshape],
  ...[attention, groupedAttention, packedAttention],
];
