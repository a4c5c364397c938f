/** LTX-Video (arXiv 2501.00103), as diffusers' `pipelines/ltx/pipeline_ltx.py` runs it. */
import { z } from "zod";
import { decoded, denormalised, masked, unpacked } from "../glue.js";
import { declaredShapes, gridOf, type Pipeline } from "../pipeline.js";

const numbers = z.array(z.number()).default([]);

const config = z.object({
  transformer: z.object({ patch_size: z.int().min(1).default(1), patch_size_t: z.int().min(1).default(1) }),
  /** Mean and deviation of latents are weights of the VAE; optimum-intel writes them into its configuration. */
  vae: z.object({
    latents_mean_data: numbers,
    latents_std_data: numbers,
    scaling_factor: z.number().default(1),
    timestep_conditioning: z.boolean().default(false),
  }),
  shapes: declaredShapes,
});

/** The tokens that the pipeline gives to T5. */
const TOKENS = 128;

export default {
  name: "ltx",
  pipelines: ["LTXPipeline"],
  transformers: ["LTXVideoTransformer3DModel"],
  config,
  recipe({ transformer, vae, shapes }) {
    const { latents_mean_data: mean, latents_std_data: std, scaling_factor: scale } = vae;
    const { patch_size: patch, patch_size_t: frames } = transformer;
    const tokens = shapes["transformer/encoder_hidden_states"]?.[1] ?? TOKENS;
    // Frames, height and width are constants inside the network: only the decoder's file says them.
    const grid = gridOf(shapes);
    // A decoder that is told a time takes noise as well.
    const canDecode = grid && mean.length > 0 && std.length > 0 && !vae.timestep_conditioning;
    return {
      steps: 50,
      sampling: { sigmas: "linear", mu: { rule: "linear", axes: [1] } },
      prediction: { channelAxis: 2 },
      guidance: {
        form: "batched",
        scale: 3,
        order: ["uncond", "cond"],
        uncond: { input_ids: { input: true }, attention_mask: { input: true } },
      },
      before: [
        { model: "text_encoder/model.onnx", outputs: { last_hidden_state: "encoder_hidden_states" }, dims: { sequence_length: tokens } },
        masked(tokens),
      ],
      after: canDecode
        ? [
            unpacked(grid, [frames, patch, patch]),
            denormalised(
              mean,
              std.map((deviation) => deviation / scale),
              "unpacked_latent",
            ),
            decoded("unscaled_latent", "video"),
          ]
        : [],
    };
  },
} satisfies Pipeline<typeof config>;
