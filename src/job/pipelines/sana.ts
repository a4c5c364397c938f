/** Sana (arXiv 2410.10629), as diffusers' `pipelines/sana/pipeline_sana.py` runs it. */
import { z } from "zod";
import { channelKeys, type Pipeline, predictionOf } from "../pipeline.js";

const config = z.object({ transformer: z.object({ ...channelKeys, timestep_scale: z.number().default(1) }) });

export default {
  name: "sana",
  pipelines: ["SanaPipeline"],
  transformers: ["SanaTransformer2DModel"],
  config,
  recipe({ transformer }) {
    return {
      steps: 20,
      time: { scale: transformer.timestep_scale },
      prediction: predictionOf(transformer),
      guidance: { form: "batched", scale: 4.5, order: ["uncond", "cond"] },
    };
  },
} satisfies Pipeline<typeof config>;
