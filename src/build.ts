/** The main job: calibrate → plan → compile → verify → time → report. */
import { basename, join, resolve } from "node:path";
import { writeFile } from "node:fs/promises";
import { assertReplaceable, FILES, fillArtifact, openArtifact, replaceFolder } from "./artifact.js";
import { bench, type Bench } from "./bench.js";
import { assertLimitable, limitCache, type Limited } from "./cache-limit.js";
import { calibrate } from "./calibrate.js";
import { compileModel, type Compiled, type Form } from "./compile.js";
import { ditView } from "../ir/graph.js";
import { bind, policies } from "../schedules/index.js";
import { fitsAnyBatch, openJob, warningsOf, type Job } from "./job.js";
import { choosePlan, planningFor, type Planned, type PlanSummary } from "./plan.js";
import type { Progress } from "./progress.js";
import type { RecipeOverrides } from "./recipe.js";
import { reportOf } from "./report-data.js";
import { renderReport } from "./report/index.js";
import type { SampleOptions } from "./run-inputs.js";
import { runsOf } from "./runs.js";
import { assertKernels, type RuntimeOptions } from "./runtime.js";
import type { Trace } from "./trace.js";
import { verify, type Verification } from "./verify.js";

export interface BuildOptions extends RuntimeOptions, SampleOptions {
  readonly overrides: RecipeOverrides;
  readonly output: string;
  readonly force: boolean;
  readonly policy: string;
  readonly policyOptions: unknown;
  /** Calibration samples. */
  readonly samples: number;
  readonly form?: Form | undefined;
  /** The most bytes that cached values may take. */
  readonly cacheMemory?: number | undefined;
  /** Timed runs; none if 0. */
  readonly runs: number;
  readonly progress?: Progress | undefined;
  /** Told what was compiled, before any of it runs. */
  readonly onCompiled?: ((compiled: Compiled) => void) | undefined;
  readonly warn: (message: string) => void;
}

export interface Built {
  readonly plan: PlanSummary;
  readonly compiled: Compiled;
  /** Sites that the limit of the cache has computed at every step. */
  readonly computed: Limited["computed"];
  readonly bytes: { readonly model: number; readonly data: number };
  readonly verification: Verification;
  readonly bench?: Bench | undefined;
  readonly report: string;
}

/** Builds an artifact folder with its report. Throws what its stages throw; a failed verification is in the result. */
export async function build(model: string, options: BuildOptions): Promise<Built> {
  const { overrides, output, force, progress } = options;
  assertReplaceable(output, force);
  assertLimitable(options);
  const job = await openJob(model, overrides, options);
  assertKernels(job.context.precision, options.device);
  const { trace, planned } = await chosen(job, await calibrationJob(model, job, options), options);
  for (const warning of [...warningsOf(job), ...planned.warnings]) options.warn(warning);
  const { schedule, computed } = limitCache(job, planned.schedule, options.cacheMemory);
  const plan = bind(schedule, job.table, ditView(job.model).branches, job.context.guidance);
  const compiled = await compileModel(job, plan, { form: options.form });
  options.onCompiled?.(compiled);
  return replaceFolder(output, force, async (folder) => {
    const bytes = await fillArtifact(folder, { job, schedule, compiled, trace }, options.signal);
    const artifact = await openArtifact(folder, options);
    const verification = await verify(artifact, { ...options, samples: 1 });
    const timed = options.runs > 0 ? await bench(artifact, { ...options, runs: options.runs, progress }) : undefined;
    const title = basename(resolve(output));
    const report = reportOf({ title, artifact, verification, bench: timed });
    await writeFile(join(folder, FILES.report), renderReport(report));
    options.signal?.throwIfAborted();
    return { plan: planned.summary, compiled, computed, bytes, verification, bench: timed, report: join(output, FILES.report) };
  });
}

/**
 * Calibration runs one latent at a time where the export and the conditions allow it: that costs least, and no error
 * depends on the batch.
 */
async function calibrationJob(model: string, job: Job, options: BuildOptions): Promise<Job> {
  return fitsAnyBatch(job) ? openJob(model, { ...options.overrides, batch: 1 }, options) : job;
}

/** What the policy chooses for the job from runs of `single`, and what was measured for it. */
async function chosen(
  job: Job,
  single: Job,
  options: BuildOptions,
): Promise<{ readonly trace: Trace | undefined; readonly planned: Planned }> {
  const { policy, policyOptions, samples, seed, progress } = options;
  const sampling = { ...options, inputs: undefined, noise: undefined };
  const trace = (policies.get(policy)?.needs.includes("trace") ?? true) ? await calibrate(single, sampling) : undefined;
  const runs = runsOf(single, { ...sampling, samples: trace?.samples ?? Array.from({ length: samples }, (_, i) => i), seed });
  try {
    return { trace, planned: await choosePlan({ ...planningFor(job, trace), runs, progress }, policy, policyOptions) };
  } finally {
    await runs.close();
  }
}
