/** ACE-Step 1.5 (turbo), as diffusers' `pipelines/ace_step/pipeline_ace_step.py` runs it. */
import { z } from "zod";
import type { Pipeline, PipelineFacts } from "../pipeline.js";

const config = z.object({
  transformer: z.object({ is_turbo: z.boolean().default(false), model_version: z.string().nullish() }),
  scheduler: z.looseObject({ shift: z.number().default(1) }),
});

/** The pipeline's own shift of its times, before the scheduler's; shifts multiply. */
const SHIFT = 3;

export default {
  name: "ace-step",
  pipelines: ["AceStepPipeline"],
  transformers: ["AceStepTransformer1DModel"],
  config,
  recipe({ transformer, scheduler }) {
    const facts = {
      scheduler: { ...scheduler, shift: SHIFT * scheduler.shift },
      steps: 8,
      timestep: ["timestep", "timestep_r"],
      sampling: { sigmas: "linear" },
      prediction: { channelAxis: 2 },
    } satisfies PipelineFacts;
    if (transformer.is_turbo || transformer.model_version === "turbo") return facts;
    return {
      reason: "its guidance remembers earlier steps (APG)",
      instead: "Plain guidance is another result, and can be compiled: write recipe.json into the folder",
      nearest: { ...facts, guidance: { form: "two-calls", scale: 7 } },
    };
  },
} satisfies Pipeline<typeof config>;
