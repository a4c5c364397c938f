/** Wan 2.1 and 2.2 (arXiv 2503.20314), as diffusers' `pipelines/wan/pipeline_wan.py` runs them. */
import { z } from "zod";
import { decoded, denormalised, unpadded } from "../glue.js";
import type { Pipeline, PipelineFacts } from "../pipeline.js";

const config = z.object({
  index: z.object({ boundary_ratio: z.number().nullish(), expand_timesteps: z.boolean().nullish() }),
  scheduler: z.object({ num_train_timesteps: z.number().default(1000) }),
  transformer: z.object({ patch_size: z.array(z.int().min(1)).default([1, 2, 2]) }),
  vae: z.object({
    scale_factor_spatial: z.int().min(1).default(8),
    latents_mean: z.array(z.number()).default([]),
    latents_std: z.array(z.number()).default([]),
  }),
});

export default {
  name: "wan",
  pipelines: ["WanPipeline"],
  transformers: ["WanTransformer3DModel"],
  config,
  grid: ({ transformer, vae }) => ({ pixels: vae.scale_factor_spatial, patch: Math.max(...transformer.patch_size.slice(1)) }),
  recipe({ index, scheduler, vae: { latents_mean: mean, latents_std: std } }) {
    const { boundary_ratio: boundary, expand_timesteps: isSpread } = index;
    // The second expert takes over below the boundary; its scale is the first one's, unless the call says another.
    const networks =
      typeof boundary === "number" ? [{ model: "transformer_2/model.onnx", belowTime: boundary * scheduler.num_train_timesteps }] : [];
    const facts = {
      steps: 50,
      guidance: { form: "two-calls", scale: 5, uncond: { input_ids: { input: true }, attention_mask: { input: true } } },
      networks,
      before: [{ model: "text_encoder/model.onnx", outputs: { last_hidden_state: "text_states" } }, unpadded("text_states")],
      after: [denormalised(mean, std), decoded("unscaled_latent", "video")],
    } satisfies PipelineFacts;
    if (isSpread !== true) return facts;
    return {
      reason: 'it tells its network a time for each token ("expand_timesteps"), as those of a given image are no noise',
      instead:
        "Without an image all tokens have the same time: export the network with one time for each latent, which it spreads over the tokens itself, and write recipe.json into the folder",
      nearest: facts,
    };
  },
} satisfies Pipeline<typeof config>;
