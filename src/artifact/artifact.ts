/** The artifact folder: the emitted model, the step that it was made from, and the manifest. */
import { existsSync, statSync } from "node:fs";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { elemOf } from "../../ir/build.js";
import { ditView, type Model, type Value } from "../../ir/graph.js";
import { SharedData, writeModel, type WriteOptions, type WriteResult } from "../../ir/onnx/index.js";
import { type TensorData, tensorFrom, tensorNumbers } from "../../ir/tensor.js";
import { givenBy, latentShape, type Plan, runPorts, scaleInput, type Schedule, stopName, uncondInput } from "../../schedules/index.js";
import type { Compiled } from "../compile/index.js";
import { assertUnchanged, jsonText, linked, npyBytes, readNpy, replaceFolder, tidy, writeSums } from "../files/index.js";
import {
  allNetworks,
  fileOf,
  type Job,
  openJob,
  planFor,
  readPlan,
  type Recipe,
  type RunInputs,
  schedulerConfig,
  withBatch,
  writePlan,
} from "../job/index.js";
import { badOption } from "../../schedules/diagnostics.js";
import { AS_WRITTEN, type RuntimeOptions, Session, type SessionOptions, type Tensors } from "../runtime/index.js";
import type { Trace } from "../calibration/index.js";
import { METADATA_PREFIX, VERSION } from "../words/index.js";
import {
  ARTIFACT,
  assertWhole,
  companionFile,
  FILES,
  MANIFEST_FORMAT,
  type Manifest,
  readManifest,
  segmentFile,
  stepFile,
} from "./manifest.js";

/** The contents of an artifact. */
export interface ArtifactContents {
  readonly job: Job;
  readonly schedule: Schedule;
  readonly compiled: Compiled;
  readonly trace?: Trace | undefined;
}

/** Writes an artifact completely or not at all; returns the sizes of the emitted model. Throws what `prepareFolder` throws. */
export function writeArtifact(folder: string, contents: ArtifactContents, force: boolean, signal?: AbortSignal): Promise<Sizes> {
  return replaceFolder(folder, ARTIFACT, force, async (partial) => {
    const data = new SharedData(partial, false);
    await storeEmitted(contents, data, signal);
    await storeOthers(contents, data, signal);
    return fillArtifact(partial, contents, data, signal);
  });
}

/** Bytes of the emitted model and of its weights. */
export interface Sizes {
  readonly model: number;
  readonly data: number;
}

/** Writes the constants of the emitted model. It reads one data file: of artifacts that share it, the models come before all else. */
export function storeEmitted({ compiled }: Pick<ArtifactContents, "compiled">, data: SharedData, signal?: AbortSignal): Promise<void> {
  return data.add(compiled.model, FILES.data, signal);
}

/** Writes the constants of the other models of an artifact. */
export async function storeOthers(
  contents: Pick<ArtifactContents, "job" | "compiled">,
  data: SharedData,
  signal?: AbortSignal,
): Promise<void> {
  for (const [file, model] of [...segmentFiles(contents.compiled), ...exportedFiles(contents.job)])
    await data.add(model, `${file}.data`, signal);
}

/** What was compiled, with constants that are in the data files left there, so that what several artifacts hold in memory is their graphs. */
export function leftOnDisk(compiled: Compiled, data: SharedData): Compiled {
  return {
    ...compiled,
    model: data.onDisk(compiled.model),
    uncached: data.onDisk(compiled.uncached),
    segments: compiled.segments.map((segment) => ({ ...segment, model: data.onDisk(segment.model) })),
  };
}

/**
 * Writes the files of an artifact into a folder; returns the sizes of the emitted model. The constants of its models have been written; a
 * data file that lies in another folder becomes a hard link, or a copy where the file system has none.
 */
