// A sampler in one file: DDIM whose steps lie denser towards the end of the run (arXiv 2010.02502, appendix D.2: τ = ⌊c · i²⌋).
// A scheduler_config.json names it by its class: { "_class_name": "QuadraticDDIM", "beta_schedule": "scaled_linear", … }
//
//   smoothcc sampler scheduler_config.json --extension ./examples/quadratic-ddim.js --steps 10
//   smoothcc build MODEL --extension ./examples/quadratic-ddim.js --scheduler scheduler_config.json -o out
import { z } from "zod";

/** @type {import("smoothcc/schedules").Sampler} */
export default {
  name: "quadratic-ddim",
  className: "QuadraticDDIM",
  config: z.object({
    num_train_timesteps: z.int().default(1000),
    beta_start: z.number().default(0.0001),
    beta_end: z.number().default(0.02),
  }),
  takes: [],
  table({ num_train_timesteps: count, beta_start: from, beta_end: to }, { steps }) {
    let product = 1;
    const bars = Array.from({ length: count }, (_, t) => (product *= 1 - from - ((to - from) * t) / (count - 1)));
    const times = Array.from({ length: steps }, (_, k) => Math.floor((count - 1) * ((steps - k) / steps) ** 2));
    const rows = times.map((timestep, k) => {
      const [bar, next] = [bars[timestep], k + 1 < steps ? bars[times[k + 1]] : 1];
      const [signal, noise] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
      // The history m is the predicted sample, (x − noise · out) / signal; the next latent has its noise level.
      const kept = Math.sqrt(1 - next) / noise;
      return {
        timestep,
        inputScale: 1,
        m: { x: 1 / signal, out: -noise / signal },
        next: { x: [{ step: k, weight: kept }], m: [{ step: k, weight: Math.sqrt(next) - kept * signal }], noise: 0 },
      };
    });
    return { name: "quadratic-ddim", prediction: "epsilon", initialScale: 1, rows };
  },
};
