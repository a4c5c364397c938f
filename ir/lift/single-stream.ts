/** One residual stream through all blocks, x ← x + gate · f(x) (DiT, PixArt, Stable Audio, HunyuanDiT, Wan, Sana, …). */
import { placed, takesTurns } from "../residual/blocks.js";
import type { Recogniser } from "../recogniser.js";

export default {
  name: "single-stream",
  recognise({ streams: { branches }, streamOf }) {
    const names = new Set(branches.map(streamOf));
    if (names.size > 1 || takesTurns(branches)) return undefined;
    return placed(branches, streamOf);
  },
} satisfies Recogniser;
