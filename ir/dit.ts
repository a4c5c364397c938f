/**
 * The view of a step graph as a diffusion transformer, which lifting finds.
 * It holds names and numbers; the graph's marks hold the values.
 */

/** What a value of a step graph depends on, as bits: the latent, the time, the conditions (all other inputs). */
export const LATENT = 1;
export const TIME = 2;
export const CONDITION = 4;

/** The half of classifier-free guidance (arXiv 2207.12598) that a call of the network computes: with the conditions or without. */
export type Half = "cond" | "uncond";

/**
 * The key of a cache, which holds the values of a branch in one call of the network.
 * A call that sees both halves has the half `cond` in its key.
 */
export interface CacheKey {
  readonly site: string;
  readonly half: Half;
}

/** `single`: attention and feed-forward network in one branch. `block`: everything that one or more blocks add to their stream. */
export const BRANCH_KINDS = ["attn", "cross_attn", "mlp", "single", "block"] as const;
export type BranchKind = (typeof BRANCH_KINDS)[number];

/** A cacheable site: the output of a residual branch before its gate. */
export interface Branch {
  /** Unique: `attn-3`, or `temporal_attn-3` where the model has several streams. Also the name of its mark. */
  readonly site: string;
  readonly kind: BranchKind;
  /** Index of the transformer block, from 0 in execution order. */
  readonly block: number;
  /** The name of the residual stream, after the tokens that it carries: `image`, `video`, `audio`, `text`, … */
  readonly stream: string;
  /** Whether the output is multiplied by a modulation before it is added to the stream. */
  readonly gated: boolean;
  /** Length of the last axis of the output, once the types are known. */
  readonly channels?: number | undefined;
  /** Module path, if the exporter wrote one. */
  readonly module?: string | undefined;
}

/** A choice between several inputs that fit a role equally well. */
export interface PortGuess {
  readonly role: string;
  /** The key of the recipe that names it. */
  readonly option: string;
  /** The first of them was chosen. */
  readonly candidates: readonly string[];
}

/** Names are those of the graph's inputs and outputs. */
export interface DitView {
  readonly recogniser: string;
  readonly latent: string;
  /** Absent once the steps are unrolled, as the times are constants then; and of a step that is not told the time. */
  readonly timestep?: string | undefined;
  /** The graph inputs that are neither latent nor time. */
  readonly conditions: readonly string[];
  readonly prediction: string;
  /** In execution order. */
  readonly branches: readonly Branch[];
  /** Branches that do not depend on the latent. They are hoisted out of the steps, so they are no cacheable sites. */
  readonly constant: readonly Branch[];
  /** What the structure of the graph leaves open. */
  readonly guesses: readonly PortGuess[];
  /** Sentences for the user: what looked like a branch but is not treated as one, and why. */
  readonly warnings: readonly string[];
}
