/** Conditions: the inputs of a run beside its latent and its noise, for each half of the guidance. */
import type { Half } from "../ir/dit.js";
import type { TensorData } from "../ir/tensor.js";
import type { TensorType } from "../ir/types.js";

/** An input of the network that the sampler does not set. */
export interface Condition {
  /** The type for one half, without guidance doubling. */
  readonly type: TensorType | undefined;
  /** Whether axis 0 counts latents. If so, a call of two halves sees the values of both, concatenated. */
  readonly isBatched: boolean;
  /** The source for each half; the same object if both halves see the same value. */
  readonly halves: Readonly<Record<Half, ConditionSource>>;
}

/** The source of the value that a half sees: an input of the run, or a constant. */
export type ConditionSource = (
  { readonly kind: "input"; readonly name: string } | { readonly kind: "constant"; readonly data: TensorData }
) & {
  /** For each row of the sampler's table, the index of its value along axis 0; absent if all rows see the same value. */
  readonly perStep?: readonly number[] | undefined;
};

/** A value that the run is given and that no network sees: both halves are the same. */
export interface OwnCondition extends Condition {
  readonly name: string;
}

/** The condition with its sources changed; halves that share one go on sharing it. */
export function withSources(condition: Condition, change: (source: ConditionSource) => ConditionSource): Condition {
  const { cond, uncond } = condition.halves;
  const changed = change(cond);
  return { ...condition, halves: { cond: changed, uncond: uncond === cond ? changed : change(uncond) } };
}

/** The name of the input that the unconditional half sees in place of a condition, such as a negative prompt. */
export function uncondInput(condition: string): string {
  return `${condition}_uncond`;
}
