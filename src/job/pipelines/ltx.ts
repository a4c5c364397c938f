/** LTX-Video (arXiv 2501.00103), as diffusers' `pipelines/ltx/pipeline_ltx.py` runs it. */
import { z } from "zod";
import type { Pipeline } from "../pipeline.js";

const config = z.object({});

export default {
  name: "ltx",
  pipelines: ["LTXPipeline"],
  transformers: ["LTXVideoTransformer3DModel"],
  config,
  recipe() {
    return {
      steps: 50,
      sampling: { sigmas: "linear", mu: { rule: "linear", axes: [1] } },
      prediction: { channelAxis: 2 },
      guidance: { form: "batched", scale: 3, order: ["uncond", "cond"] },
    };
  },
} satisfies Pipeline<typeof config>;
