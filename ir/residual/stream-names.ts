/** What streams are called. */
import type { Dependence } from "../ops.js";
import { LATENT } from "../dit.js";
import { type Graph, isOp, type Value } from "../graph.js";
import type { ResidualStreams, Tokens } from "./index.js";

/** What the tokens of a stream are called: `text` for those of a condition; for those of the latent, what it is a latent of. */
export function streamNames(graph: Graph, latent: Value, dependsOn: Dependence, streams: ResidualStreams): (tokens: Tokens) => string {
  const modality = modalityOf();
  return ({ sources }) => [...new Set(sources.map((source) => (source === "latent" ? modality : "text")))].join("+") || modality;

  /**
   * Pictures have rank 4, or 5 with a single frame; videos rank 5. Of rank 3 are sounds, which are convolved along the sequence,
   * and patches packed in a row: of pictures where text stands beside them, of videos where it does not, as a rule.
   */
  function modalityOf(): string {
    const shape = latent.type?.shape ?? [];
    if (shape.length === 5) return shape.slice(1, 3).includes(1) ? "image" : "video";
    if (shape.length !== 3) return "image";
    if (graph.nodes.some((node) => isOp(node, "Conv") && (dependsOn(node.inputs[0]) & LATENT) !== 0)) return "audio";
    const attendsJointly = streams.branches.some(({ tokens }) => tokens.sources.includes("condition"));
    return attendsJointly ? "image" : "video";
  }
}
