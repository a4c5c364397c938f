/** Names of streams. */
import type { Dependence } from "../ops.js";
import { LATENT } from "../dit.js";
import { type Graph, isOp, type Value } from "../graph.js";
import type { ResidualStreams, Tokens } from "./index.js";

/** The name of a stream by its tokens: `text` for tokens of a condition, the modality for tokens of the latent. */
export function streamNames(graph: Graph, latent: Value, dependsOn: Dependence, streams: ResidualStreams): (tokens: Tokens) => string {
  const modality = modalityOf();
  return ({ sources }) => [...new Set(sources.map((source) => (source === "latent" ? modality : "text")))].join("+") || modality;

  /**
   * The modality by the rank of the latent. Pictures have rank 4, or 5 with a single frame; videos have rank 5. Rank 3 is audio if it is
   * convolved along the sequence. Otherwise it is a sequence of patches: as a rule of pictures if there is a text stream, else of videos.
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
