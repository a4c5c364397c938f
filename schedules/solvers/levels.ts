/** Noise levels, x = alpha · sample + sigma · noise, and the predicted sample and noise of a model's output at a level. */
import type { NoiseLevel, Row } from "../sampler.js";

export interface Level {
  readonly alpha: number;
  readonly sigma: number;
  /** ln (alpha / sigma), half the logarithm of the signal-to-noise ratio. */
  readonly lambda: number;
}

/** The level of a scheduler's sigma, which is noise over signal (variance preserving), or belongs to alpha = 1 − sigma (rectified flow). */
export function levelOf(gridSigma: number, isFlow: boolean): Level {
  const alpha = isFlow ? 1 - gridSigma : 1 / Math.sqrt(gridSigma * gridSigma + 1);
  const sigma = isFlow ? gridSigma : gridSigma * alpha;
  return { alpha, sigma, lambda: Math.log(alpha) - Math.log(sigma) };
}

/** The level of a variance-preserving schedule at which a share alphaBar of the signal is left. */
export function levelOfBar(alphaBar: number): Level {
  const alpha = Math.sqrt(alphaBar);
  const sigma = Math.sqrt(1 - alphaBar);
  return { alpha, sigma, lambda: Math.log(alpha) - Math.log(sigma) };
}

/** A level as rows have it. Latents that are not scaled have an alpha of 1. */
export function noiseLevel({ alpha = 1, sigma }: Partial<Level> & Pick<Level, "sigma">): NoiseLevel {
  return { signal: alpha, noise: sigma };
}

/** The level with sample and noise exchanged. On such levels a solver in terms of samples becomes one in terms of noise. */
export function mirrored({ alpha, sigma, lambda }: Level): Level {
  return { alpha: sigma, sigma: alpha, lambda: -lambda };
}

/** Names of predictions in configurations. */
export type PredictionType = "epsilon" | "v_prediction" | "sample" | "flow_prediction";

/** The predicted sample as x · x_k + out · out_k. `gridSigma` is the scheduler's own sigma, which flow predictions scale by. */
export function sampleOf(prediction: PredictionType, { alpha, sigma }: Level, gridSigma = sigma): Row["m"] {
  switch (prediction) {
    case "epsilon":
      return { x: 1 / alpha, out: -sigma / alpha };
    case "v_prediction":
      return { x: alpha, out: -sigma };
    case "sample":
      return { x: 0, out: 1 };
    case "flow_prediction":
      return { x: 1, out: -gridSigma };
    default:
      throw new Error(`internal: prediction ${String(prediction satisfies never)}`);
  }
}

/** The predicted noise as x · x_k + out · out_k: (x − alpha · sample) / sigma, or for flow predictions over `gridSigma`. */
export function noiseOf(prediction: PredictionType, { alpha, sigma }: Level, gridSigma = sigma): Row["m"] {
  switch (prediction) {
    case "epsilon":
      return { x: 0, out: 1 };
    case "v_prediction":
      return { x: sigma, out: alpha };
    case "sample":
      return { x: 1 / sigma, out: -alpha / sigma };
    case "flow_prediction":
      return { x: (1 - alpha) / gridSigma, out: alpha };
    default:
      throw new Error(`internal: prediction ${String(prediction satisfies never)}`);
  }
}
