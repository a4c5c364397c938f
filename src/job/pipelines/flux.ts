/** FLUX.1 (dev, schnell), as diffusers' `pipelines/flux/pipeline_flux.py` runs it. */
import { z } from "zod";
import { decoded, encodedOriginal, encodingKeys, latentMask, packed, spread, unpacked, unscaled } from "../glue.js";
import { declaredShapes, gridOf, type Pipeline, pixelsOf } from "../pipeline.js";

const config = z.object({
  transformer: z.object({ guidance_embeds: z.boolean().default(false) }),
  vae: z.object(encodingKeys),
  shapes: declaredShapes,
});

/** The tokens that the pipeline gives to CLIP and to T5. */
const TOKENS = { clip: 77, t5: 512 };

/** An image of 1024 by 1024 pixels. */
const IMAGE_TOKENS = 64 * 64;

/** The side of the square of latent elements that is one token. */
const PATCH = 2;

export default {
  name: "flux",
  pipelines: ["FluxPipeline"],
  transformers: ["FluxTransformer2DModel"],
  config,
  grid: ({ vae }) => ({ pixels: pixelsOf(vae), patch: PATCH, isPacked: true }),
  recipe({ transformer, vae, shapes }, grid = gridOf(shapes)) {
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
      // What optimum leaves open.
      dims: { packed_height_width: grid ? grid.reduce((tokens, size) => tokens * (size / PATCH), 1) : IMAGE_TOKENS },
      original: [...encodedOriginal(vae, "grid_latent"), packed("grid_latent", PATCH, "image_latent")],
      mask: [latentMask(vae, "grid_mask"), spread("grid_mask", vae, "wide_mask"), packed("wide_mask", PATCH, "mask")],
      after: [unpacked(grid, [PATCH, PATCH]), unscaled(vae, "unpacked_latent"), decoded("unscaled_latent", "image")],
    };
  },
} satisfies Pipeline<typeof config>;
