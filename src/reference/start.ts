/** The start of a sample's run. */
import type { Job, RunInputs, SampleOptions } from "../job/index.js";
import { drawnFor, sampleInputs } from "../job/index.js";
import { FASTEST, type RuntimeOptions } from "../runtime/index.js";
import { ReferenceLoop } from "./loop.js";

/**
 * The inputs of sample `sample`. If the run does not start from noise,
 * its noise is the latent of a whole run without caching at the start.
 */
export async function startOf(job: Job, sample: number, options: SampleOptions & RuntimeOptions): Promise<RunInputs> {
  const inputs = sampleInputs(job, sample, options);
  if (!job.skipped || (options.noise && sample === 0)) return inputs;
  const loop = new ReferenceLoop(job.skipped, { ...options, ...FASTEST });
  try {
    return { ...inputs, noise: await loop.run({ ...drawnFor(job.skipped, sample, options), conditions: inputs.conditions }) };
  } finally {
    await loop.close();
  }
}
