/** One residual stream through all blocks, x ← x + gate · f(x) (DiT, PixArt, Stable Audio, HunyuanDiT, Wan, Sana, …). */
import { axesOf } from "../residual/axes.js";
import { placed } from "../residual/blocks.js";
import type { Recogniser } from "../recogniser.js";

export default {
  name: "single-stream",
  recognise({ latent, streams: { branches }, streamOf }) {
    const names = new Set(branches.map(streamOf));
    if (names.size > 1 || axesOf(branches, latent)) return undefined;
    return placed(branches, streamOf);
  },
} satisfies Recogniser;
