/** Latte (arXiv 2401.03048), as diffusers' `pipelines/latte/pipeline_latte.py` runs it. */
import { z } from "zod";
import { channelKeys, type Pipeline, predictionOf } from "../pipeline.js";

const config = z.object({ transformer: z.object(channelKeys) });

export default {
  name: "latte",
  pipelines: ["LattePipeline"],
  transformers: ["LatteTransformer3DModel"],
  config,
  recipe({ transformer }) {
    return {
      steps: 50,
      prediction: predictionOf(transformer),
      guidance: { form: "batched", scale: 7.5, order: ["uncond", "cond"] },
    };
  },
} satisfies Pipeline<typeof config>;
