/** Latte (arXiv 2401.03048), as diffusers' `pipelines/latte/pipeline_latte.py` runs it. */
import { z } from "zod";
import { blockKeys, channelKeys, type Pipeline, pixelsOf, predictionOf } from "../pipeline.js";

const config = z.object({ transformer: z.object({ ...channelKeys, patch_size: z.int().min(1).default(2) }), vae: z.object(blockKeys) });

export default {
  name: "latte",
  pipelines: ["LattePipeline"],
  transformers: ["LatteTransformer3DModel"],
  config,
  grid: ({ transformer, vae }) => ({ pixels: pixelsOf(vae), patch: transformer.patch_size }),
  recipe({ transformer }) {
    return {
      steps: 50,
      prediction: predictionOf(transformer),
      guidance: { form: "batched", scale: 7.5, order: ["uncond", "cond"] },
    };
  },
} satisfies Pipeline<typeof config>;
