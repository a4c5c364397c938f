/** The artifact folder: the emitted model, the step that it came from, and the manifest that says what they are. */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { copyFile, link, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { z } from "zod";
import { elemOf, shapeOf } from "../ir/build.js";
import { fileExists, fileMissing, notAnArtifact, notReplaceable } from "../ir/diagnostics.js";
import { structureDigest } from "../ir/digest.js";
import { ditView, type Model, type Value } from "../ir/graph.js";
import { readModel, writeModel, WrittenData, type WriteOptions, type WriteResult } from "../ir/onnx/index.js";
import { tensorFrom, tensorNumbers, type TensorData } from "../ir/tensor.js";
import { parseWith, type Plan, type Schedule } from "../schedules/index.js";
import { FORMS, type Compiled } from "./compile.js";
import { assertWritable, behindLinks, jsonText, makeFolder, notWritten, readJson } from "./files.js";
import { latentShape } from "./bound-model.js";
import { openJob, planFor, type Job } from "./job.js";
import { readPlan, writePlan } from "./plan-file.js";
import { recipeSchema, schedulerConfig, type Recipe } from "./recipe.js";
import type { RunInputs } from "./run-inputs.js";
import { Session, type RuntimeOptions, type SessionOptions } from "./runtime.js";
import type { Trace } from "./trace.js";
import { METADATA_PREFIX, VERSION } from "./version.js";

const portSchema = z.strictObject({ name: z.string(), elem: z.string(), shape: z.array(z.int()) });

const FORMAT = "smoothcc-artifact/";

const manifestSchema = z.strictObject({
  format: z.literal(`${FORMAT}1`),
  smoothcc: z.string(),
  /** `data` is absent where no weight is large enough for a file of its own, `tensors` where the plan has none. */
  digests: z.strictObject({ structure: z.string(), model: z.string(), data: z.string().optional(), tensors: z.string().optional() }),
  form: z.enum(FORMS).default("unrolled"),
  /** Of `step.onnx`, the exporter's one-step model; also as `recipe.json`, so that an artifact is itself a MODEL. */
  recipe: recipeSchema,
  sampler: z.record(z.string(), z.unknown()),
  plan: z.record(z.string(), z.unknown()),
  /** A sampler may evaluate the network more than once a step: what plans count, and rows of the table, are evaluations. */
  steps: z.int(),
  evaluations: z.int(),
  inputs: z.array(portSchema),
  outputs: z.array(portSchema),
  nodes: z.strictObject({ step: z.int(), uncached: z.int(), emitted: z.int() }),
  macs: z.strictObject({ uncached: z.number(), emitted: z.number(), bound: z.number() }),
  cache: z.strictObject({ peakBytes: z.number() }),
  passes: z.array(z.strictObject({ name: z.string(), nodes: z.int() })),
  /** How the model wants to be loaded. */
  load: z.strictObject({ graphOptimizationLevel: z.string(), enableMemPattern: z.boolean() }),
});

export type Manifest = z.infer<typeof manifestSchema>;

export const FILES = {
  model: "model.onnx",
  data: "model.onnx.data",
  step: "step.onnx",
  stepData: "step.onnx.data",
  manifest: "manifest.json",
  recipe: "recipe.json",
  inputs: "inputs",
  plan: "plan.json",
  tensors: "plan.npz",
  trace: "trace.json",
  report: "report.html",
} as const;

/** Reads an artifact's manifest. Throws NOT_AN_ARTIFACT, BAD_JSON, BAD_JSON_FIELD. */
export function readManifest(folder: string): Manifest {
  const file = join(folder, FILES.manifest);
  if (!existsSync(file)) throw notAnArtifact(folder);
  return parseWith(manifestSchema, readJson(file), file);
}

/** How a folder that we wrote is known: it has no other entries than these, and this text in this file. */
export interface FolderKind {
  readonly called: string;
  readonly entries: readonly string[];
  readonly file: string;
  readonly text: string;
}

const ARTIFACT: FolderKind = { called: "an artifact", entries: Object.values(FILES), file: FILES.manifest, text: `"${FORMAT}` };

/**
 * Runs `fill` on a new folder beside `folder` and renames it into place: what is written is there whole or not at all.
 * Throws what `assertReplaceable` throws.
 */
export async function replaceFolder<T>(
  folder: string,
  force: boolean,
  fill: (partial: string) => Promise<T>,
  kind: FolderKind = ARTIFACT,
): Promise<T> {
  const target = behindLinks(folder);
  assertReplaceable(target, force, kind);
  const partial = join(dirname(target), `.${basename(target)}.${randomUUID()}.partial`);
  try {
    await makeFolder(partial);
    const filled = await fill(partial);
    await rm(target, { recursive: true, force: true });
    await rename(partial, target);
    return filled;
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw notWritten(folder, error);
  }
}

/**
 * Throws where `replaceFolder` would, before any work is done: FILE_EXISTS if something is there and `force` is not set,
 * NOT_REPLACEABLE if it is not of the kind or holds other files too (only what we wrote is ours to delete), FILE_NOT_WRITTEN.
 */
export function assertReplaceable(folder: string, force: boolean, { called, entries: ours, file, text }: FolderKind = ARTIFACT): void {
  assertWritable(folder);
  const there = statSync(folder, { throwIfNoEntry: false });
  if (!there) return;
  if (!there.isDirectory()) throw force ? notReplaceable(folder, "it is a file") : fileExists(folder);
  const entries = readdirSync(folder);
  if (entries.length === 0) return;
  if (!force) throw fileExists(folder);
  const foreign = entries.find((entry) => !ours.includes(entry));
  if (foreign !== undefined) throw notReplaceable(folder, `'${foreign}' is not of ${called}`);
  const signed = join(folder, file);
  if (!existsSync(signed) || !readFileSync(signed, "utf8").includes(text)) throw notReplaceable(folder, `it is not ${called}`);
}

/** What an artifact is written from. */
export interface ArtifactContents {
  readonly job: Job;
  readonly schedule: Schedule;
  readonly compiled: Compiled;
  readonly trace?: Trace | undefined;
}

/** Writes an artifact, whole or not at all; answers with the sizes of the emitted model. Throws what `assertReplaceable` throws. */
export function writeArtifact(folder: string, contents: ArtifactContents, force: boolean, signal?: AbortSignal): Promise<Sizes> {
  return replaceFolder(folder, force, (partial) => fillArtifact(partial, contents, signal));
}

/** Bytes of the emitted model and of its weights. */
export interface Sizes {
  readonly model: number;
  readonly data: number;
}

/** Writes the files of an artifact into a folder. */
export async function fillArtifact(
  folder: string,
  { job, schedule, compiled, trace }: ArtifactContents,
  signal?: AbortSignal,
): Promise<Sizes> {
  const structure = structureDigest(job.model);
  const recipe = await portableRecipe(job, folder);
  const plan = await writePlan(join(folder, FILES.plan), schedule, false);
  const tensors = "tensors" in plan ? { tensors: await fileDigest(join(folder, FILES.tensors)) } : {};
  const written = new WrittenData();
  const file = join(folder, FILES.model);
  const { dataFile } = await writeEmitted(compiled.model, file, { written, signal });
  const data = dataFile === undefined ? {} : { data: await fileDigest(dataFile) };
  const metadata = { version: VERSION, structure, ...data, ...tensors, plan: JSON.stringify(plan) };
  const labelled = new Map(Object.entries(metadata).map(([key, value]) => [`${METADATA_PREFIX}${key}`, value]));
  // The weights are there already: this writes the model again, with what is known only now.
  await writeEmitted({ ...compiled.model, metadata: labelled }, file, { written, signal });
  await writeModel(await readModel(job.source.modelFile), join(folder, FILES.step), { written, signal });
  const { form, nodes, macs, memory, passes, model } = compiled;
  const port = (name: string, value: Value): Manifest["inputs"][number] => ({ name, elem: elemOf(value), shape: [...shapeOf(value)] });
  const manifest: Manifest = {
    format: `${FORMAT}1`,
    smoothcc: VERSION,
    digests: { structure, model: await fileDigest(file), ...data, ...tensors },
    form,
    recipe,
    sampler: { ...job.table },
    plan,
    steps: job.steps,
    evaluations: job.table.rows.length,
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
  return sizesOf(folder);
}

/**
 * Makes files of weights that are the same in another artifact one file on disk, where the system can (hard links); an artifact
 * is whole by itself all the same. Answers whether the emitted model's now are.
 */
export async function shareWeights(folder: string, others: readonly string[]): Promise<boolean> {
  const shared = new Set<string>();
  for (const name of [FILES.data, FILES.stepData]) {
    const file = join(folder, name);
    for (const other of others.map((other) => join(other, name))) {
      if (shared.has(name) || !existsSync(file) || !existsSync(other) || (await fileDigest(file)) !== (await fileDigest(other))) continue;
      const partial = `${file}.partial`;
      if (!(await linked(other, partial))) continue;
      await rename(partial, file);
      shared.add(name);
    }
  }
  return shared.has(FILES.data);
}

/** Gives a file another name, where the system can: not every file system has hard links, and none across disks. */
export async function linked(file: string, name: string): Promise<boolean> {
  try {
    await link(file, name);
    return true;
  } catch {
    return false;
  }
}

export function sizesOf(folder: string): Sizes {
  const size = (file: string): number => statSync(join(folder, file), { throwIfNoEntry: false })?.size ?? 0;
  return { model: size(FILES.model), data: size(FILES.data) };
}

/** Writes a model as it is emitted: weights in one file beside it, types at the interface only. */
export function writeEmitted(model: Model, file: string, options: Pick<WriteOptions, "written" | "signal"> = {}): Promise<WriteResult> {
  return writeModel(model, file, { ...options, external: {}, valueInfo: false });
}

/** The job's recipe with everything that it refers to inside the artifact: the step, the scheduler inline, arrays as files. */
async function portableRecipe({ source, context }: Job, partial: string): Promise<Recipe> {
  const { recipe, folder } = source;
  let carried = 0;
  const carryFile = async (from: string): Promise<string> => {
    await mkdir(join(partial, FILES.inputs), { recursive: true });
    const file = `${FILES.inputs}/${carried++}.npy`;
    await copyFile(resolve(folder, from), join(partial, file));
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
  return { ...recipe, model: FILES.step, scheduler, batch: context.batch, inputs, guidance: { ...recipe.guidance, uncond } };
}

/** Of a file's bytes, as `sha256:<hex>`. */
export async function fileDigest(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return `sha256:${hash.digest("hex")}`;
}

/** An artifact on disk, with the job and the plan that it was made of. */
export interface Artifact {
  readonly folder: string;
  readonly manifest: Manifest;
  readonly job: Job;
  readonly schedule: Schedule;
  /** The schedule, bound to the job. */
  readonly plan: Plan;
  /** Files of the user's own that it was opened with. */
  readonly extensions?: readonly string[] | undefined;
}

export type ArtifactOptions = RuntimeOptions & Pick<Artifact, "extensions">;

/** Opens an artifact and its step. Throws NOT_AN_ARTIFACT, FILE_MISSING and what reading models, recipes and plans throws. */
export async function openArtifact(folder: string, { extensions, ...runtime }: ArtifactOptions): Promise<Artifact> {
  const manifest = readManifest(folder);
  const model = join(folder, FILES.model);
  if (!existsSync(model)) throw fileMissing(model, "The artifact is not whole.");
  const job = await openJob(folder, { extensions }, runtime);
  const schedule = readPlan(join(folder, FILES.plan));
  return { folder, manifest, job, schedule, plan: planFor(job, schedule), extensions };
}

/** What the artifact's model is given for one run. */
export function feedsOf(job: Job, { noise, draws, conditions }: RunInputs): Map<string, TensorData> {
  const shape = latentShape(job);
  const feeds = new Map(conditions);
  feeds.set(ditView(job.model).latent, tensorFrom("float", shape, noise));
  if (draws) feeds.set("noise", tensorFrom("float", [draws.length / noise.length, ...shape], draws));
  return feeds;
}

/** A loaded artifact. Its model needs nothing but its inputs. */
export class ArtifactSession {
  private constructor(private readonly session: Session) {}

  static async open(model: string, options: Omit<SessionOptions, "optimise">): Promise<ArtifactSession> {
    return new ArtifactSession(await Session.open(model, { ...options, optimise: "disabled" }));
  }

  /** The final latent, [batch, …latent]. */
  async run(feeds: ReadonlyMap<string, TensorData>): Promise<Float32Array> {
    const latent = (await this.session.run(feeds)).get("latent");
    if (!latent) throw new Error("internal: the artifact has no output 'latent'");
    return Float32Array.from(tensorNumbers(latent));
  }

  close(): Promise<void> {
    return this.session.close();
  }
}
