/** Drops what no output needs. */
import { withGraph } from "../ir/graph.js";
import { sweep } from "../ir/rewrite.js";
import type { Pass } from "./pass.js";

export default {
  name: "dce",
  summary: "drop nodes that no output needs",
  preserves: "bits",
  isOptional: true,
  run: (model) => withGraph(model, sweep(model.graph)),
} satisfies Pass;
