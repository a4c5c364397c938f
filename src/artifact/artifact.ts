/** The artifact folder: the emitted model, the step that it was made from, and the manifest. */
import { existsSync, statSync } from "node:fs";
import { mkdir, rename, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { elemOf, shapeOf } from "../../ir/build.js";
import { ditView, type Model, type Value } from "../../ir/graph.js";
import { writeModel, type WriteOptions, type WriteResult, WrittenData } from "../../ir/onnx/index.js";
import { type TensorData, tensorFrom, tensorNumbers } from "../../ir/tensor.js";
import { givenBy, latentShape, type Plan, runPorts, type Schedule, uncondInput } from "../../schedules/index.js";
import type { Compiled } from "../compile/index.js";
import { assertUnchanged, jsonText, linked, npyBytes, readNpy, readSums, replaceFolder, tidy, writeSums } from "../files/index.js";
import { fileOf, type Job, openJob, planFor, readPlan, type Recipe, type RunInputs, schedulerConfig, writePlan } from "../job/index.js";
import { AS_WRITTEN, type RuntimeOptions, Session, type SessionOptions, type Tensors } from "../runtime/index.js";
import type { Trace } from "../calibration/index.js";
import { METADATA_PREFIX, VERSION } from "../words/index.js";
import { ARTIFACT, assertWhole, companionFile, dataFilesIn, FILES, MANIFEST_FORMAT, type Manifest, readManifest } from "./manifest.js";

/** The contents of an artifact. */
export interface ArtifactContents {
  readonly job: Job;
  readonly schedule: Schedule;
  readonly compiled: Compiled;
  readonly trace?: Trace | undefined;
}

/** Writes an artifact completely or not at all; returns the sizes of the emitted model. Throws what `prepareFolder` throws. */
export function writeArtifact(folder: string, contents: ArtifactContents, force: boolean, signal?: AbortSignal): Promise<Sizes> {
  return replaceFolder(folder, ARTIFACT, force, async (partial) => (await fillArtifact(partial, contents, signal)).sizes);
}

/** Bytes of the emitted model and of its weights. */
export interface Sizes {
  readonly model: number;
  readonly data: number;
}

/** What was written: the sizes, and where the constants lie in the data files of the folder. */
export interface Filled {
  readonly sizes: Sizes;
  readonly written: WrittenData;
}

/** Writes the files of an artifact into a folder. */
export async function fillArtifact(
  folder: string,
  { job, schedule, compiled, trace }: ArtifactContents,
  signal?: AbortSignal,
): Promise<Filled> {
  const { structure } = job.network;
  const recipe = await portableRecipe(job, folder);
  const plan = await writePlan(join(folder, FILES.plan), { ...schedule, of: job.run.of }, false);
  const written = new WrittenData();
  const file = join(folder, FILES.model);
  const first = await writeEmitted(compiled.model, file, { written, signal });
  const data = first.digests.get(FILES.data);
  const digests = { structure, ...(data !== undefined && { data: `sha256:${data}` }) };
  const metadata = { version: VERSION, ...digests, plan: JSON.stringify(plan) };
  const labelled = new Map(Object.entries(metadata).map(([key, value]) => [`${METADATA_PREFIX}${key}`, value]));
  // Writes the model again, with the digests of the first writing as metadata. Its weights are already in the data file.
  const second = await writeEmitted({ ...compiled.model, metadata: labelled }, file, { written, signal });
  const step = await writeModel(job.network.read, join(folder, FILES.step), { written, signal });
  const companions = await writeCompanions(job, folder, { written, signal });
  assertUnchanged(job.network.files);
  const { form, nodes, macs, memory, passes, model } = compiled;
  const port = (name: string, value: Value): Manifest["inputs"][number] => ({ name, elem: elemOf(value), shape: [...shapeOf(value)] });
  const manifest: Manifest = {
    format: `${MANIFEST_FORMAT}1`,
    smoothcc: VERSION,
    digests,
    form,
    recipe,
    sampler: { ...job.run.table },
    plan,
    steps: job.steps,
    evaluations: job.run.rows.length,
    inputs: model.graph.inputs.map((value) => port(value.name, value)),
    outputs: model.graph.outputs.map(({ name, value }) => port(name, value)),
    nodes: { ...nodes },
    macs: { ...macs },
    cache: { peakBytes: memory.cache },
    passes: passes.map(({ name, nodes: count }) => ({ name, nodes: count })),
    load: { graphOptimizationLevel: "disabled", enableMemPattern: false },
  };
  await writeFile(join(folder, FILES.recipe), jsonText(recipe));
  if (trace) await writeFile(join(folder, FILES.trace), jsonText(trace));
  await writeFile(join(folder, FILES.manifest), jsonText(manifest));
  await writeSums(folder, new Map([...first.digests, ...second.digests, ...step.digests, ...companions]));
  return { sizes: sizesOf(folder), written };
}

/**
 * Replaces weights files by hard links to equal ones of other artifacts, if the file system supports them. Each artifact still is
 * complete. Returns whether the weights of the emitted model are shared now.
 */
export async function shareWeights(folder: string, others: readonly string[]): Promise<boolean> {
  const shared = new Set<string>();
  for (const name of dataFilesIn(folder)) {
    const digest = readSums(folder)?.get(name);
    for (const other of others) {
      if (digest === undefined || shared.has(name) || readSums(other)?.get(name) !== digest) continue;
      const partial = join(folder, `${name}.partial`);
      if (!(await linked(join(other, name), partial))) continue;
      await rename(partial, join(folder, name));
      shared.add(name);
    }
  }
  return shared.has(FILES.data);
}

export function sizesOf(folder: string): Sizes {
  const size = (file: string): number => statSync(join(folder, file), { throwIfNoEntry: false })?.size ?? 0;
  return { model: size(FILES.model), data: size(FILES.data) };
}

/** Writes an emitted model: weights go to one file beside it, and only inputs and outputs have types. */
export function writeEmitted(model: Model, file: string, options: Pick<WriteOptions, "written" | "signal"> = {}): Promise<WriteResult> {
  return writeModel(model, file, { ...options, external: {}, valueInfo: false });
}

/** Writes the networks that are joined to the run as they were read, for `verify` and `bench`; returns the digests of their files. */
async function writeCompanions({ network }: Job, folder: string, options: WriteOptions): Promise<ReadonlyMap<string, string>> {
  const digests = new Map<string, string>();
  for (const place of ["before", "after"] as const) {
    for (const [i, { file, read }] of network.companions[place].entries()) {
      if (file === undefined) continue;
      const written = await writeModel(read, join(folder, companionFile(place, i)), options);
      for (const [name, digest] of written.digests) digests.set(name, digest);
    }
  }
  return digests;
}

/** The job's recipe with everything that it refers to moved into the artifact: the step, the scheduler (inline), arrays (as files). */
async function portableRecipe({ source, run }: Job, partial: string): Promise<Recipe> {
  const { recipe } = source;
  let carried = 0;
  const carryFile = async (from: string): Promise<string> => {
    await mkdir(join(partial, FILES.inputs), { recursive: true });
    const file = `${FILES.inputs}/${carried++}.npy`;
    // What is no array is not carried out of where it is.
    await writeFile(join(partial, file), npyBytes(readNpy(fileOf(source, from))));
    return file;
  };
  const carry = async <T>(spec: T): Promise<T | string> => (typeof spec === "string" ? carryFile(spec) : spec);
  const inputs: Recipe["inputs"] = {};
  for (const [name, { fix, calibrate }] of Object.entries(recipe.inputs)) {
    inputs[name] = {
      ...(fix === undefined ? {} : { fix: fix === null ? null : await carry(fix) }),
      ...(typeof calibrate === "string" ? { calibrate: await carryFile(calibrate) } : {}),
      ...(Array.isArray(calibrate) ? { calibrate: await Promise.all(calibrate.map(carry)) } : {}),
    };
  }
  const uncond: Recipe["guidance"]["uncond"] = {};
  for (const [name, spec] of Object.entries(recipe.guidance.uncond)) uncond[name] = await carry(spec);
  const scheduler = z.record(z.string(), z.unknown()).parse(schedulerConfig(source));
  const companions = (place: "before" | "after"): Recipe["before"] =>
    recipe[place].map((spec, i) => (spec.model === undefined ? spec : { ...spec, model: companionFile(place, i) }));
  const joined = { before: companions("before"), after: companions("after") };
  return { ...recipe, ...joined, model: FILES.step, scheduler, batch: run.batch, inputs, guidance: { ...recipe.guidance, uncond } };
}

/** An artifact on disk, with the job and the plan that it was made from. */
export interface Artifact {
  readonly folder: string;
  readonly manifest: Manifest;
  readonly job: Job;
  readonly schedule: Schedule;
  /** The schedule, bound to the job. */
  readonly plan: Plan;
  /** The user's own files that it was opened with. */
  readonly extensions?: readonly string[] | undefined;
}

export interface ArtifactOptions extends RuntimeOptions, Pick<Artifact, "extensions"> {
  /** Whether to compare the files with their digests, all but those that only people read. Default: true. */
  readonly check?: boolean | undefined;
}

/** Opens an artifact and its step. Throws NOT_AN_ARTIFACT, ARTIFACT_DAMAGED and what reading models, recipes and plans throws. */
export async function openArtifact(folder: string, { extensions, check = true, ...runtime }: ArtifactOptions = {}): Promise<Artifact> {
  if (!existsSync(folder)) tidy(resolve(folder));
  if (check) await assertWhole(folder, (path) => path !== FILES.trace && path !== FILES.report);
  const manifest = readManifest(folder);
  const job = await openJob(folder, { extensions }, runtime);
  const schedule = readPlan(join(folder, FILES.plan));
  return { folder, manifest, job, schedule, plan: planFor(job, schedule), extensions };
}

/** The inputs of the artifact's model for one run. */
export function feedsOf(job: Job, { noise, draws, conditions }: RunInputs): Map<string, TensorData> {
  const shape = latentShape(job.run);
  // What encoders give is inside the artifact.
  const given = new Set([...givenBy(job.network.companions.before)].flatMap((value) => [value, uncondInput(value)]));
  const feeds = new Map([...conditions].filter(([name]) => !given.has(name)));
  feeds.set(ditView(job.model).latent, tensorFrom("float", shape, noise));
  if (draws) feeds.set(runPorts(job.run).noise, tensorFrom("float", [draws.length / noise.length, ...shape], draws));
  return feeds;
}

/** A loaded artifact. Its model needs nothing but its inputs. */
export class ArtifactSession {
  private constructor(private readonly session: Session) {}

  static async open(model: string, options: Omit<SessionOptions, "optimise">): Promise<ArtifactSession> {
    return new ArtifactSession(await Session.open(model, { ...AS_WRITTEN, ...options }));
  }

  /** The first output: the final latent, [batch, …latent], unless the run leaves it out. */
  async run(feeds: ReadonlyMap<string, TensorData>): Promise<Float32Array> {
    const [first] = (await this.outputs(feeds)).values();
    if (!first) throw new Error("internal: the artifact has no output");
    return Float32Array.from(tensorNumbers(first));
  }

  /** All outputs by name: the final latent, then what the networks behind the run make of it. */
  outputs(feeds: ReadonlyMap<string, TensorData>): Promise<Tensors> {
    return this.session.run(feeds);
  }

  close(): Promise<void> {
    return this.session.close();
  }
}
