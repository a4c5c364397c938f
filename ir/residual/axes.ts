/** The axes over which the self attentions of video models take turns: the space of a frame, and time. */
import type { Value } from "../graph.js";
import { elementCount, staticShape } from "../types.js";
import type { ResidualBranch } from "./index.js";

export type Axis = "spatial" | "temporal";

/**
 * The axis of each self attention, if they take turns; undefined if they do not. Either some see the tokens in their order, frame after
 * frame, and others see them turned; or they attend to two different numbers of tokens, which together make all tokens of a sample.
 */
export function axesOf(branches: readonly ResidualBranch[], latent: Value): ((branch: ResidualBranch) => Axis) | undefined {
  const attending = branches.filter(({ kind }) => kind === "attn");
  if (new Set(attending.map(({ entry }) => entry.turned)).size > 1) return ({ entry }) => (entry.turned ? "temporal" : "spatial");
  const [first, second, ...others] = new Set(attending.map(({ span }) => span));
  if (first === undefined || second === undefined || others.length > 0) return undefined;
  if (!attending.every(({ add: { sum } }) => tokensPerSample(sum, latent) === first * second)) return undefined;
  // Frames stand behind the batch, before or after the channels. Where that does not tell, space comes first.
  const [, ...sizes] = staticShape(latent.type) ?? [];
  const isTime = (span: number): boolean => sizes.slice(0, 2).some((size) => size % span === 0);
  const temporal = isTime(first) && !isTime(second) ? first : second;
  return ({ span }) => (span === temporal ? "temporal" : "spatial");
}

function tokensPerSample(stream: Value, latent: Value): number | undefined {
  const [shape, sample] = [staticShape(stream.type), staticShape(latent.type)];
  return shape && sample && elementCount(shape.slice(0, -1)) / (sample[0] ?? 1);
}
