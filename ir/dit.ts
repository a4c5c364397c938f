/** What lifting found: the view of a step graph as a diffusion transformer. Plain facts; the values are in the graph's marks. */

/** What a value of a step graph depends on, as bits: the latent, the time, the conditions (all other inputs). */
export const LATENT = 1;
export const TIME = 2;
export const CONDITION = 4;

/** The network with the conditions, or with what stands for none (classifier-free guidance, arXiv 2207.12598). */
export type Half = "cond" | "uncond";

/** What is cached from step to step: the values of a branch in one call of the network, which sees this half, or this one and the other. */
export interface CacheKey {
  readonly site: string;
  readonly half: Half;
}

/** `single`: one branch that holds attention and feed-forward network. `block`: all that one or more blocks add to their stream. */
export const BRANCH_KINDS = ["attn", "cross_attn", "mlp", "single", "block"] as const;
export type BranchKind = (typeof BRANCH_KINDS)[number];

/** A cacheable site: the output of a residual branch before its gate. */
export interface Branch {
  /** Unique: `attn-3`, or `temporal_attn-3` where the model has several streams. Also the name of its mark. */
  readonly site: string;
  readonly kind: BranchKind;
  /** Index of the transformer block, from 0 in execution order. */
  readonly block: number;
  /** What the residual stream carries: `image`, `video`, `audio`, or the part of the model's tokens that it is. */
  readonly stream: string;
  /** Whether the output is multiplied by a modulation before it is added to the stream. */
  readonly gated: boolean;
  /** Length of the last axis of the output, once the types are known. */
  readonly channels?: number | undefined;
  /** Module path as the exporter wrote it, where it did. */
  readonly module?: string | undefined;
}

/** An input that was taken for one thing where others would do as well. */
export interface PortGuess {
  readonly role: string;
  /** The key of the recipe that names it. */
  readonly option: string;
  /** The first was taken. */
  readonly candidates: readonly string[];
}

/** Names are those of the graph's inputs and outputs. */
export interface DitView {
  readonly recogniser: string;
  readonly latent: string;
  /** Absent once the steps are unrolled: the times are constants then. */
  readonly timestep?: string | undefined;
  /** The graph inputs that are neither latent nor time. */
  readonly conditions: readonly string[];
  readonly prediction: string;
  /** In execution order. */
  readonly branches: readonly Branch[];
  /** Branches that do not depend on the latent: they leave the steps, and are no sites. */
  readonly constant: readonly Branch[];
  /** What the structure of the graph leaves open. */
  readonly guesses: readonly PortGuess[];
  /** Sentences for the user: what was seen and not taken for a branch, and why. */
  readonly warnings: readonly string[];
}
