/**
 * DDPM and DDIM on a subset of the training times, as facebook's DiT and OpenAI's guided-diffusion run them
 * (github.com/facebookresearch/DiT, `diffusion/respace.py`). The configuration holds the arguments of `create_diffusion`.
 */
import { z } from "zod";
import { samplerOption, unsupportedScheduler } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { clampedStep } from "../solvers/clipping.js";
import { type AncestralRun, ddpmRows } from "../solvers/ddpm.js";
import { ddimStep } from "../solvers/ddim.js";
import { alphaBars } from "../solvers/noise-schedule.js";
import type { Row, Sampler } from "../sampler.js";
import { roundHalfEven } from "../solvers/spacing.js";
import { levelOfBar, noiseLevel } from "../solvers/levels.js";

const className = "SpacedDiffusion";

const config = z.object({
  diffusion_steps: z.int().min(1).max(1e6).default(1000),
  /** Counts of times in equal sections ("250", "10,15,20"), or "ddim50" for a whole stride; "" takes all. */
  timestep_respacing: z.union([z.string(), z.array(z.int().min(1))]).default(""),
  noise_schedule: z.enum(["linear", "squaredcos_cap_v2"]).default("linear"),
  predict_xstart: z.boolean().default(false),
  learn_sigma: z.boolean().default(true),
  sigma_small: z.boolean().default(false),
  /** Arguments of `p_sample_loop` and `ddim_sample_loop`. Absent: ancestral sampling, or DDIM for "ddim…" spacings. */
  sampler: z.enum(["ddpm", "ddim"]).optional(),
  clip_denoised: z.boolean().default(false),
});
type Config = z.output<typeof config>;

export default {
  name: "spaced-diffusion",
  className,
  config,
  takes: ["eta"],
  table(config, { steps, eta = 0 }) {
    const kept = keptTimes(config);
    if (kept.length !== steps) throw samplerOption(className, "steps", `takes ${kept.length} steps with this timestep_respacing`);
    // The range of betas is that of 1000 training times, stretched.
    const stretch = 1000 / config.diffusion_steps;
    const trained = alphaBars({
      num_train_timesteps: config.diffusion_steps,
      beta_start: 0.0001 * stretch,
      beta_end: 0.02 * stretch,
      beta_schedule: config.noise_schedule,
      trained_betas: null,
    });
    const times = [...kept].reverse();
    const bars = times.map((time) => entryAt(trained, time));
    const prediction = config.predict_xstart ? "sample" : "epsilon";
    const clamping = { clip_sample: config.clip_denoised, clip_sample_range: 1 };
    const isDdim = config.sampler ? config.sampler === "ddim" : String(config.timestep_respacing).startsWith("ddim");
    if (!isDdim && eta !== 0) throw samplerOption(className, "eta", "takes eta only with DDIM");
    const rows = isDdim
      ? times.map((time, k): Row => {
          const bar = entryAt(bars, k);
          const step = ddimStep(prediction, bar, bars[k + 1] ?? 1, eta);
          return { timestep: time, level: noiseLevel(levelOfBar(bar)), inputScale: 1, ...clampedStep(clamping, { k, ...step }) };
        })
      : ddpmRows({ times, bars, variance: varianceOf(config), prediction, clamping });
    return { name: "spaced-diffusion", prediction, initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;

function varianceOf({ learn_sigma, sigma_small }: Config): AncestralRun["variance"] {
  if (learn_sigma) return "learned_range";
  return sigma_small ? "fixed_small" : "fixed_large";
}

/** The training times that stay, rising (`space_timesteps`). */
function keptTimes({ diffusion_steps: count, timestep_respacing: respacing }: Config): readonly number[] {
  const refuse = (reason: string): Error =>
    unsupportedScheduler(
      className,
      `"timestep_respacing": ${JSON.stringify(respacing)}`,
      reason,
      'Give counts of times, like "250", or "ddim50".',
    );
  const ddim = /^ddim(\d+)$/.exec(String(respacing))?.[1];
  if (ddim !== undefined) {
    const wanted = Number(ddim);
    for (let stride = 1; stride < count; stride++)
      if (Math.ceil(count / stride) === wanted) return Array.from({ length: wanted }, (_, i) => i * stride);
    throw refuse(`no whole stride takes ${wanted} of ${count} times`);
  }
  const sections = typeof respacing === "string" ? (respacing === "" ? [count] : respacing.split(",").map(Number)) : respacing;
  if (!sections.every((size) => Number.isInteger(size) && size > 0)) throw refuse("it is no list of counts");
  let start = 0;
  return sections.flatMap((wanted, i) => {
    const size = Math.floor(count / sections.length) + (i < count % sections.length ? 1 : 0);
    if (wanted > size) throw refuse(`a section of ${size} times has no ${wanted}`);
    const stride = wanted > 1 ? (size - 1) / (wanted - 1) : 1;
    const first = start;
    start += size;
    let place = 0;
    return Array.from({ length: wanted }, () => {
      const time = first + roundHalfEven(place);
      place += stride;
      return time;
    });
  });
}
