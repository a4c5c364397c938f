/** Calibration: uncached trajectories over the original step, and the statistics of their branches. */
import { structureDigest, textDigest } from "../ir/digest.js";
import { guidedStep, type Job } from "./job.js";
import type { Progress } from "./progress.js";
import { ReferenceLoop, startOf } from "./reference.js";
import type { SampleOptions } from "./run-inputs.js";
import type { RuntimeOptions } from "./runtime.js";
import { Statistics, type Trace } from "./trace.js";

export interface CalibrateOptions extends RuntimeOptions, Omit<SampleOptions, "noise"> {
  readonly samples: number;
  readonly progress?: Progress | undefined;
}

/** Runs `samples` trajectories without caching and adds up what their branches do. One pass over the network a step and sample. */
export async function calibrate(job: Job, options: CalibrateOptions): Promise<Trace> {
  const { samples, seed, progress } = options;
  const steps = job.table.rows.length;
  const loop = new ReferenceLoop(job, options);
  const statistics = new Statistics(steps, options);
  try {
    for (let sample = 0; sample < samples; sample++) {
      const start = await startOf(job, sample, { ...options, noise: undefined });
      await loop.run(start, undefined, (step, branches) => {
        statistics.observe(step, branches);
        progress?.("calibrate", sample * steps + step + 1, samples * steps);
      });
      await statistics.finishSample();
    }
  } finally {
    await loop.close();
    await statistics.close();
  }
  const { total, branches } = guidedStep(job);
  const sites: Trace["sites"] = {};
  for (const { site, kind, block, stream, macs } of branches) {
    const sums = statistics.sums.get(site);
    if (sums) sites[site] = { kind, block, stream, macs: { ...macs }, ...sums };
  }
  const { form, scale } = job.context.guidance;
  return {
    format: "smoothcc-trace/1",
    structure: structureDigest(job.model),
    sampler: {
      name: job.table.name,
      digest: textDigest(JSON.stringify(job.table)),
      timesteps: job.table.rows.map(({ timestep }) => timestep),
    },
    steps,
    guidance: { form, scale: typeof scale === "number" ? scale : [...scale] },
    samples: Array.from({ length: samples }, (_, i) => i),
    seed,
    macs: { ...total },
    sites,
  };
}
