/** Wan (arXiv 2503.20314), as diffusers' `pipelines/wan/pipeline_wan.py` runs it. */
import { z } from "zod";
import { decoded, denormalised, unpadded } from "../glue.js";
import type { Pipeline, PipelineFacts } from "../pipeline.js";

const config = z.object({
  index: z.object({ boundary_ratio: z.number().nullish() }),
  vae: z.object({ latents_mean: z.array(z.number()).default([]), latents_std: z.array(z.number()).default([]) }),
});

export default {
  name: "wan",
  pipelines: ["WanPipeline"],
  transformers: ["WanTransformer3DModel"],
  config,
  recipe({ index, vae: { latents_mean: mean, latents_std: std } }) {
    const facts = {
      steps: 50,
      guidance: { form: "two-calls", scale: 5, uncond: { input_ids: { input: true }, attention_mask: { input: true } } },
      before: [{ model: "text_encoder/model.onnx", outputs: { last_hidden_state: "text_states" } }, unpadded("text_states")],
      after: [denormalised(mean, std), decoded("unscaled_latent", "video")],
    } satisfies PipelineFacts;
    const { boundary_ratio: boundary } = index;
    if (typeof boundary !== "number") return facts;
    return {
      reason: "it switches between two networks on the way",
      instead: `Compile each network for its part of the run, with a scheduler that has no memory (FlowMatchEulerDiscreteScheduler with the "shift" of Wan, in euler.json). \`smoothcc sampler euler.json --steps 50 --json\` prints its table: keep the rows with a timestep of at least ${1000 * boundary} in a file, which is the "scheduler" of 'transformer'; 'transformer_2' takes euler.json and, as "start", the number of those rows, and is run from the first one's latent (run --noise). Write a recipe for each, to be given with --recipe, such as`,
      nearest: { ...facts, scheduler: "euler.json" },
    };
  },
} satisfies Pipeline<typeof config>;
