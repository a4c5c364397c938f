/** FLUX.1 (dev, schnell), as diffusers' `pipelines/flux/pipeline_flux.py` runs it. */
import { z } from "zod";
import { decoded, scalingKeys, unpacked, unscaled } from "../glue.js";
import type { Pipeline } from "../pipeline.js";

const config = z.object({
  transformer: z.object({ guidance_embeds: z.boolean().default(false) }),
  vae: z.object(scalingKeys),
  grid: z.tuple([z.int().min(1), z.int().min(1)]).optional(),
});

/** The tokens that the pipeline gives to CLIP and to T5. */
const TOKENS = { clip: 77, t5: 512 };

/** The side of the square of latent elements that is one token. */
const PATCH = 2;

export default {
  name: "flux",
  pipelines: ["FluxPipeline"],
  transformers: ["FluxTransformer2DModel"],
  config,
  recipe({ transformer, vae, grid }) {
    return {
      steps: 28,
      time: { scale: 1 / 1000 },
      sampling: { sigmas: "linear", mu: { rule: "linear", axes: [1] } },
      prediction: { channelAxis: 2 },
      guidance: transformer.guidance_embeds ? { form: "embedded", scale: 3.5, input: "guidance" } : { form: "none" },
      // Columns: (0, row, column). Text has no place.
      inputs: { img_ids: { fix: { grid: [1, ...(grid?.map((size) => size / PATCH) ?? [null, null])] } }, txt_ids: { fix: 0 } },
      before: [
        {
          model: "text_encoder/model.onnx",
          outputs: { pooler_output: "pooled_projections" },
          dims: { sequence_length: TOKENS.clip },
        },
        {
          model: "text_encoder_2/model.onnx",
          inputs: { input_ids: "input_ids_2" },
          outputs: { last_hidden_state: "encoder_hidden_states" },
          dims: { sequence_length: TOKENS.t5 },
        },
      ],
      after: [unpacked(grid, [PATCH, PATCH]), unscaled(vae, "unpacked_latent"), decoded("unscaled_latent", "image")],
    };
  },
} satisfies Pipeline<typeof config>;
