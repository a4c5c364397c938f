/** FLUX.1 (dev, schnell), as diffusers' `pipelines/flux/pipeline_flux.py` runs it. */
import { z } from "zod";
import type { Pipeline } from "../pipeline.js";

const config = z.object({ transformer: z.object({ guidance_embeds: z.boolean().default(false) }) });

export default {
  name: "flux",
  pipelines: ["FluxPipeline"],
  transformers: ["FluxTransformer2DModel"],
  config,
  recipe({ transformer }) {
    return {
      steps: 28,
      time: { scale: 1 / 1000 },
      sampling: { sigmas: "linear", mu: { rule: "linear", axes: [1] } },
      prediction: { channelAxis: 2 },
      guidance: transformer.guidance_embeds ? { form: "embedded", scale: 3.5, input: "guidance" } : { form: "none" },
      // Columns: (0, row, column). Text has no place.
      inputs: { img_ids: { fix: { grid: [1, null, null] } }, txt_ids: { fix: 0 } },
    };
  },
} satisfies Pipeline<typeof config>;
