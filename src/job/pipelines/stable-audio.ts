/** Stable Audio Open (arXiv 2407.14358), as diffusers' `pipelines/stable_audio/pipeline_stable_audio.py` runs it. */
import { z } from "zod";
import type { Pipeline } from "../pipeline.js";

const config = z.object({});

export default {
  name: "stable-audio",
  pipelines: ["StableAudioPipeline"],
  transformers: ["StableAudioDiTModel"],
  config,
  recipe() {
    return {
      steps: 100,
      // Without a negative prompt the text is zero; the duration is the same in both halves.
      guidance: { form: "batched", scale: 7, order: ["uncond", "cond"], uncond: { encoder_hidden_states: 0 } },
    };
  },
} satisfies Pipeline<typeof config>;
