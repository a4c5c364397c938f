/** Qwen-Image (arXiv 2508.02324), as diffusers' `pipelines/qwenimage/pipeline_qwenimage.py` runs it with a negative prompt. */
import { z } from "zod";
import type { Pipeline } from "../pipeline.js";

const config = z.object({ transformer: z.object({ guidance_embeds: z.boolean().default(false) }) });

export default {
  name: "qwenimage",
  pipelines: ["QwenImagePipeline"],
  transformers: ["QwenImageTransformer2DModel"],
  config,
  recipe({ transformer }) {
    if (transformer.guidance_embeds) return "its guidance scale has no default";
    return {
      steps: 50,
      time: { scale: 1 / 1000 },
      sampling: { sigmas: "linear", mu: { rule: "linear", axes: [1] } },
      prediction: { channelAxis: 2 },
      guidance: { form: "two-calls", scale: 4, rescale: { form: "norm" } },
    };
  },
} satisfies Pipeline<typeof config>;
