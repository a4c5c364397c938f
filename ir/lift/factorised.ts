/**
 * Video models whose blocks attend over the space of a frame and over time in turn (Latte, Open-Sora's STDiT3). Patches are laid out
 * frame after frame, so temporal attention transposes the token axes first: in the stream between two blocks, or in its branch, before
 * its projections or behind them. The branches that follow an attention in its block belong to the same axis.
 */
import { axesOf } from "../residual/axes.js";
import { placed } from "../residual/blocks.js";
import type { Recogniser } from "../recogniser.js";

export default {
  name: "factorised",
  recognise({ latent, streams: { branches }, streamOf }) {
    const names = new Set(branches.map(streamOf));
    const axisOf = axesOf(branches, latent);
    if (names.size !== 1 || !axisOf) return undefined;
    let axis = "spatial";
    const axes = new Map(
      branches.map((branch) => {
        if (branch.kind === "attn" || branch.kind === "single") axis = axisOf(branch);
        return [branch, axis];
      }),
    );
    return placed(branches, (branch) => axes.get(branch) ?? axis);
  },
} satisfies Recogniser;
