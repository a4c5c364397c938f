/** Recipes of guided runs on a tiny step. */
import type { TinyStep } from "./tiny-step.js";

export type Facts = Readonly<Record<string, unknown>>;

export const DDIM = { _class_name: "DDIMScheduler", clip_sample: false, num_train_timesteps: 100 };

/** Two rows of a solver of second order, whose sums read an output more than once, and learn their noise. */
export const LEARNED = {
  ...{ name: "learned", prediction: "epsilon", initialScale: 1 },
  rows: [90, 60, 30].map((timestep, k) => ({
    ...{ timestep, inputScale: 1, m: { x: 1.1, out: -0.4, clip: 0.8 } },
    next: {
      ...{ x: [{ step: k, weight: 0.4 }], m: [{ step: k, weight: 0.6 }], out: [{ step: k, weight: 0.1 }], noise: k < 2 ? 1 : 0 },
      ...(k < 2 ? { learned: { min: -3, max: -1 } } : {}),
    },
  })),
};

export interface GuidedCase {
  readonly about: string;
  readonly guidance: Facts;
  readonly recipe?: Facts;
  readonly step?: TinyStep;
  /** What is replaced in the text of the step. */
  readonly text?: (step: string) => string;
}
