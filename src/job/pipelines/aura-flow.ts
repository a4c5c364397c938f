/** AuraFlow, as diffusers' `pipelines/aura_flow/pipeline_aura_flow.py` runs it. */
import { z } from "zod";
import type { Pipeline } from "../pipeline.js";

const config = z.object({});

export default {
  name: "aura-flow",
  pipelines: ["AuraFlowPipeline"],
  transformers: ["AuraFlowTransformer2DModel"],
  config,
  recipe() {
    return { steps: 50, time: { scale: 1 / 1000 }, guidance: { form: "batched", scale: 3.5, order: ["uncond", "cond"] } };
  },
} satisfies Pipeline<typeof config>;
