/** AuraFlow, as diffusers' `pipelines/aura_flow/pipeline_aura_flow.py` runs it. */
import { z } from "zod";
import { decoded, scalingKeys, unpadded, unscaled } from "../glue.js";
import { blockKeys, type Pipeline, pixelsOf } from "../pipeline.js";

const config = z.object({
  transformer: z.object({ patch_size: z.int().min(1).default(2) }),
  vae: z.object({ ...scalingKeys, ...blockKeys }),
});

/** The tokens that the pipeline gives to its encoder. */
const TOKENS = 256;

export default {
  name: "aura-flow",
  pipelines: ["AuraFlowPipeline"],
  transformers: ["AuraFlowTransformer2DModel"],
  config,
  grid: ({ transformer, vae }) => ({ pixels: pixelsOf(vae), patch: transformer.patch_size }),
  recipe({ vae }) {
    return {
      steps: 50,
      time: { scale: 1 / 1000 },
      guidance: {
        form: "batched",
        scale: 3.5,
        order: ["uncond", "cond"],
        uncond: { input_ids: { input: true }, attention_mask: { input: true } },
      },
      before: [
        { model: "text_encoder/model.onnx", outputs: { last_hidden_state: "text_states" }, dims: { sequence_length: TOKENS } },
        unpadded("text_states"),
      ],
      after: [unscaled(vae), decoded("unscaled_latent", "image")],
    };
  },
} satisfies Pipeline<typeof config>;