export async function fillArtifact(
  folder: string,
  { job, schedule, compiled, trace }: ArtifactContents,
  shared: SharedData,
  signal?: AbortSignal,
): Promise<Sizes> {
  const { structure } = job.run.of;
  const recipe = await portableRecipe(job, folder);
  const plan = await writePlan(join(folder, FILES.plan), { ...schedule, of: job.run.of }, false);
  const { written } = shared;
  const dataDigests = shared.digests();
  const data = dataDigests.get(FILES.data);
  const digests = { structure, ...(data !== undefined && { data: `sha256:${data}` }) };
  const metadata = { version: VERSION, ...digests, plan: JSON.stringify(plan) };
  const labelled = new Map(Object.entries(metadata).map(([key, value]) => [`${METADATA_PREFIX}${key}`, value]));
  const models: WriteResult[] = [];
  for (const [file, model] of [[FILES.model, compiled.model] as const, ...segmentFiles(compiled)])
    models.push(await writeEmitted({ ...model, metadata: labelled }, join(folder, file), { written, signal }));
  for (const [file, read] of exportedFiles(job)) models.push(await writeModel(read, join(folder, file), { written, signal }));
  const dataFiles = new Set(models.flatMap(({ reads }) => [...reads]));
  for (const name of dataFiles) await placeData(shared.pathOf(name), resolve(folder, name));
  assertUnchanged(job.network.files);
  const { form, nodes, macs, memory, passes, model } = compiled;
  const port = (name: string, value: Value): Manifest["outputs"][number] => ({ name, elem: elemOf(value), shape: [...sizesOfPort(value)] });
  const facts = inputFacts(job);
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
    inputs: model.graph.inputs.map((value) => ({ ...port(value.name, value), ...(facts.get(value.name) ?? CONDITION) })),
    outputs: model.graph.outputs.map(({ name, value }) => port(name, value)),
    segments: compiled.segments.map(({ model: { graph }, from, to }, i) => ({
      ...{ model: segmentFile(i), from, to, latent: to < job.run.rows.length ? stopName(to) : runPorts(job.run).latent },
      inputs: graph.inputs.map(({ name }) => name),
      outputs: graph.outputs.map(({ name }) => name),
    })),
    nodes: { ...nodes },
    macs: { ...macs },
    cache: { peakBytes: memory.cache },
    passes: passes.map(({ name, nodes: count }) => ({ name, nodes: count })),
    load: { graphOptimizationLevel: "disabled", enableMemPattern: false },
  };
  await writeFile(join(folder, FILES.recipe), jsonText(recipe));
  if (trace) await writeFile(join(folder, FILES.trace), jsonText(trace));
  await writeFile(join(folder, FILES.manifest), jsonText(manifest));
  await writeSums(folder, new Map([...models.flatMap(({ digests }) => [...digests]), ...dataDigests]));
  return sizesOf(folder);
}

async function placeData(file: string, target: string): Promise<void> {
  if (file !== target && !(await linked(file, target))) await copyFile(file, target);
}

/** The sizes of an input or output of a run, the name of the batch among them. */
export function sizesOfPort({ name, type }: Value): readonly (number | string)[] {
  return (type?.shape ?? []).map((size) => {
    if (size === null) throw new Error(`internal: '${name}' has a size without a name`);
    return size;
  });
}

type InputFacts = Pick<Manifest["inputs"][number], "role" | "draw" | "default">;

const CONDITION: InputFacts = { role: "condition" };

/** What the inputs of a run are, by name, and what they get where nothing is said of them; all others are conditions. */
function inputFacts({ run, model, skipped }: Job): ReadonlyMap<string, InputFacts> {
  const drawn = { draw: "unit normal" } as const;
  const { scale } = run.guidance;
  const { image, mask } = run.original ?? {};
  const facts: readonly (readonly [name: string | undefined, InputFacts])[] = [
    [ditView(model).latent, { role: "latent", ...(!skipped && drawn) }],
    [runPorts(run).noise, { role: "noise", ...drawn }],
    [scaleInput(run)?.name, { role: "guidance_scale", ...(typeof scale === "number" && { default: scale }) }],
    [image?.name, { role: "original" }],
    [mask?.name, { role: "mask" }],
  ];
  return new Map(facts.flatMap(([name, own]) => (name === undefined ? [] : [[name, own]])));
}

export function sizesOf(folder: string): Sizes {
  const size = (file: string): number => statSync(join(folder, file), { throwIfNoEntry: false })?.size ?? 0;
  return { model: size(FILES.model), data: size(FILES.data) };
}

