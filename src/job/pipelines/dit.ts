/** DiT (arXiv 2212.09748), as diffusers' `pipelines/dit/pipeline_dit.py` runs it. */
import { z } from "zod";
import { blockKeys, channelKeys, type Pipeline, pixelsOf, predictionOf } from "../pipeline.js";

const config = z.object({
  transformer: z.object({ ...channelKeys, patch_size: z.int().min(1).default(2), num_embeds_ada_norm: z.int().min(1).default(1000) }),
  vae: z.object(blockKeys),
});

/** The number of classes that calibration uses, spread evenly over all. */
const CALIBRATION_CLASSES = 16;

export default {
  name: "dit",
  pipelines: ["DiTPipeline"],
  transformers: ["DiTTransformer2DModel"],
  config,
  grid: ({ transformer, vae }) => ({ pixels: pixelsOf(vae), patch: transformer.patch_size }),
  recipe({ transformer }) {
    const { num_embeds_ada_norm: classes } = transformer;
    const spread = Array.from({ length: CALIBRATION_CLASSES }, (_, i) => Math.floor((i * classes) / CALIBRATION_CLASSES));
    return {
      steps: 50,
      prediction: predictionOf(transformer),
      // The class after the last one means no class.
      guidance: { form: "batched", scale: 4, order: ["cond", "uncond"], uncond: { class_labels: classes } },
      inputs: { class_labels: { calibrate: spread } },
    };
  },
} satisfies Pipeline<typeof config>;
