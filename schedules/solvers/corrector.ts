/** Predictor–corrector solvers as rows: the correction of a latent is folded into the next step. */
import { sumOfTerms, type Term } from "../sampler.js";

/** A step from the (corrected) latent of one evaluation to that of the next: weights of the latent and of kept predictions, and noise. */
export interface LinearStep {
  readonly x: number;
  readonly m: readonly Term[];
  readonly noise: number;
}

/**
 * The next latent as a function of the predicted one. Predictor and corrector start from the same latent with the same weight and the
 * same noise, so corrected = predicted + Σ (corrector − predictor) · m, and the step continues from the corrected latent.
 */
export function fromPredicted(
  step: LinearStep,
  corrected: { readonly predictor: LinearStep; readonly corrector: LinearStep } | undefined,
): LinearStep {
  if (!corrected) return step;
  const m = sumOfTerms([
    { weight: 1, terms: step.m },
    { weight: step.x, terms: corrected.corrector.m },
    { weight: -step.x, terms: corrected.predictor.m },
  ]);
  return { ...step, m };
}
