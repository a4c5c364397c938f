/** One DDIM step (arXiv 2010.02502, eq. 12 and 16) as weights of the latent, the predicted sample, the output and fresh noise. */
import type { ClampedStep } from "./clipping.js";
import { levelOfBar, noiseOf, sampleOf } from "./levels.js";
import type { Prediction } from "../sampler.js";

/** From a share of signal `bar` to `nextBar`; `eta` 0 draws no noise, 1 as much as DDPM. */
export function ddimStep(
  prediction: Exclude<Prediction, "flow">,
  bar: number,
  nextBar: number,
  eta: number,
): Pick<ClampedStep, "sample" | "weights"> {
  const level = levelOfBar(bar);
  // The predicted noise follows from the raw output, even if the sample is clamped.
  const { x, out } = noiseOf(prediction, level);
  const noise = eta * Math.sqrt(((1 - nextBar) / (1 - bar)) * (1 - bar / nextBar));
  const direction = Math.sqrt(1 - nextBar - noise * noise);
  const weights = { x: direction * x, sample: Math.sqrt(nextBar), out: direction * out, noise };
  return { sample: sampleOf(prediction, level), weights };
}
