/** One residual stream through all blocks (DiT, PixArt, Stable Audio, HunyuanDiT, Wan, Sana, …): x ← x + gate · f(x), over and over. */
import { placed } from "../residual/blocks.js";
import { streamNames } from "../residual/stream-names.js";
import type { Recogniser } from "./index.js";

export default {
  name: "single-stream",
  summary: "one residual stream through all blocks",
  recognise(facts) {
    const { branches } = facts.streams;
    const names = streamNames(facts);
    const streams = new Set(branches.map(({ tokens }) => names(tokens.sources)));
    const turns = branches.some(({ entry }) => entry.turned);
    if (branches.length === 0 || streams.size > 1 || turns) return undefined;
    return placed(branches, ({ tokens }) => names(tokens.sources));
  },
} satisfies Recogniser;
