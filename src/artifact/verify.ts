/** Verifies that an artifact computes what its plan says, and measures the difference from the result without caching. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { FILES, readManifest } from "./manifest.js";
import { type Artifact, ArtifactSession, feedsOf } from "./artifact.js";
import { fileDigest } from "../files/index.js";
import { latentShape, mean, psnr, rangeOf, relativeL2 } from "../../schedules/index.js";
import { type Job, type SampleOptions } from "../job/index.js";
import { type FloatType, isFloatType } from "../../ir/types.js";
import type { Progress } from "../words/index.js";
import { ReferenceLoop, startOf } from "../reference/index.js";
import { assertKernels, type RuntimeOptions } from "../runtime/index.js";

/**
 * The largest relative L2 difference between artifact and loop, by the coarsest type that either computes in. In measurements, rounding
 * to float16 changed latents by 1.1e-3 over 4 steps, and by 5e-4 where the CPU skips some roundings. bfloat16 has three bits less.
 */
const LIMITS: Readonly<Record<FloatType, number>> = { float: 1e-5, float16: 5e-3, bfloat16: 4e-2 };

export interface VerifyOptions extends RuntimeOptions, SampleOptions {
  readonly samples: number;
  /** The result of `checkFiles`, if it has run. */
  readonly files?: Check | undefined;
  readonly progress?: Progress | undefined;
}

export interface Check {
  readonly name: string;
  readonly relL2: number;
  readonly limit: number;
  readonly ok: boolean;
  /** Why it failed, if the number does not show it. */
  readonly problem?: string | undefined;
}

export interface Verification {
  readonly ok: boolean;
  readonly checks: readonly Check[];
  /** Of the artifact against the loop without caching; PSNR in dB. */
  readonly fidelity: { readonly relL2: number; readonly psnr: number; readonly samples: number };
  /** The first sample with and without caching. */
  readonly latents: { readonly shape: readonly number[]; readonly cached: Float32Array; readonly uncached: Float32Array };
}

/** Whether the files have the digests of the manifest. Call it before the files are read. Throws what `readManifest` throws. */
export async function checkFiles(folder: string): Promise<Check> {
  const { digests } = readManifest(folder);
  const problems: string[] = [];
  for (const part of ["model", "data", "tensors"] as const) {
    if (digests[part] === undefined) continue;
    const file = join(folder, FILES[part]);
    if (!existsSync(file)) problems.push(`${FILES[part]} is missing`);
    else if ((await fileDigest(file)) !== digests[part]) problems.push(`${FILES[part]} is cut off or has changed`);
  }
  return check("files are those of the manifest", problems.length, 0, problems);
}

/** Runs the artifact, the plan-aware loop and the uncached loop on the same noise. Three runs a sample. Throws NO_KERNELS. */
export async function verify(artifact: Artifact, options: VerifyOptions): Promise<Verification> {
  const { job, plan, folder } = artifact;
  const files = options.files ?? (await checkFiles(folder));
  assertKernels(job.run.precision, options.device);
  const session = await ArtifactSession.open(join(folder, FILES.model), options);
  const loop = new ReferenceLoop(job.run, options);
  const range = job.source.recipe.display?.range;
  const fromLoop: number[] = [];
  const fromUncached: number[] = [];
  const peaks: number[] = [];
  const overflown = new Set<string>();
  let latents: Verification["latents"] | undefined;
  try {
    for (let sample = 0; sample < options.samples; sample++) {
      const inputs = await startOf(job, sample, options);
      const cached = await session.run(feedsOf(job, inputs));
      options.progress?.("verify", 3 * sample + 1, 3 * options.samples);
      const followed = await loop.run(inputs, { plan });
      options.progress?.("verify", 3 * sample + 2, 3 * options.samples);
      const uncached = await loop.run(inputs);
      options.progress?.("verify", 3 * sample + 3, 3 * options.samples);
      for (const [whose, result] of Object.entries({ "the artifact": cached, "the loop": followed, "the uncached loop": uncached }))
        if (!result.every(Number.isFinite)) overflown.add(whose);
      fromLoop.push(relativeL2(cached, followed));
      fromUncached.push(relativeL2(cached, uncached));
      peaks.push(psnr(cached, uncached, range ? range[1] - range[0] : rangeOf(uncached)));
      latents ??= { shape: latentShape(job.run), cached, uncached };
    }
  } finally {
    await session.close();
    await loop.close();
  }
  if (!latents) throw new Error("internal: verification without samples");
  const problems = overflown.size > 0 ? [`not finite: the result of ${[...overflown].join(", ")}`] : [];
  const checks = [files, check("artifact = plan-aware loop over the original step", Math.max(...fromLoop), limitOf(job), problems)];
  const fidelity = { relL2: mean(fromUncached), psnr: mean(peaks), samples: options.samples * job.run.batch };
  return { ok: checks.every(({ ok }) => ok), checks, fidelity, latents };
}

function limitOf({ model, run }: Job): number {
  const types = [run.precision, ...model.graph.marks.map(({ value }) => value.type?.elem)].filter(isFloatType);
  return types.reduce((limit, type) => Math.max(limit, LIMITS[type]), LIMITS.float);
}

function check(name: string, relL2: number, limit: number, problems: readonly string[]): Check {
  // A result that is not a number is not within any limit.
  return { name, relL2, limit, ok: relL2 <= limit, ...(problems.length > 0 && { problem: problems.join("; ") }) };
}
