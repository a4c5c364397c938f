/** Classifier-free guidance: how the conditional and the unconditional output of the network are combined. */
import type { Half } from "../ir/dit.js";

/**
 * How the network is called for the two halves. `batched`: both in one call, along axis 0; `two-calls`: one call each; `embedded`: one
 * call, with the scale as an input of the model.
 */
export const GUIDANCE_FORMS = ["none", "batched", "two-calls", "embedded"] as const;

/**
 * The parameters of guided = uncond + scale · (cond − uncond) (arXiv 2207.12598, eq.
 * 6), where cond and uncond are outputs of the network.
 */
export interface Guidance {
  readonly form: (typeof GUIDANCE_FORMS)[number];
  /** One scale for all rows of the sampler's table, or one per row. */
  readonly scale: number | readonly number[];
  /** Rows [from, to) that are guided; in all others the scale is 1 (arXiv 2404.07724). */
  readonly interval?: readonly [from: number, to: number] | undefined;
  /** Which half of a batched call comes first. */
  readonly order: readonly ["cond", "uncond"] | readonly ["uncond", "cond"];
  /**
   * Channels [from, to) of the prediction that are guided;
   * the others are those of cond (`forward_with_cfg` of facebookresearch/DiT, models.py).
   */
  readonly channels?: readonly [from: number, to: number] | undefined;
  readonly rescale?: Rescale | undefined;
  /** Under `embedded`, the input that takes the scale. */
  readonly input?: string | undefined;
  /** Whether the scale is an input of the run (`RunPorts.scale`) at the guided rows. `scale`, a single number, is its default then. */
  readonly atRunTime?: boolean | undefined;
}

/** The measure of size by which a guided prediction is rescaled. */
export const RESCALE_FORMS = ["std", "norm"] as const;

/**
 * Rescales the guided prediction towards the size of cond: guided · (1 − strength + strength · size(cond) / size(guided)).
 * With `std`, size is the standard deviation of a latent (arXiv 2305.08891, §3.4; `rescale_noise_cfg` in diffusers);
 * with `norm`, the L2 norm over the last axis (diffusers' pipelines of Lumina 2 and Qwen-Image, at strength 1).
 */
export interface Rescale {
  readonly form: (typeof RESCALE_FORMS)[number];
  readonly strength: number;
}

/** The default. */
export const NO_GUIDANCE = { form: "none", scale: 1, order: ["cond", "uncond"] } as const satisfies Guidance;

/** The scale at a row of the sampler's table, and whether it is only the default of the run's input. */
export function scaleAt(
  { scale, interval, atRunTime = false }: Guidance,
  row: number,
): { readonly scale: number; readonly atRunTime: boolean } {
  if (interval && (row < interval[0] || row >= interval[1])) return { scale: 1, atRunTime: false };
  return { scale: typeof scale === "number" ? scale : (scale[row] ?? 1), atRunTime };
}

/** Whether some row has scale 1 in every run, so that the unconditional half has no weight. */
export function hasUnguidedRows({ scale, interval, atRunTime = false }: Guidance): boolean {
  return interval !== undefined || (!atRunTime && (typeof scale === "number" ? scale === 1 : scale.includes(1)));
}

/** The halves that each call of the network sees in a guided row, in the order of the call's rows. */
export function guidedHalves({ form, order }: Pick<Guidance, "form" | "order">): readonly (readonly Half[])[] {
  if (form === "two-calls") return [["cond"], ["uncond"]];
  return [form === "batched" ? order : ["cond"]];
}
