/**
 * Video models whose blocks attend over the space of a frame and over time in turn (Latte, Open-Sora's STDiT3). Patches are laid out
 * frame after frame, so temporal attention transposes the token axes first: in its branch, or in the stream between two blocks. The
 * branches that follow an attention in its block belong to the same axis.
 */
import { placed, takesTurns } from "../residual/blocks.js";
import type { Recogniser } from "../recogniser.js";

export default {
  name: "factorised",
  recognise({ streams: { branches }, streamOf }) {
    const names = new Set(branches.map(streamOf));
    if (names.size !== 1 || !takesTurns(branches)) return undefined;
    let axis = "spatial";
    return placed(branches, ({ kind, entry }) => {
      if (kind === "attn" || kind === "single") axis = entry.turned ? "temporal" : "spatial";
      return axis;
    });
  },
} satisfies Recogniser;
