/** Stable Audio Open (arXiv 2407.14358), as diffusers' `pipelines/stable_audio/pipeline_stable_audio.py` runs it. */
import { z } from "zod";
import { decoded, glue, unpadded } from "../glue.js";
import type { Pipeline } from "../pipeline.js";

const config = z.object({
  transformer: z.object({ sample_size: z.int().min(1).default(1024) }),
  vae: z.object({ downsampling_ratios: z.array(z.int().min(1)).default([2, 4, 4, 8, 8]), sampling_rate: z.number().default(44100) }),
});

export default {
  name: "stable-audio",
  pipelines: ["StableAudioPipeline"],
  transformers: ["StableAudioDiTModel"],
  config,
  recipe({ transformer, vae }) {
    const samples = vae.downsampling_ratios.reduce((product, ratio) => product * ratio, transformer.sample_size);
    return {
      steps: 100,
      guidance: {
        form: "batched",
        scale: 7,
        order: ["uncond", "cond"],
        // The duration is the same in both halves. Without encoders there is no negative prompt, and the text is zero.
        uncond: { input_ids: { input: true }, attention_mask: { input: true }, encoder_hidden_states: 0 },
      },
      inputs: { start_seconds: { calibrate: [0] }, end_seconds: { calibrate: [samples / vae.sampling_rate] } },
      before: [
        { model: "text_encoder/model.onnx", outputs: { last_hidden_state: "t5_states" } },
        {
          model: "projection_model/model.onnx",
          inputs: { text_hidden_states: "t5_states" },
          outputs: { out_text_hidden_states: "projected", seconds_start_hidden_states: "start", seconds_end_hidden_states: "end" },
        },
        unpadded("projected", "text"),
        glue(
          "prompt",
          "float text, float start, float end => float encoder_hidden_states, float global_hidden_states",
          "encoder_hidden_states = Concat<axis = 1>(text, start, end) global_hidden_states = Concat<axis = 2>(start, end)",
        ),
      ],
      // All of the audio: the pipeline then leaves out what is not between start and end.
      after: [decoded("latent", "audio")],
    };
  },
} satisfies Pipeline<typeof config>;
