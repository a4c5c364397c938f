/** Qwen-Image (arXiv 2508.02324), as diffusers' `pipelines/qwenimage/pipeline_qwenimage.py` runs it with a negative prompt. */
import { z } from "zod";
import type { Pipeline, PipelineFacts } from "../pipeline.js";

const config = z.object({ transformer: z.object({ guidance_embeds: z.boolean().default(false) }) });

export default {
  name: "qwenimage",
  pipelines: ["QwenImagePipeline"],
  transformers: ["QwenImageTransformer2DModel"],
  config,
  recipe({ transformer }) {
    const facts = {
      steps: 50,
      time: { scale: 1 / 1000 },
      sampling: { sigmas: "linear", mu: { rule: "linear", axes: [1] } },
      prediction: { channelAxis: 2 },
    } satisfies PipelineFacts;
    if (!transformer.guidance_embeds) return { ...facts, guidance: { form: "two-calls", scale: 4, rescale: { form: "norm" } } };
    return {
      reason: "its guidance scale has no default",
      instead: 'Write recipe.json into the folder, with your scale in place of 1 as "guidance.scale"',
      nearest: { ...facts, guidance: { form: "embedded", scale: 1, input: "guidance" } },
    };
  },
} satisfies Pipeline<typeof config>;
