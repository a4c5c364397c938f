/** The main job: calibrate → plan → compile → verify → time → report. */
import { basename, join, resolve } from "node:path";
import { prepareFolder, replaceFolder, writeSummed } from "./files/index.js";
import {
  ARTIFACT,
  bench,
  type Bench,
  FILES,
  fillArtifact,
  openArtifact,
  shareWeights,
  type Verification,
  verify,
} from "./artifact/index.js";
import {
  assertBudgetsOpen,
  BUDGET,
  choosePlan,
  findPolicy,
  type Planned,
  planningForJob,
  type PlanSummary,
  runsOf,
  TIERS,
} from "./planning/index.js";
import { assertLimitable, type Compiled, compileModel, limitCache, type Limited } from "./compile/index.js";
import { calibrate, DEFAULT_SAMPLES, type Trace } from "./calibration/index.js";
import { cancelled, unknownName } from "../ir/diagnostics.js";
import { entryAt } from "../ir/entries.js";
import { needsOf, type Policy, type PolicyNeed } from "../schedules/index.js";
import {
  fitsAnyBatch,
  type Job,
  cutFor,
  DEFAULT_SEED,
  openJob,
  planFor,
  type RecipeOverrides,
  type SampleOptions,
  warningsOf,
  withBatch,
} from "./job/index.js";
import type { Progress } from "./words/index.js";
import type { Trajectory } from "./reference/index.js";
import { renderReport, reportOf } from "./report/index.js";
import { assertKernels, type RuntimeOptions } from "./runtime/index.js";

export interface BuildOptions extends RuntimeOptions, SampleOptions {
  readonly overrides?: RecipeOverrides | undefined;
  readonly output: string;
  /** Whether an artifact that is there is replaced. Default: no. */
  readonly force?: boolean | undefined;
  /** Default: `smoothcache`; of tiers: `budget`. */
  readonly policy?: string | undefined;
  readonly policyOptions?: Readonly<Record<string, unknown>> | undefined;
  /** Calibration samples. Default: `DEFAULT_SAMPLES`. */
  readonly samples?: number | undefined;
  readonly form?: string | undefined;
  /** The number of parts that the run is written in as well. Default: 1, none. */
  readonly segments?: number | undefined;
  /** The most bytes that cached values may take. */
  readonly cacheMemory?: number | undefined;
  /** Timed runs; none if 0. Default: 3. */
  readonly runs?: number | undefined;
  readonly progress?: Progress | undefined;
  /** Told what was compiled, before any of it runs. */
  readonly onCompiled?: ((compiled: Compiled) => void) | undefined;
  readonly warn?: ((message: string) => void) | undefined;
}

/** Options with all that has a default. */
function withDefaults<Given extends BuildOptions>(options: Given, policy: string): Given & Settings {
  const { overrides = {}, force = false, policyOptions = {}, samples = DEFAULT_SAMPLES, runs = 3, seed = DEFAULT_SEED } = options;
  const { warn = () => undefined } = options;
  return { ...options, overrides, force, policy: options.policy ?? policy, policyOptions, samples, runs, seed, warn };
}

type Defaulted = "overrides" | "force" | "policy" | "policyOptions" | "samples" | "runs" | "seed" | "warn";
type Settings = BuildOptions & { readonly [Key in Defaulted]: NonNullable<BuildOptions[Key]> };

export interface Built {
  /** The folder. */
  readonly artifact: string;
  readonly plan: PlanSummary;
  readonly compiled: Compiled;
  /** Sites that are computed at every step because of the cache limit. */
  readonly computed: Limited["computed"];
  readonly bytes: { readonly model: number; readonly data: number };
  /** Whether its weights are the same file on disk as those of another artifact of the build. */
  readonly sharesWeights: boolean;
  readonly verification: Verification;
  readonly bench?: Bench | undefined;
  readonly report: string;
}

/** Builds an artifact folder with its report. Throws what its stages throw; a failed verification is in the result. */
export async function build(model: string, options: BuildOptions): Promise<Built> {
  const settings = withDefaults(options, "smoothcache");
  return entryAt(await buildAll(model, settings, [settings]), 0);
}

/**
 * Builds an artifact for each of the tiers from one calibration, in a subfolder with the name of the tier. Equal weights files are one
 * file on disk. Throws UNKNOWN_NAME, BAD_OPTION if the options name another policy or a budget, and
 * what `build` throws.
 */
export async function buildTiers(model: string, options: BuildOptions, tiers: readonly string[]): Promise<ReadonlyMap<string, Built>> {
  const settings = withDefaults(options, BUDGET);
  const { output, policy, policyOptions } = settings;
  assertBudgetsOpen("--tiers", policy, policyOptions);
  const targets = [...new Set(tiers)].map((name) => {
    const budget = TIERS.get(name);
    if (!budget) throw unknownName("tier", name, [...TIERS.keys()]);
    return { name, output: join(output, name), policyOptions: { ...policyOptions, ...budget } };
  });
  const built = await buildAll(model, settings, targets);
  return new Map(built.map((one, i) => [entryAt(targets, i).name, one]));
}

