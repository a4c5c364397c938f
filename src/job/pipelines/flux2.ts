/** FLUX.2 (dev, klein), as diffusers' `pipelines/flux2/` runs it. */
import { z } from "zod";
import { blockKeys, type Pipeline, pixelsOf } from "../pipeline.js";

const config = z.object({
  index: z.object({ _class_name: z.string().optional(), is_distilled: z.boolean().default(false) }),
  transformer: z.object({ guidance_embeds: z.boolean().default(true) }),
  vae: z.object(blockKeys),
});

/** The side of the square of latent elements that is one token. */
const PATCH = 2;

export default {
  name: "flux2",
  pipelines: ["Flux2Pipeline", "Flux2KleinPipeline"],
  transformers: ["Flux2Transformer2DModel"],
  config,
  grid: ({ vae }) => ({ pixels: pixelsOf(vae), patch: PATCH, isPacked: true }),
  recipe({ index, transformer }, grid) {
    return {
      steps: 50,
      time: { scale: 1 / 1000 },
      sampling: { sigmas: "linear", mu: { rule: "flux2", axes: [1] } },
      prediction: { channelAxis: 2 },
      guidance: transformer.guidance_embeds
        ? { form: "embedded", scale: 4, input: "guidance" }
        : { form: index.is_distilled ? "none" : "two-calls", scale: 4 },
      // Columns: (time, row, column, place in the text).
      inputs: {
        img_ids: { fix: { grid: [1, ...(grid?.map((size) => size / PATCH) ?? [null, null]), 1] } },
        txt_ids: { fix: { grid: [1, 1, 1, null] } },
      },
    };
  },
} satisfies Pipeline<typeof config>;
