/** The main job: calibrate → plan → compile → verify → time → report. */
import { basename, join, resolve } from "node:path";
import { makeFolder, prepareFolder, replaceFolder, writeSummed, writeWhole } from "./files/index.js";
import {
  ARTIFACT,
  type ArtifactContents,
  ARTIFACTS,
  bench,
  type Bench,
  dataBytes,
  FILES,
  fillArtifact,
  leftOnDisk,
  openArtifact,
  sizesOf,
  storeEmitted,
  storeOthers,
  type Verification,
  verify,
  writeVariants,
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
import { badOption } from "../schedules/diagnostics.js";
import { SharedData } from "../ir/onnx/index.js";
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
  variantsOf,
  warningsOf,
  withBatch,
} from "./job/index.js";
import type { Progress } from "./words/index.js";
import type { Trajectory } from "./reference/index.js";
import { renderReport, renderVariants, reportOf, variantsReportOf } from "./report/index.js";
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

/** Several artifacts over one data file, in folders of their names. */
export interface BuiltSet {
  readonly artifacts: ReadonlyMap<string, Built>;
  /** The bytes of their weights on disk. */
  readonly dataBytes: number;
  /** The page that compares them. */
  readonly report: string;
}

/** Builds an artifact folder with its report. Throws what its stages throw; a failed verification is in the result. */
export async function build(model: string, options: BuildOptions): Promise<Built> {
  const settings = withDefaults(options, "smoothcache");
  const { output, overrides, policyOptions } = settings;
  prepareFolder(output, ARTIFACT, settings.force);
  const planned = await planAll(model, settings, [{ overrides, targets: [{ path: "", policyOptions }] }]);
  return replaceFolder(output, ARTIFACT, settings.force, async (folder) => entryAt(await makeArtifacts(folder, planned, settings), 0));
}

/** What a build of several artifacts makes: one for each variant and tier, or of the one where there are none of the other. */
export interface SetOptions {
  /** Variants of the recipe, or such as are defined here (`parseVariant`). Default: those of the recipe. */
  readonly variants?: readonly string[] | undefined;
  readonly tiers?: readonly string[] | undefined;
}

/**
 * Builds several artifacts, in subfolders with the name of the variant, the tier, or both. They appear together or not at all. All of them
 * have one data file, which holds each weight once. The tiers of a variant come from one calibration. Throws BAD_VARIANT, UNKNOWN_NAME,
 * BAD_OPTION if there are tiers and the options name another policy or a budget, and what `build` throws.
 */
export async function buildSet(model: string, options: BuildOptions, { variants, tiers = [] }: SetOptions = {}): Promise<BuiltSet> {
  const settings = withDefaults(options, tiers.length > 0 ? BUDGET : "smoothcache");
  const { output, policy, force } = settings;
  const all = variantsOf(model, settings, variants);
  if (all.length === 0 && tiers.length === 0) throw badOption("--variant", "names none, and the recipe has none");
  const orders = (all.length > 0 ? all : [{ name: "", ...settings }]).map(({ name, overrides, policyOptions }): Order => {
    if (tiers.length > 0) assertBudgetsOpen("--tiers", policy, policyOptions);
    const budgets = [...new Set(tiers)].map((tier) => [tier, budgetOf(tier)] as const);
    return {
      overrides,
      targets: (budgets.length > 0 ? budgets : [["", {}] as const]).map(([tier, budget]) => ({
        path: [name, tier].filter((part) => part !== "").join("/"),
        policyOptions: { ...policyOptions, ...budget },
      })),
    };
  });
  prepareFolder(output, ARTIFACTS, force);
  const planned = await planAll(model, settings, orders);
  return replaceFolder(output, ARTIFACTS, force, async (folder) => {
    const built = await makeArtifacts(folder, planned, settings);
    const names = planned.map(({ path }) => path);
    const artifacts = new Map(names.map((name, i) => [name, entryAt(built, i)]));
    const page = renderVariants(variantsReportOf(basename(resolve(output)), folder, artifacts));
    await writeWhole(join(folder, FILES.report), page, false);
    await writeVariants(folder, names);
    const folders = names.map((name) => join(folder, name));
    return { artifacts, dataBytes: dataBytes(folders), report: join(output, FILES.report) };
  });
}

function budgetOf(tier: string): Readonly<Record<string, string>> {
  const budget = TIERS.get(tier);
  if (!budget) throw unknownName("tier", tier, [...TIERS.keys()]);
  return budget;
}

