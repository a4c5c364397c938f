/** The start of a sample's run. */
import type { Job, RunInputs, SampleOptions } from "../job/index.js";
import { drawnFor, sampleInputs } from "../job/index.js";
import { encoded } from "./companions.js";
import { AS_WRITTEN, FASTEST, type RuntimeOptions, Sessions } from "../runtime/index.js";
import { ReferenceLoop } from "./loop.js";

/** Noise and conditions of one sample, those that encoders give among them. */
async function preparedInputs(job: Job, sample: number, options: SampleOptions & RuntimeOptions): Promise<RunInputs> {
  const inputs = sampleInputs(job, sample, options);
  if (job.network.companions.before.length === 0) return inputs;
  // One open session at a time: an encoder may be larger than the network.
  const sessions = new Sessions({ ...options, ...AS_WRITTEN }, 0);
  try {
    return { ...inputs, conditions: await encoded(job, inputs.conditions, sessions) };
  } finally {
    await sessions.close();
  }
}

/**
 * The inputs of sample `sample`. If the run does not start from noise,
 * its noise is the latent of a whole run without caching at the start.
 */
export async function startOf(job: Job, sample: number, options: SampleOptions & RuntimeOptions): Promise<RunInputs> {
  const inputs = await preparedInputs(job, sample, options);
  if (!job.skipped || (options.noise && sample === 0)) return inputs;
  const loop = new ReferenceLoop(job.skipped, { ...options, ...FASTEST });
  try {
    return { ...inputs, noise: await loop.run({ ...drawnFor(job.skipped, sample, options), conditions: inputs.conditions }) };
  } finally {
    await loop.close();
  }
}