/** Writes an emitted model: weights go to one file beside it, and only inputs and outputs have types. */
export function writeEmitted(model: Model, file: string, options: Pick<WriteOptions, "written" | "signal"> = {}): Promise<WriteResult> {
  return writeModel(model, file, { ...options, external: {}, valueInfo: false });
}

/** The parts of the run, by the name of their file in an artifact. */
function segmentFiles({ segments }: Compiled): readonly (readonly [file: string, model: Model])[] {
  return segments.map(({ model }, i) => [segmentFile(i), model]);
}

/** The networks as they were read, steps and companions, by the name of their file in an artifact: `verify` and `bench` run them. */
function exportedFiles({ network }: Job): readonly (readonly [file: string, read: Model])[] {
  const steps = allNetworks(network).map(({ read }, place) => [stepFile(place), read] as const);
  const companions = (["before", "after"] as const).flatMap((place) =>
    network.companions[place].flatMap(({ file, read }, i) => (file === undefined ? [] : [[companionFile(place, i), read] as const])),
  );
  return [...steps, ...companions];
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
  for (const [name, { fix, calibrate, perStep }] of Object.entries(recipe.inputs)) {
    inputs[name] = {
      ...(perStep === undefined ? {} : { perStep: await carry(perStep) }),
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
  const others = {
    networks: recipe.networks.map((own, i) => ({ ...own, model: stepFile(i + 1) })),
    before: companions("before"),
    after: companions("after"),
  };
  return { ...recipe, ...others, model: FILES.step, scheduler, batch: run.batch, inputs, guidance: { ...recipe.guidance, uncond } };
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
  const job = atBuiltScale(await openJob(folder, { extensions }, runtime));
  const schedule = readPlan(join(folder, FILES.plan));
  return { folder, manifest, job, schedule, plan: planFor(job, schedule), extensions };
}

/** The artifact's job at another batch, which it is made for (`Run.anyBatch`). Throws BAD_OPTION where it is not. */
export async function jobAtBatch({ job }: Pick<Artifact, "job">, batch: number, runtime: RuntimeOptions = {}): Promise<Job> {
  if (batch === job.run.batch) return job;
  if (!job.run.anyBatch)
    throw badOption("--batch", `is for artifacts of any batch: this one is of ${job.run.batch}; build with --runtime batch`);
  return atBuiltScale(await withBatch(job, batch, runtime));
}

/** The job as its artifact is run: where no scale is given at that of the build, as the manifest says, and not at those of the calibration. */
function atBuiltScale(job: Job): Job {
  const { source } = job;
  const scale = scaleInput(job.run)?.name;
  const inputs = Object.fromEntries(Object.entries(source.recipe.inputs).filter(([name]) => name !== scale));
  return { ...job, source: { ...source, recipe: { ...source.recipe, inputs } } };
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

/** Told after each part of a run: the rows that are done, of how many, and the latent so far, [batch, …latent]. */
export type OnSegment = (done: number, rows: number, latent: TensorData) => void;

/**
 * Plays the parts of a run one after the other, with one of them in memory at a time. Returns the outputs of the run. Throws CANCELLED
 * between parts, and what running them throws.
 */
export async function runSegments(
  folder: string,
  { segments, outputs, evaluations }: Pick<Manifest, "segments" | "outputs" | "evaluations">,
  feeds: Tensors,
  { onSegment, ...options }: RuntimeOptions & { readonly onSegment?: OnSegment | undefined } = {},
): Promise<Tensors> {
  const values = new Map(feeds);
  for (const [i, { model, inputs, to, latent }] of segments.entries()) {
    const session = await Session.open(join(folder, model), { ...AS_WRITTEN, ...options });
    const own = new Map([...values].filter(([name]) => inputs.includes(name)));
    const results = await session.run(own).finally(() => session.close());
    for (const [name, data] of results) values.set(name, data);
    const state = values.get(latent);
    if (state) onSegment?.(to, evaluations, state);
    const needed = new Set([...segments.slice(i + 1).flatMap((later) => later.inputs), ...outputs.map(({ name }) => name)]);
    for (const name of values.keys()) if (!needed.has(name)) values.delete(name);
  }
  return new Map(outputs.map(({ name }) => [name, required(values.get(name))]));
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("internal: the artifact lacks an output");
  return value;
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
