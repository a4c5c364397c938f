/** Sana (arXiv 2410.10629), as diffusers' `pipelines/sana/pipeline_sana.py` runs it. */
import { z } from "zod";
import { decoded, glue, scalingKeys, unscaled } from "../glue.js";
import { channelKeys, declaredShapes, type Pipeline, predictionOf } from "../pipeline.js";

const config = z.object({
  transformer: z.object({
    ...channelKeys,
    sample_size: z.int().min(1).default(32),
    patch_size: z.int().min(1).default(1),
    timestep_scale: z.number().default(1),
  }),
  vae: z.object({ ...scalingKeys, encoder_block_out_channels: z.array(z.number()).min(1).default([128, 256, 512, 512, 1024, 1024]) }),
  shapes: declaredShapes,
});

/** The tokens that the pipeline gives to the network. */
const TOKENS = 300;

export default {
  name: "sana",
  pipelines: ["SanaPipeline"],
  transformers: ["SanaTransformer2DModel"],
  config,
  // Each block but the first halves the sides.
  grid: ({ transformer, vae }) => ({ pixels: 2 ** (vae.encoder_block_out_channels.length - 1), patch: transformer.patch_size }),
  recipe({ transformer, vae, shapes }) {
    const tokens = shapes["transformer/encoder_hidden_states"]?.[1] ?? TOKENS;
    return {
      steps: 20,
      time: { scale: transformer.timestep_scale },
      prediction: predictionOf(transformer),
      guidance: {
        form: "batched",
        scale: 4.5,
        order: ["uncond", "cond"],
        uncond: { input_ids: { input: true }, attention_mask: { input: true } },
      },
      before: [
        // The prompt may stand behind an instruction, and then has more tokens than the negative prompt.
        { model: "text_encoder/model.onnx", outputs: { last_hidden_state: "gemma_states" }, dims: { sequence_length: tokens } },
        glue(
          "selected",
          "float gemma_states, int64 attention_mask => float encoder_hidden_states, int64 encoder_attention_mask",
          `encoder_hidden_states = Gather<axis = 1>(gemma_states, places)
           encoder_attention_mask = Gather<axis = 1>(attention_mask, places)`,
          // The first token and the last ones.
          `int64[${tokens}] places = {${[0, ...Array.from({ length: tokens - 1 }, (_, i) => i + 1 - tokens)].join(", ")}}`,
        ),
      ],
      // What optimum leaves open.
      dims: { height: transformer.sample_size, width: transformer.sample_size },
      after: [unscaled(vae), decoded("unscaled_latent", "image")],
    };
  },
} satisfies Pipeline<typeof config>;
