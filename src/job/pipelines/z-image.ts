/** Z-Image (arXiv 2511.22699), as diffusers' `pipelines/z_image/pipeline_z_image.py` runs it. */
import { z } from "zod";
import type { Pipeline } from "../pipeline.js";

const config = z.object({});

export default {
  name: "z-image",
  pipelines: ["ZImagePipeline"],
  transformers: ["ZImageTransformer2DModel"],
  config,
  recipe() {
    return {
      steps: 50,
      // Its time runs from noise at 0 to data at 1, and so does its velocity.
      time: { scale: -1 / 1000, offset: 1 },
      sampling: { sigmas: "linear", mu: { rule: "linear", axes: [-2, -1], patch: 2 } },
      prediction: { sign: -1 },
      // Its scale 5 is in cond + 5 · (cond − uncond); the turbo model is run with 0 there: 1 here.
      guidance: { form: "batched", scale: 6, order: ["cond", "uncond"] },
    };
  },
} satisfies Pipeline<typeof config>;
