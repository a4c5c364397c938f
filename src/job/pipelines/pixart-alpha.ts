/** PixArt-α and Σ (arXiv 2310.00426, 2403.04692), as diffusers' `pipelines/pixart_alpha/` runs them. */
import { z } from "zod";
import { decoded, MASK, scalingKeys, unscaled } from "../glue.js";
import { channelKeys, type Pipeline, predictionOf } from "../pipeline.js";

const config = z.object({
  transformer: z.object({ ...channelKeys, sample_size: z.int().min(1).default(128), use_additional_conditions: z.boolean().nullish() }),
  vae: z.object(scalingKeys),
});

/** The side of the square of pixels that one latent element becomes. */
const VAE_SCALE = 8;

export default {
  name: "pixart-alpha",
  pipelines: ["PixArtAlphaPipeline", "PixArtSigmaPipeline"],
  transformers: ["PixArtTransformer2DModel"],
  config,
  recipe({ transformer, vae }) {
    const { sample_size: size, use_additional_conditions: told } = transformer;
    return {
      steps: 20,
      prediction: predictionOf(transformer),
      guidance: {
        form: "batched",
        scale: 4.5,
        order: ["uncond", "cond"],
        uncond: { input_ids: { input: true }, attention_mask: { input: true } },
      },
      inputs: (told ?? size === 128) ? { resolution: { fix: size * VAE_SCALE }, aspect_ratio: { fix: 1 } } : {},
      before: [
        { model: "text_encoder/model.onnx", outputs: { last_hidden_state: "encoder_hidden_states" } },
        MASK,
      ],
      after: [unscaled(vae), decoded("unscaled_latent", "image")],
    };
  },
} satisfies Pipeline<typeof config>;
