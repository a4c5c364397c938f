/** Lumina-Image 2.0 (arXiv 2503.21758), as diffusers' `pipelines/lumina2/pipeline_lumina2.py` runs it. */
import { z } from "zod";
import type { Pipeline } from "../pipeline.js";

const config = z.object({ scheduler: z.object({ num_train_timesteps: z.int().min(1).default(1000) }) });

export default {
  name: "lumina2",
  pipelines: ["Lumina2Pipeline", "Lumina2Text2ImgPipeline"],
  transformers: ["Lumina2Transformer2DModel"],
  config,
  recipe({ scheduler }) {
    return {
      steps: 30,
      // Its time runs from noise at 0 to data at 1, and so does its velocity.
      time: { scale: -1 / scheduler.num_train_timesteps, offset: 1 },
      // Axis 1 of [N, C, H, W]: the library takes the channels for the tokens.
      sampling: { sigmas: "linear", mu: { rule: "linear", axes: [1] } },
      prediction: { sign: -1 },
      guidance: { form: "two-calls", scale: 4, rescale: { form: "norm" } },
    };
  },
} satisfies Pipeline<typeof config>;
