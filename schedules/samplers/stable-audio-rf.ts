/** Rectified-flow sampling of stable-audio-tools: `sample_rf` in `stable_audio_tools/inference/sampling.py`. */
import { z } from "zod";
import { entryAt } from "../../ir/entries.js";
import { dpmStep } from "../solvers/dpm-solver.js";
import { flowRows, renoisingStep, velocityStep } from "../solvers/flow.js";
import { levelOf } from "../solvers/levels.js";
import type { Sampler } from "../sampler.js";
import { linspace } from "../solvers/spacing.js";

/** The project has no file for the sampler: the keys are the arguments of `sample_rf`, with its defaults. */
const config = z.object({
  sampler_type: z.enum(["euler", "dpmpp", "pingpong"]).default("euler"),
  /** Taken as 1 where it is more. */
  sigma_max: z.number().positive().default(1),
});

/** Logarithms of the signal-to-noise ratio between which the times are evenly spaced. */
const FIRST_LOG_SNR = -6;
const LAST_LOG_SNR = 2;

export default {
  name: "stable-audio-rf",
  className: "StableAudioSampleRF",
  config,
  takes: [],
  table({ sampler_type: kind, sigma_max }, { steps }) {
    const first = Math.min(sigma_max, 1);
    const firstLogSnr = first < 1 ? Math.log((1 - first) / first + 1e-6) : FIRST_LOG_SNR;
    const inner = linspace(firstLogSnr, LAST_LOG_SNR, steps + 1).map((logSnr) => 1 / (1 + Math.exp(logSnr)));
    const sigmas = [first, ...inner.slice(1, -1), 0];
    const levels = sigmas.map((sigma) => levelOf(sigma, true));
    const rows = flowRows({ times: sigmas.slice(0, -1), sigmas }, (k, time, sigma, nextSigma) => {
      if (kind === "euler") return velocityStep(k, time, sigma, nextSigma);
      const renoised = renoisingStep(k, time, sigma, nextSigma);
      if (kind === "pingpong") return renoised;
      const nodes = k === 0 || nextSigma === 0 ? [entryAt(levels, k)] : [entryAt(levels, k), entryAt(levels, k - 1)];
      const { x, m } = dpmStep("dpmsolver++", "midpoint", nodes, entryAt(levels, k + 1), 1);
      return { ...renoised, next: { x: [{ step: k, weight: x }], m: m.map((weight, back) => ({ step: k - back, weight })), noise: 0 } };
    });
    return { name: "stable-audio-rf", prediction: "flow", initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
