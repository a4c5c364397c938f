/** What an artifact folder holds, and the manifest that says what it is. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { artifactDamaged, notAnArtifact, severalArtifacts } from "../words/index.js";
import { parseWith } from "../../schedules/index.js";
import { DEFAULT_FORM, forms, numberOf } from "../../passes/index.js";
import { damagesIn, type FolderKind, readJson } from "../files/index.js";
import { recipeSchema } from "../job/index.js";
import { variantsIn } from "./variants-file.js";

/** A size is a number, or `batch`, which each run chooses; of what comes out also a multiple of that (`2*batch`). */
const portSchema = z.strictObject({ name: z.string(), elem: z.string(), shape: z.array(z.union([z.int(), z.string()])) });

/**
 * What an input is. `latent`: what the run starts from. `noise`: what the sampler draws, [draws, …latent]. `original` and `mask`: of runs that
 * begin with a picture (`Original`). `condition`: all that networks read beside.
 */
const ROLES = ["latent", "noise", "guidance_scale", "original", "mask", "condition"] as const;

/**
 * `role`: absent in manifests of before. `draw`: what an input is filled with where nothing is said of it, drawn anew for every run; a latent has
 * it unless the run starts late, from a latent that is given.
 * `default`: what an input gets where nothing is said of it. It stands here, and not as an initializer of the model, which ONNX allows:
 * ONNX Runtime 1.30 does not list such inputs among the others. Its binding for Node drops what it is fed for them without a word, and
 * `io_binding`, which CUDA Graphs need, refuses it; only Python's `run` takes it.
 */
const inputSchema = portSchema.extend({
  role: z.enum(ROLES).optional(),
  draw: z.literal("unit normal").optional(),
  default: z.number().optional(),
});

export const MANIFEST_FORMAT = "smoothcc-artifact/";

const manifestSchema = z.strictObject({
  format: z.literal(`${MANIFEST_FORMAT}1`),
  smoothcc: z.string(),
  /**
   * What the artifact is of; those of its files are in SHA256SUMS. `structure`: of the step without its weights. `data`: of the weights,
   * absent where none is large enough for a file of its own.
   */
  digests: z.strictObject({ structure: z.string(), data: z.string().optional() }),
  form: z
    .string()
    .refine((name) => forms.has(name), { error: "names a form that is not known" })
    .default(DEFAULT_FORM),
  /**
   * The recipe of `step.onnx`, the exporter's one-step model, and of `step-2.onnx` and so on where the run calls several.
   * It is also written as `recipe.json`, so that an artifact can be opened as a MODEL.
   */
  recipe: recipeSchema,
  sampler: z.record(z.string(), z.unknown()),
  plan: z.record(z.string(), z.unknown()),
  /** A sampler may evaluate the network more than once a step: what plans count, and rows of the table, are evaluations. */
  steps: z.int(),
  evaluations: z.int(),
  inputs: z.array(inputSchema),
  outputs: z.array(portSchema),
  /**
   * The run in parts, each a model: `inputs` are inputs of the run and outputs of parts before, of the same name. `latent` is the one that
   * row `to` of the sampler's table sees, or the last.
   */
  segments: z
    .array(
      z.strictObject({
        ...{ model: z.string(), from: z.int(), to: z.int(), latent: z.string() },
        ...{ inputs: z.array(z.string()), outputs: z.array(z.string()) },
      }),
    )
    .default([]),
  nodes: z.strictObject({ step: z.int(), uncached: z.int(), emitted: z.int() }),
  macs: z.strictObject({ uncached: z.number(), emitted: z.number(), bound: z.number() }),
  cache: z.strictObject({ peakBytes: z.number() }),
  passes: z.array(z.strictObject({ name: z.string(), nodes: z.int() })),
  /** The session options to load the model with. */
  load: z.strictObject({ graphOptimizationLevel: z.string(), enableMemPattern: z.boolean() }),
});

export type Manifest = z.infer<typeof manifestSchema>;

export const FILES = {
  model: "model.onnx",
  data: "model.onnx.data",
  step: "step.onnx",
  manifest: "manifest.json",
  recipe: "recipe.json",
  inputs: "inputs",
  plan: "plan.json",
  tensors: "plan.npz",
  trace: "trace.json",
  report: "report.html",
} as const;

/** A size of an input or output at a batch. */
export function sizeAt(size: number | string, batch: number): number {
  return Number(numberOf(size, batch));
}

/** The exporter's step of a network, by its place in the run. */
export function stepFile(place: number): string {
  return place === 0 ? FILES.step : `step-${place + 1}.onnx`;
}

/** The file of a network that is joined to the run, as it was read: `before-0.onnx` is the first of those in front. */
export function companionFile(place: "before" | "after", index: number): string {
  return `${place}-${index}.onnx`;
}

/** The file of a part of the run; parts are counted from 1. */
export function segmentFile(index: number): string {
  return `segment-${index + 1}.onnx`;
}

/** The files of a folder that hold weights of its models. */
export function dataFilesIn(folder: string): readonly string[] {
  return readdirSync(folder).filter((name) => name.endsWith(".onnx.data"));
}

/** Reads an artifact's manifest. Throws NOT_AN_ARTIFACT, SEVERAL_ARTIFACTS, BAD_JSON, BAD_JSON_FIELD. */
export function readManifest(folder: string): Manifest {
  return parseWith(manifestSchema, readJson(manifestIn(folder)), manifestIn(folder));
}

function manifestIn(folder: string): string {
  const file = join(folder, FILES.manifest);
  if (existsSync(file)) return file;
  const variants = variantsIn(folder);
  throw variants && variants.length > 0 ? severalArtifacts(folder, variants) : notAnArtifact(folder);
}

/** What is wrong with the files of an artifact, all of them or those of some paths: a few words for each. Throws NOT_AN_ARTIFACT, SEVERAL_ARTIFACTS. */
export async function damagesOf(folder: string, isAsked?: (path: string) => boolean): Promise<readonly string[]> {
  manifestIn(folder);
  return damagesIn(folder, isAsked);
}

/** Throws NOT_AN_ARTIFACT, and ARTIFACT_DAMAGED if files are not what their digests say. */
export async function assertWhole(folder: string, isAsked?: (path: string) => boolean): Promise<void> {
  const damages = await damagesOf(folder, isAsked);
  if (damages.length > 0) throw artifactDamaged(folder, damages);
}

export const ARTIFACT: FolderKind = {
  called: "an artifact",
  file: FILES.manifest,
  text: `"${MANIFEST_FORMAT}`,
};
