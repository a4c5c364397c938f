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
    if (typeof index.boundary_ratio === "number") return "it switches between two networks on the way";
    return { steps: 50, guidance: { form: "two-calls", scale: 5 } };
  },
} satisfies Pipeline<typeof config>;
