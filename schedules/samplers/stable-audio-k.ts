/**
 * k-diffusion's DPM-Solver++ as stable-audio-tools runs it: `sample_k` in `stable_audio_tools/inference/sampling.py`,
 * `k_diffusion/sampling.py`.
 */
import { z } from "zod";
import { samplerOption } from "../diagnostics.js";
import { dpmStep } from "../solvers/dpm-solver.js";
import { angularTime, edmRows } from "../solvers/edm.js";
import type { Sampler } from "../sampler.js";
import { polyexponentialSigmas } from "../solvers/sigma-grid.js";

const className = "StableAudioSampleK";

/** The project has no file for the sampler: the keys are the arguments of `sample_k`, with its defaults, and k-diffusion's eta. */
const config = z.object({
  sampler_type: z.enum(["dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m-sde"]).default("dpmpp-2m-sde"),
  sigma_min: z.number().positive().default(0.01),
  sigma_max: z.number().positive().default(100),
  /** 1 spaces the sigmas evenly in their logarithm. */
  rho: z.number().positive().default(1),
  /** Noise of the SDE as a multiple of the reverse diffusion's. */
  eta: z.number().min(0).default(1),
});

export default {
  name: "stable-audio-k",
  className,
  config,
  takes: ["eta"],
  /** The network is a v-prediction (`VDenoiser`) on data of unit variance; the noise is a Brownian tree's, a unit normal a step. */
  table({ sampler_type: kind, sigma_min, sigma_max, rho, eta: ownEta }, { steps, eta = ownEta }) {
    if (!(eta >= 0)) throw samplerOption(className, "eta", "takes a share of noise from 0 up");
    const order = kind === "dpmpp-3m-sde" ? 3 : 2;
    const sigmas = [...polyexponentialSigmas(sigma_max, sigma_min, steps, rho), 0];
    const rows = edmRows({
      sigmas,
      sigmaData: 1,
      prediction: "v_prediction",
      timeOf: angularTime,
      orderAt: (k) => (k + 1 === steps ? 1 : Math.min(order, k + 1)),
      solve: (nodes, to) =>
        dpmStep("sde-dpmsolver++", order === 3 ? "heun" : "midpoint", nodes, to, 1 / 2, {
          eta: kind === "dpmpp-2m" ? 0 : eta,
          hasSlip: false,
        }),
    });
    return { name: "stable-audio-k", prediction: "v_prediction", initialScale: sigma_max, rows };
  },
} satisfies Sampler<typeof config>;
