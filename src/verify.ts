/** Does an artifact do what its plan says, and how far is that from the result without caching? */
import { join } from "node:path";
import { FILES, ArtifactSession, feedsOf, fileDigest, type Artifact } from "./artifact.js";
import { psnr, rangeOf, relativeL2 } from "./fidelity.js";
import { latentShape, type Job } from "./job.js";
import type { Progress } from "./progress.js";
import { ReferenceLoop, startOf } from "./reference.js";
import type { SampleOptions } from "./run-inputs.js";
import type { RuntimeOptions } from "./runtime.js";

/** How far the artifact may be from the loop: both compute in float32 (CONTRACT, verify). */
const LOOP_LIMIT = 1e-5;
/** The same where branches are of half precision: the order of roundings is the runtime's to choose. */
const HALF_LIMIT = 5e-3;

export interface VerifyOptions extends RuntimeOptions, SampleOptions {
  readonly samples: number;
  readonly progress?: Progress | undefined;
}

export interface Check {
  readonly name: string;
  readonly relL2: number;
  readonly limit: number;
  readonly ok: boolean;
}

export interface Verification {
  readonly ok: boolean;
  readonly checks: readonly Check[];
  /** Of the artifact against the loop without caching; PSNR in dB. */
  readonly fidelity: { readonly relL2: number; readonly psnr: number; readonly samples: number };
  /** The first sample with and without caching. */
  readonly latents: { readonly shape: readonly number[]; readonly cached: Float32Array; readonly uncached: Float32Array };
}

/** Runs the artifact, the plan-aware loop and the uncached loop on the same noise. Three runs a sample. */
export async function verify(artifact: Artifact, options: VerifyOptions): Promise<Verification> {
  const { job, plan, manifest, folder } = artifact;
  const session = await ArtifactSession.open(join(folder, FILES.model), options);
  const loop = new ReferenceLoop(job, options);
  const range = job.source.recipe.display?.range;
  const fromLoop: number[] = [];
  const fromUncached: number[] = [];
  const peaks: number[] = [];
  let latents: Verification["latents"] | undefined;
  try {
    for (let sample = 0; sample < options.samples; sample++) {
      const inputs = await startOf(job, sample, options);
      const cached = await session.run(feedsOf(job, inputs));
      options.progress?.("verify", 3 * sample + 1, 3 * options.samples);
      const followed = await loop.run(inputs, plan);
      options.progress?.("verify", 3 * sample + 2, 3 * options.samples);
      const uncached = await loop.run(inputs);
      options.progress?.("verify", 3 * sample + 3, 3 * options.samples);
      fromLoop.push(relativeL2(cached, followed));
      fromUncached.push(relativeL2(cached, uncached));
      peaks.push(psnr(cached, uncached, range ? range[1] - range[0] : rangeOf(uncached)));
      latents ??= { shape: latentShape(job), cached, uncached };
    }
  } finally {
    await session.close();
    await loop.close();
  }
  if (!latents) throw new Error("internal: verification without samples");
  let intact = true;
  for (const part of ["model", "data", "tensors"] as const) {
    const digest = manifest.digests[part];
    intact &&= digest === undefined || (await fileDigest(join(folder, FILES[part]))) === digest;
  }
  const checks = [
    check("files are those of the manifest", intact ? 0 : 1, 0),
    check("artifact = plan-aware loop over the original step", Math.max(...fromLoop), isHalf(job) ? HALF_LIMIT : LOOP_LIMIT),
  ];
  const fidelity = { relL2: mean(fromUncached), psnr: mean(peaks), samples: options.samples * job.context.batch };
  return { ok: checks.every(({ ok }) => ok), checks, fidelity, latents };
}

function isHalf({ model }: Job): boolean {
  return model.graph.marks.some(({ value }) => value.type?.elem === "float16" || value.type?.elem === "bfloat16");
}

function check(name: string, relL2: number, limit: number): Check {
  // A result that is not a number is not within any limit.
  return { name, relL2, limit, ok: relL2 <= limit };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
