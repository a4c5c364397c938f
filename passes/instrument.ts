/** Turns every mark into an output of the graph under the name of its site, so that a run shows the branches' values. */
import type { Pass, Questions } from "./pass.js";

export default {
  name: "instrument",
  summary: "make every marked value an output",
  preserves: "bits",
  run(model) {
    const { graph } = model;
    if (graph.marks.length === 0) return model;
    const probes = graph.marks.map(({ site, value }) => ({ name: site, value }));
    return { ...model, graph: { ...graph, outputs: [...graph.outputs, ...probes] } };
  },
} satisfies Pass<Pick<Questions, "signal">>;
