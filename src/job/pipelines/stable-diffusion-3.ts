/** Stable Diffusion 3 and 3.5 (arXiv 2403.03206), as diffusers' `pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py` runs them. */
import { z } from "zod";
import { decoded, encodedOriginal, encodingKeys, glue, latentMask, unscaled } from "../glue.js";
import { type Pipeline, pixelsOf } from "../pipeline.js";

const clip = z.object({ num_hidden_layers: z.int().min(1).default(12), hidden_size: z.int().min(1).default(768) });

const config = z.object({
  transformer: z.object({
    sample_size: z.int().min(1).default(128),
    patch_size: z.int().min(1).default(2),
    joint_attention_dim: z.int().min(1).default(4096),
  }),
  text_encoder: clip,
  text_encoder_2: clip,
  vae: z.object(encodingKeys),
});

/** The tokens that the pipeline gives to both CLIPs and to T5. */
const TOKENS = { clip: 77, t5: 256 };

export default {
  name: "stable-diffusion-3",
  pipelines: ["StableDiffusion3Pipeline"],
  transformers: ["SD3Transformer2DModel"],
  config,
  grid: ({ transformer, vae }) => ({ pixels: pixelsOf(vae), patch: transformer.patch_size }),
  recipe({ transformer, text_encoder: first, text_encoder_2: second, vae }) {
    const missing = transformer.joint_attention_dim - first.hidden_size - second.hidden_size;
    /** CLIP's hidden states before its last layer. */
    const states = ({ num_hidden_layers: layers }: z.output<typeof clip>): string => `hidden_states.${layers - 1}`;
    return {
      steps: 28,
      sampling: { mu: { rule: "linear", axes: [2, 3], patch: transformer.patch_size } },
      guidance: {
        form: "batched",
        scale: 7,
        order: ["uncond", "cond"],
        uncond: { input_ids: { input: true }, input_ids_2: { input: true }, input_ids_3: { input: true } },
      },
      before: [
        {
          model: "text_encoder/model.onnx",
          outputs: { [states(first)]: "clip_states", text_embeds: "clip_pooled" },
          dims: { sequence_length: TOKENS.clip },
        },
        {
          model: "text_encoder_2/model.onnx",
          inputs: { input_ids: "input_ids_2" },
          outputs: { [states(second)]: "clip_states_2", text_embeds: "clip_pooled_2" },
          dims: { sequence_length: TOKENS.clip },
        },
        {
          model: "text_encoder_3/model.onnx",
          inputs: { input_ids: "input_ids_3" },
          outputs: { last_hidden_state: "t5_states" },
          dims: { sequence_length: TOKENS.t5 },
        },
        glue(
          "prompt",
          "float clip_states, float clip_states_2, float t5_states, float clip_pooled, float clip_pooled_2 => float encoder_hidden_states, float pooled_projections",
          `states = Concat<axis = -1>(clip_states, clip_states_2)
           padded = Pad(states, pads)
           encoder_hidden_states = Concat<axis = 1>(padded, t5_states)
           pooled_projections = Concat<axis = -1>(clip_pooled, clip_pooled_2)`,
          `int64[6] pads = {0, 0, 0, 0, 0, ${missing}}`,
        ),
      ],
      // What optimum leaves open.
      dims: { height: transformer.sample_size, width: transformer.sample_size },
      original: encodedOriginal(vae),
      mask: [latentMask(vae)],
      after: [unscaled(vae), decoded("unscaled_latent", "image")],
    };
  },
} satisfies Pipeline<typeof config>;
