/** PixArt-α and Σ (arXiv 2310.00426, 2403.04692), as diffusers' `pipelines/pixart_alpha/` runs them. */
import { z } from "zod";
import { decoded, masked, scalingKeys, unscaled } from "../glue.js";
import { blockKeys, channelKeys, declaredShapes, type Pipeline, pixelsOf, predictionOf } from "../pipeline.js";

const config = z.object({
  index: z.object({ _class_name: z.string().default("") }),
  transformer: z.object({
    ...channelKeys,
    sample_size: z.int().min(1).default(128),
    patch_size: z.int().min(1).default(2),
    use_additional_conditions: z.boolean().nullish(),
  }),
  vae: z.object({ ...scalingKeys, ...blockKeys }),
  shapes: declaredShapes,
});

/** The tokens that the pipelines give to T5. */
const TOKENS = { alpha: 120, sigma: 300 };

export default {
  name: "pixart-alpha",
  pipelines: ["PixArtAlphaPipeline", "PixArtSigmaPipeline"],
  transformers: ["PixArtTransformer2DModel"],
  config,
  grid: ({ transformer, vae }) => ({ pixels: pixelsOf(vae), patch: transformer.patch_size }),
  recipe({ index, transformer, vae, shapes }, grid) {
    const { sample_size: size, use_additional_conditions: told } = transformer;
    const [height = size, width = size] = grid ?? [];
    const sides = [height, width].map((side) => side * pixelsOf(vae));
    const tokens = shapes["transformer/encoder_hidden_states"]?.[1] ?? (index._class_name.includes("Alpha") ? TOKENS.alpha : TOKENS.sigma);
    return {
      steps: 20,
      prediction: predictionOf(transformer),
      guidance: {
        form: "batched",
        scale: 4.5,
        order: ["uncond", "cond"],
        uncond: { input_ids: { input: true }, attention_mask: { input: true } },
      },
      inputs:
        (told ?? size === 128)
          ? { resolution: { fix: height === width ? height * pixelsOf(vae) : sides }, aspect_ratio: { fix: height / width } }
          : {},
      before: [
        { model: "text_encoder/model.onnx", outputs: { last_hidden_state: "encoder_hidden_states" }, dims: { sequence_length: tokens } },
        masked(tokens),
      ],
      after: [unscaled(vae), decoded("unscaled_latent", "image")],
    };
  },
} satisfies Pipeline<typeof config>;