/** Artifacts of one job: what it is beside the recipe, and the folder and the policy options of each. */
interface Order {
  readonly overrides: RecipeOverrides;
  readonly targets: readonly Target[];
}

interface Target {
  /** Relative to the folder of the build; empty if that is the artifact. */
  readonly path: string;
  readonly policyOptions: Readonly<Record<string, unknown>>;
}

/** A target with its plan. */
interface PlannedTarget {
  readonly path: string;
  readonly job: Job;
  readonly trace: Trace | undefined;
  readonly planned: Planned;
}

/** Opens all jobs before any of them is measured, as what is refused is then refused at once, and plans them one after the other. */
async function planAll(model: string, options: Settings, orders: readonly Order[]): Promise<readonly PlannedTarget[]> {
  assertLimitable(options);
  const jobs: Job[] = [];
  for (const { overrides } of orders) {
    const job = await openJob(model, overrides, options);
    // A run that cannot be of any batch is refused before anything is measured.
    const all = { steps: job.run.rows.length, cells: new Map() };
    if (job.run.anyBatch) await compileModel(job, planFor(job, all), { form: options.form });
    assertKernels(job.run, options.device);
    jobs.push(job);
  }
  const targets: PlannedTarget[] = [];
  for (const [i, job] of jobs.entries()) {
    const policy = await findPolicy(options.policy, job.source.extensions?.policies);
    const wanted = entryAt(orders, i).targets;
    const needs = new Set(wanted.flatMap(({ policyOptions }) => needsOf(policy, policyOptions)));
    const { trace, chosen } = await plan(job, await calibrationJob(job, options), { policy, needs }, options, wanted);
    targets.push(...wanted.map(({ path }, j) => ({ path, job, trace, planned: entryAt(chosen, j) })));
  }
  for (const warning of new Set(targets.flatMap(({ job, planned }) => [...warningsOf(job), ...planned.warnings]))) options.warn(warning);
  return targets;
}

/** Compiles all artifacts, one after the other, so that they have one data file; then writes, verifies and times each. */
async function makeArtifacts(root: string, targets: readonly PlannedTarget[], options: Settings): Promise<readonly Built[]> {
  const { output, progress, signal } = options;
  const isShared = targets.length > 1;
  const folders = targets.map(({ path }) => join(root, path));
  for (const folder of folders) await makeFolder(folder);
  const data = new SharedData(entryAt(folders, 0), isShared);
  const made: { readonly contents: ArtifactContents; readonly computed: Limited["computed"] }[] = [];
  for (const { job: whole, trace, planned } of targets) {
    const job = await cutFor(whole, planned.schedule, options);
    const { schedule, computed } = limitCache(job, planned.schedule, options.cacheMemory);
    const compiled = await compileModel(job, planFor(job, schedule), { form: options.form, segments: options.segments });
    options.onCompiled?.(compiled);
    await storeEmitted({ compiled }, data, signal);
    made.push({ contents: { job, schedule, compiled: isShared ? leftOnDisk(compiled, data) : compiled, trace }, computed });
  }
  for (const { contents } of made) await storeOthers(contents, data, signal);
  for (const [i, { contents }] of made.entries()) await fillArtifact(entryAt(folders, i), contents, data, signal);
  const built: Built[] = [];
  for (const [i, { contents, computed }] of made.entries()) {
    const [folder, { path, planned }] = [entryAt(folders, i), entryAt(targets, i)];
    const { compiled } = contents;
    const artifact = await openArtifact(folder, { ...options, extensions: options.overrides.extensions, check: false });
    const verification = await verify(artifact, { ...options, samples: 1 });
    const uncached = { model: compiled.uncached, written: data.written };
    const timed = options.runs > 0 ? await bench(artifact, { ...options, runs: options.runs, progress, uncached }) : undefined;
    const title = path === "" ? basename(resolve(output)) : path;
    await writeSummed(folder, FILES.report, renderReport(reportOf({ title, artifact, verification, bench: timed })));
    if (signal?.aborted) throw cancelled();
    built.push({
      ...{ artifact: join(output, path), plan: planned.summary, compiled, computed, bytes: sizesOf(folder) },
      ...{ sharesWeights: isShared && dataBytes(folders) === sizesOf(folder).data, verification, bench: timed },
      report: join(output, path, FILES.report),
    });
  }
  return built;
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
