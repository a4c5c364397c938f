/** HunyuanDiT (arXiv 2405.08748), as diffusers' `pipelines/hunyuandit/pipeline_hunyuandit.py` runs it. */
import { z } from "zod";
import { blockKeys, type Pipeline, pixelsOf } from "../pipeline.js";

const config = z.object({
  transformer: z.object({
    in_channels: z.int().min(1),
    sample_size: z.int().min(1).default(128),
    use_style_cond_and_image_meta_size: z.boolean().default(true),
    patch_size: z.int().min(1).default(2),
  }),
  vae: z.object(blockKeys),
});

export default {
  name: "hunyuandit",
  pipelines: ["HunyuanDiTPipeline"],
  transformers: ["HunyuanDiT2DModel"],
  config,
  grid: ({ transformer, vae }) => ({ pixels: pixelsOf(vae), patch: transformer.patch_size }),
  recipe({ transformer, vae }, grid = [transformer.sample_size, transformer.sample_size]) {
    return {
      steps: 50,
      prediction: { channels: [0, transformer.in_channels] },
      guidance: { form: "batched", scale: 5, order: ["uncond", "cond"] },
      // Sizes of the original (by default 1024) and of the target, and where it was cropped.
      inputs: transformer.use_style_cond_and_image_meta_size
        ? { image_meta_size: { fix: [1024, 1024, ...grid.map((size) => size * pixelsOf(vae)), 0, 0] }, style: { fix: 0 } }
        : {},
    };
  },
} satisfies Pipeline<typeof config>;
