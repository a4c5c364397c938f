/** How steps chain: a sampler as a table of numbers, and the guidance that combines the model's outputs. */

/** One summand of a weighted sum over steps: `weight` times the value of step `step` (0 = first executed). */
export interface Term {
  readonly step: number;
  readonly weight: number;
}

/** One model evaluation. */
export interface Row {
  /** What the model is told as time. */
  readonly timestep: number;
  /** The model sees `inputScale` · x_k. */
  readonly inputScale: number;
  /** The history value m_k = x · x_k + out · out_k, where out_k is the model's output after guidance. */
  readonly m: { readonly x: number; readonly out: number };
  /** x_{k+1} = Σ weight · x_step + Σ weight · m_step + noise · z_k, with z_k a fresh unit normal. */
  readonly next: { readonly x: readonly Term[]; readonly m: readonly Term[]; readonly noise: number };
}

/** What the model predicts; a label for people, as the rows already turn it into the next latent. */
export type Prediction = "epsilon" | "v_prediction" | "sample" | "flow";

/** A sampler, whole: x_0 = `initialScale` · unit normal noise, then one row per model evaluation. */
export interface SamplerTable {
  readonly name: string;
  readonly prediction: Prediction;
  readonly initialScale: number;
  readonly rows: readonly Row[];
}

/** The settings of one sampling run, beside the scheduler's own configuration. */
export interface SamplerOptions {
  readonly steps: number;
  readonly sigmas?: readonly number[] | undefined;
  readonly timesteps?: readonly number[] | undefined;
  readonly mu?: number | undefined;
  readonly eta?: number | undefined;
}
