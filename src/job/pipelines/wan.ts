/** Wan (arXiv 2503.20314), as diffusers' `pipelines/wan/pipeline_wan.py` runs it. */
import { z } from "zod";
import type { Pipeline } from "../pipeline.js";

const config = z.object({ index: z.object({ boundary_ratio: z.number().nullish() }) });

export default {
  name: "wan",
  pipelines: ["WanPipeline"],
  transformers: ["WanTransformer3DModel"],
  config,
  recipe({ index }) {
    const facts = { steps: 50, guidance: { form: "two-calls", scale: 5 } } as const;
    const { boundary_ratio: boundary } = index;
    if (typeof boundary !== "number") return facts;
    return {
      reason: "it switches between two networks on the way",
      instead: `Compile each network for its part of the run, with a scheduler that has no memory (FlowMatchEulerDiscreteScheduler with the "shift" of Wan, in euler.json). \`smoothcc sampler euler.json --steps 50 --json\` prints its table: keep the rows with a timestep of at least ${1000 * boundary} in a file, which is the "scheduler" of 'transformer'; 'transformer_2' takes euler.json and, as "start", the number of those rows, and is run from the first one's latent (run --noise). Write a recipe for each, to be given with --recipe, such as`,
      nearest: { ...facts, scheduler: "euler.json" },
    };
  },
} satisfies Pipeline<typeof config>;
