/**
 * Blocks of a video model that attend over the space of a frame and over time in turn (Latte, Open-Sora's STDiT3). Patches stand
 * frame after frame, so attention over time is the one whose tokens are turned first: in the branch, or in the stream between two
 * blocks. What follows attention in its block belongs to the same axis.
 */
import { placed, takesTurns } from "../residual/blocks.js";
import type { Recogniser } from "../recogniser.js";

export default {
  name: "factorised",
  recognise({ streams: { branches }, nameOf }) {
    const names = new Set(branches.map(({ tokens }) => nameOf(tokens)));
    if (names.size !== 1 || !takesTurns(branches)) return undefined;
    let axis = "spatial";
    return placed(branches, ({ kind, entry }) => {
      if (kind === "attn" || kind === "single") axis = entry.turned ? "temporal" : "spatial";
      return axis;
    });
  },
} satisfies Recogniser;
