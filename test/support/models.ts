/** Small models to test with. */
import type { Model } from "../../ir/graph.js";

/** A model around what matters of a graph. */
export function modelOf(graph: Partial<Model["graph"]>): Model {
  return {
    graph: { name: "g", inputs: [], outputs: [], nodes: [], marks: [], ...graph },
    opsets: new Map([["", 20]]),
    irVersion: 10,
    metadata: new Map(),
  };
}
