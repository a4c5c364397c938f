/** Stable Diffusion 3 and 3.5 (arXiv 2403.03206), as diffusers' `pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py` runs them. */
import { z } from "zod";
import type { Pipeline } from "../pipeline.js";

const config = z.object({ transformer: z.object({ patch_size: z.int().min(1).default(2) }) });

export default {
  name: "stable-diffusion-3",
  pipelines: ["StableDiffusion3Pipeline"],
  transformers: ["SD3Transformer2DModel"],
  config,
  recipe({ transformer }) {
    return {
      steps: 28,
      sampling: { mu: { rule: "linear", axes: [2, 3], patch: transformer.patch_size } },
      guidance: { form: "batched", scale: 7, order: ["uncond", "cond"] },
    };
  },
} satisfies Pipeline<typeof config>;