/** The folder of an artifact, and the policy options of its plan. */
type Target = Pick<Settings, "output" | "policyOptions">;

async function buildAll(model: string, options: Settings, targets: readonly Target[]): Promise<readonly Built[]> {
  for (const { output } of targets) prepareFolder(output, ARTIFACT, options.force);
  assertLimitable(options);
  const job = await openJob(model, options.overrides, options);
  // A run that cannot be of any batch is refused before anything is measured.
  const all = { steps: job.run.rows.length, cells: new Map() };
  if (job.run.anyBatch) await compileModel(job, planFor(job, all), { form: options.form });
  const policy = await findPolicy(options.policy, job.source.extensions?.policies);
  const needs = new Set(targets.flatMap(({ policyOptions }) => needsOf(policy, policyOptions)));
  assertKernels(job.run, options.device);
  const { trace, chosen } = await plan(job, await calibrationJob(job, options), { policy, needs }, options, targets);
  for (const warning of new Set([...warningsOf(job), ...chosen.flatMap(({ warnings }) => warnings)])) options.warn(warning);
  const built: Built[] = [];
  for (const [i, { output }] of targets.entries()) {
    built.push(await makeArtifact(job, { trace, planned: entryAt(chosen, i) }, { ...options, output }, built));
  }
  return built;
}

/** Compiles, writes, verifies and times one artifact; `others` have been built before. */
async function makeArtifact(
  whole: Job,
  { trace, planned }: { readonly trace: Trace | undefined; readonly planned: Planned },
  options: Settings,
  others: readonly Built[],
): Promise<Built> {
  const { output, force, progress } = options;
  const job = await cutFor(whole, planned.schedule, options);
  const { schedule, computed } = limitCache(job, planned.schedule, options.cacheMemory);
  const compiled = await compileModel(job, planFor(job, schedule), { form: options.form, segments: options.segments });
  options.onCompiled?.(compiled);
  return replaceFolder(output, ARTIFACT, force, async (folder) => {
    const { sizes, written } = await fillArtifact(folder, { job, schedule, compiled, trace }, options.signal);
    const sharesWeights = await shareWeights(
      folder,
      others.map(({ artifact }) => artifact),
    );
    const artifact = await openArtifact(folder, { ...options, extensions: options.overrides.extensions, check: false });
    const verification = await verify(artifact, { ...options, samples: 1 });
    const timed =
      options.runs > 0
        ? await bench(artifact, { ...options, runs: options.runs, progress, uncached: { model: compiled.uncached, written } })
        : undefined;
    const title = basename(resolve(output));
    const report = reportOf({ title, artifact, verification, bench: timed });
    await writeSummed(folder, FILES.report, renderReport(report));
    if (options.signal?.aborted) throw cancelled();
    return {
      ...{ artifact: output, plan: planned.summary, compiled, computed, bytes: sizes, sharesWeights, verification, bench: timed },
      report: join(output, FILES.report),
    };
  });
}

/**
 * The job for calibration. It runs one latent at a time if the export and the conditions allow it: that is cheapest, and the errors do
 * not depend on the batch.
 */
async function calibrationJob(job: Job, options: Settings): Promise<Job> {
  return fitsAnyBatch(job) && job.run.batch > 1 ? withBatch(job, 1, options) : job;
}

/** The plan that the policy chooses for each target, from runs of `single`, and the trace if the policy needs one. */
async function plan(
  job: Job,
  single: Job,
  { policy, needs }: { readonly policy: Policy; readonly needs: ReadonlySet<PolicyNeed> },
  options: Settings,
  targets: readonly Target[],
): Promise<{ readonly trace: Trace | undefined; readonly chosen: readonly Planned[] }> {
  const { samples, seed, progress } = options;
  const sampling = { ...options, inputs: undefined, noise: undefined };
  const known = new Map<number, Trajectory>();
  const keep = (sample: number, trajectory: Trajectory): void => void known.set(sample, trajectory);
  const trace = needs.has("trace") ? await calibrate(single, { ...sampling, keep: needs.has("runs") ? keep : undefined }) : undefined;
  const runs = runsOf(single, { ...sampling, known, samples: trace?.samples ?? Array.from({ length: samples }, (_, i) => i), seed });
  try {
    const chosen: Planned[] = [];
    for (const { policyOptions } of targets)
      chosen.push(await choosePlan({ ...planningForJob(job, trace), runs, progress }, policy, policyOptions));
    return { trace, chosen };
  } finally {
    await runs.close();
  }
}
