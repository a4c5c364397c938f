/** CogVideoX (arXiv 2408.06072), as diffusers' `pipelines/cogvideo/pipeline_cogvideox.py` runs it. */
import { z } from "zod";
import { blockKeys, channelKeys, type Pipeline, pixelsOf, predictionOf } from "../pipeline.js";

const config = z.object({ transformer: z.object({ ...channelKeys, patch_size: z.int().min(1).default(2) }), vae: z.object(blockKeys) });

export default {
  name: "cogvideo",
  pipelines: ["CogVideoXPipeline"],
  transformers: ["CogVideoXTransformer3DModel"],
  config,
  grid: ({ transformer, vae }) => ({ pixels: pixelsOf(vae), patch: transformer.patch_size }),
  recipe({ transformer }) {
    return {
      steps: 50,
      prediction: predictionOf(transformer, 2),
      guidance: { form: "batched", scale: 6, order: ["uncond", "cond"] },
    };
  },
} satisfies Pipeline<typeof config>;
