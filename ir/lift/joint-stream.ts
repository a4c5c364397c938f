/**
 * Several streams of tokens that attend to each other: text and image side by side (SD3, Qwen-Image, CogVideoX), joined to one
 * later on (FLUX, AuraFlow), or refined apart before they are joined (Lumina 2, Z-Image).
 */
import { placed, type PlacedBranch } from "../residual/blocks.js";
import { isOp, type Value } from "../graph.js";
import type { SharedBranch } from "../residual/cut.js";
import { unmoved } from "../residual/moves.js";
import type { Recogniser } from "../recogniser.js";

export default {
  name: "joint-stream",
  recognise({ streams: { branches }, nameOf, streamOf }) {
    const names = new Set(branches.map(streamOf));
    if (names.size < 2) return undefined;
    const shared = new Map<Value, PlacedBranch[]>();
    return placed(branches, streamOf).flatMap((one): SharedBranch[] => {
      const value = sharedOutput(one);
      if (!value) return [one];
      const places = shared.get(value) ?? [];
      shared.set(value, places);
      places.push(one);
      return places.length > 1 ? [] : [{ ...one, stream: nameOf(one.branch.entry), value, places }];
    });
  },
} satisfies Recogniser;

/** The output of a feed-forward network that several streams share: each stream adds its own slice of it (CogVideoX). */
function sharedOutput({ branch: { kind, output, entry } }: PlacedBranch): Value | undefined {
  const { producer } = unmoved(output);
  return kind === "mlp" && entry.stretches.length > 1 && isOp(producer, "Slice", "Split") ? producer?.inputs[0] : undefined;
}
