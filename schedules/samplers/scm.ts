/** Consistency sampling in TrigFlow's angles (sCM, arXiv 2410.11081), as diffusers' `schedulers/scheduling_scm.py` runs it. */
import { z } from "zod";
import { MAX_TRAIN_TIMES } from "../../ir/limits.js";
import { samplerOption } from "../diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import type { Row, Sampler } from "../sampler.js";
import { linspace } from "../solvers/spacing.js";
import { noiseLevel } from "../solvers/levels.js";

const className = "SCMScheduler";

const config = z.object({
  num_train_timesteps: z.int().min(1).max(MAX_TRAIN_TIMES).default(1000),
  prediction_type: z.literal("trigflow").default("trigflow"),
  sigma_data: z.number().default(0.5),
});

/** The angles that diffusers' pipelines pass: the first, at (almost) pure noise, and the middle one of a run of two steps. */
const FIRST_ANGLE = 1.5708;
const MIDDLE_ANGLE = 1.3;

export default {
  name: "scm",
  className,
  config,
  /** As in the library there is one time more than steps: the last is where the run ends. */
  takes: ["timesteps"],
  table(config, { steps, timesteps }) {
    if (steps > config.num_train_timesteps) throw samplerOption(className, "steps", `takes at most ${config.num_train_timesteps} steps`);
    if (timesteps && timesteps.length !== steps + 1)
      throw samplerOption(className, "timesteps", `needs ${steps + 1} times for ${steps} steps, the end among them`);
    const angles = timesteps ?? (steps === 2 ? [FIRST_ANGLE, MIDDLE_ANGLE, 0] : linspace(FIRST_ANGLE, 0, steps + 1));
    // x = cos t · x_0 + sin t · noise, where noise and x_0 have the deviation sigma_data; the output is a v-prediction.
    const rows = angles.slice(0, steps).map((angle, k): Row => {
      const next = entryAt(angles, k + 1);
      return {
        timestep: angle,
        level: noiseLevel({ alpha: Math.cos(angle), sigma: Math.sin(angle) * config.sigma_data }),
        inputScale: 1,
        m: { x: Math.cos(angle), out: -Math.sin(angle) },
        next: { x: [], m: [{ step: k, weight: Math.cos(next) }], noise: Math.sin(next) * config.sigma_data },
      };
    });
    return { name: "scm", prediction: "v_prediction", initialScale: 1, rows };
  },
} satisfies Sampler<typeof config>;
