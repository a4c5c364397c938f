/** CogVideoX (arXiv 2408.06072), as diffusers' `pipelines/cogvideo/pipeline_cogvideox.py` runs it. */
import { z } from "zod";
import { channelKeys, type Pipeline, predictionOf } from "../pipeline.js";

const config = z.object({ transformer: z.object(channelKeys) });

export default {
  name: "cogvideo",
  pipelines: ["CogVideoXPipeline"],
  transformers: ["CogVideoXTransformer3DModel"],
  config,
  recipe({ transformer }) {
    return {
      steps: 50,
      prediction: predictionOf(transformer, 2),
      guidance: { form: "batched", scale: 6, order: ["uncond", "cond"] },
    };
  },
} satisfies Pipeline<typeof config>;
