/** The interface of a recogniser: a file of `lift/` for one topology of diffusion transformers. */
import type { Dependence } from "./ops.js";
import type { Graph, Value } from "./graph.js";
import { hasMethods, type Named } from "./registry.js";
import type { SharedBranch } from "./residual/cut.js";
import type { ResidualBranch, ResidualStreams, Tokens } from "./residual/index.js";

/** What every recogniser starts from. */
export interface StepFacts {
  /** Without the nodes that the prediction does not need. */
  readonly graph: Graph;
  readonly latent: Value;
  /** Bits LATENT, TIME, CONDITION, and above these a bit for each condition. */
  readonly dependsOn: Dependence;
  /** The residual streams, and what is added to them. */
  readonly streams: ResidualStreams;
  /** What tokens are called. */
  readonly nameOf: (tokens: Tokens) => string;
  /** The name of the stream that a branch is added to. */
  readonly streamOf: (branch: ResidualBranch) => string;
}

/** One topology of diffusion transformers. */
export interface Recogniser extends Named {
  /** The branches in execution order, with the streams and blocks that they belong to; undefined if the network has another topology. */
  recognise(facts: StepFacts): readonly SharedBranch[] | undefined;
}

export function isRecogniser(candidate: unknown): candidate is Recogniser {
  return hasMethods(candidate, "recognise");
}
