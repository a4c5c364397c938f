/**
 * Blocks of a video model that attend over the space of a frame and over time in turn (Latte, Open-Sora's STDiT3). Patches stand
 * frame after frame, so attention over time is the one whose tokens are turned first: in the branch, or in the stream between two
 * blocks. What follows attention in its block belongs to the same axis.
 */
import { placed } from "../residual/blocks.js";
import { streamNames } from "../residual/stream-names.js";
import type { Recogniser } from "./index.js";

export default {
  name: "factorised",
  summary: "one residual stream whose blocks attend over space and over time in turn",
  recognise(facts) {
    const { branches } = facts.streams;
    const names = streamNames(facts);
    const streams = new Set(branches.map(({ tokens }) => names(tokens.sources)));
    if (streams.size !== 1 || !branches.some(({ kind, entry }) => kind === "attn" && entry.turned)) return undefined;
    let axis = "spatial";
    return placed(branches, ({ kind, entry }) => {
      if (kind === "attn" || kind === "single") axis = entry.turned ? "temporal" : "spatial";
      return axis;
    });
  },
} satisfies Recogniser;
