/** The known pipelines of diffusers, and the way from a folder that it saves to a recipe. */
import { existsSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { badSize, unknownPipeline, unsupportedPipeline } from "../../words/index.js";
import { readModel } from "../../../ir/onnx/index.js";
import { entryAt } from "../../../ir/entries.js";
import { hasMethods, loadFolder } from "../../../ir/registry.js";
import type { Dim } from "../../../ir/types.js";
import { ORIGINAL_INPUTS, parseWith } from "../../../schedules/index.js";
import { readJson } from "../../files/index.js";
import { valuesOf } from "../glue.js";
import type { FolderConfigs, GridRule, Pipeline, PipelineFacts } from "../pipeline.js";
import { type CompanionFacts, type InputSpecs, isInput, type RecipeFacts } from "../recipe.js";

function isPipeline(candidate: unknown): candidate is Pipeline {
  return hasMethods(candidate, "recipe") && "pipelines" in candidate && "transformers" in candidate && "config" in candidate;
}

/** By file stem, in alphabetical order. */
export const pipelines: ReadonlyMap<string, Pipeline> = await loadFolder(import.meta.url, isPipeline);

const INDEX = "model_index.json";
const MODEL = "transformer/model.onnx";
const TRANSFORMER = "transformer/config.json";
const SCHEDULER = "scheduler/scheduler_config.json";
const DECODER = "vae_decoder/model.onnx";
/** optimum writes the same beside the decoder. */
const VAE = ["vae/config.json", "vae_decoder/config.json"];

/** The names that diffusers' networks give to their latent and their time. */
const PORTS = { latent: "hidden_states", timestep: "timestep" };

/** The file that says that it is a folder as diffusers saves a pipeline; undefined if it is none. */
export function pipelineFile(folder: string): string | undefined {
  return [INDEX, TRANSFORMER].map((file) => join(folder, file)).find((file) => existsSync(file));
}

/** What the command line says: sizes of symbolic dimensions, values of inputs. */
interface GivenFacts {
  readonly dims?: ReadonlyMap<string, number> | undefined;
  readonly inputs?: InputSpecs | undefined;
  /** The first step that is run. */
  readonly start?: number | undefined;
  /** Height and width in pixels. */
  readonly size?: readonly number[] | undefined;
  /** Whether some of a picture is kept. */
  readonly inpaint?: boolean | undefined;
}

/**
 * The recipe of a diffusers folder: the settings of its pipeline class, and the arrays in the folder as
 * `calibrate/<input>.npy`, `uncond/<input>.npy` and `fix/<input>.npy`. `dims` and `inputs` are those of the command line.
 * Throws FILE_MISSING, BAD_JSON, BAD_JSON_FIELD, UNKNOWN_PIPELINE, UNSUPPORTED_PIPELINE, and what reading the decoder throws.
 */
export async function deriveRecipe(folder: string, given: GivenFacts = {}): Promise<RecipeFacts> {
  const read = (file: string): unknown => (isIn(folder, file) ? readJson(join(folder, file)) : {});
  const declared = await declaredIn(folder, given.dims);
  const configOf = (network: string): unknown => read(`${network}/config.json`);
  const [vae] = VAE.filter((file) => isIn(folder, file));
  const configs: FolderConfigs = {
    index: read(INDEX),
    scheduler: read(SCHEDULER),
    transformer: readJson(join(folder, TRANSFORMER)),
    vae: vae === undefined ? {} : read(vae),
    text_encoder: configOf("text_encoder"),
    text_encoder_2: configOf("text_encoder_2"),
    text_encoder_3: configOf("text_encoder_3"),
    shapes: declared.shapes,
  };
  const { className, pipeline } = pipelineOf(classOf(configs.index), classOf(configs.transformer), folder);
  const config = parseWith(pipeline.config, configs, folder);
  const sized = given.size && gridFor(given.size, className, pipeline.grid?.(config), declared.latent);
  const made = pipeline.recipe(config, sized?.grid);
  const found = sized && !("reason" in made) ? { ...made, dims: { ...made.dims, ...sized.dims } } : made;
  if (!("reason" in found)) return recipeOf(folder, found, given);
  const nearest = JSON.stringify(recipeOf(folder, found.nearest, given));
  throw unsupportedPipeline(className, found.reason, found.instead, nearest, folder);
}

function isIn(folder: string, file: string): boolean {
  return existsSync(join(folder, file));
}

function recipeOf(
  folder: string,
  { original = [], mask = [], ...facts }: PipelineFacts,
  { inputs: values = new Map(), start = 0, inpaint = false }: GivenFacts,
): RecipeFacts {
  const inputs = { ...facts.inputs };
  for (const [name, file] of arraysIn(folder, "calibrate")) inputs[name] = { ...inputs[name], calibrate: file };
  for (const [name, file] of arraysIn(folder, "fix")) inputs[name] = { ...inputs[name], fix: file };
  const { guidance = { form: "none" }, before = [], after = [] } = facts;
  const areThere = (specs: readonly CompanionFacts[]): boolean => specs.every(({ model }) => model === undefined || isIn(folder, model));
  // Embeddings that are given stand for the encoders that would make them.
  const made = new Set(before.flatMap(valuesOf));
  const given = [...values.keys(), ...PLACES.flatMap((place) => arraysIn(folder, place)).map(([name]) => name)];
  const encodes = areThere(before) && !given.some((name) => made.has(name));
  // The negative prompt is one of encoders; what they make of it is not for the recipe to say.
  const uncond = Object.entries(guidance.uncond ?? {}).filter(([name, spec]) => (isInput(spec) ? encodes : !(encodes && made.has(name))));
  const isMade = (name: string, by: readonly CompanionFacts[]): boolean => by.length > 0 && areThere(by) && !given.includes(name);
  const starts = (start > 0 || inpaint) && isMade(ORIGINAL_INPUTS.image, original);
  const masks = inpaint && starts && isMade(ORIGINAL_INPUTS.mask, mask);
  const taken = areThere(after) && VAE.some((file) => isIn(folder, file)) ? after : [];
  return {
    ...displayOf(taken),
    ...PORTS,
    ...(isIn(folder, SCHEDULER) ? { scheduler: SCHEDULER } : {}),
    ...facts,
    model: MODEL,
    guidance: { ...guidance, uncond: Object.fromEntries([...uncond, ...arraysIn(folder, "uncond")]) },
    inputs,
    before: [...(encodes ? before : []), ...(starts ? original : []), ...(masks ? mask : [])],
    ...(starts && { image: true, inputs: { ...POSTERIOR_MEAN, ...inputs } }),
    after: taken,
  };
}

/** How the result of a decoder is shown: its name says what it is. */
function displayOf(after: readonly CompanionFacts[]): Pick<RecipeFacts, "display"> {
  const results = after.flatMap(valuesOf);
  const kind = (["image", "video", "audio"] as const).find((name) => results.includes(name));
  return kind ? { display: { kind } } : {};
}

/** Of what an encoder tells of a latent, the mean: nothing is drawn unless the user says so. */
const POSTERIOR_MEAN = { vae_noise: { fix: 0 } };

const PLACES = ["calibrate", "uncond", "fix"] as const;

/** The shapes of what transformer and decoder take, as their files declare them, and that of the latent with the names of what is open. */
async function declaredIn(
  folder: string,
  dims: ReadonlyMap<string, number> = new Map(),
): Promise<{ readonly shapes: FolderConfigs["shapes"]; readonly latent: readonly Dim[] }> {
  const shapes: Record<string, readonly (number | null)[]> = {};
  let latent: readonly Dim[] = [];
  for (const file of [MODEL, DECODER].filter((file) => isIn(folder, file))) {
    const { graph } = await readModel(join(folder, file));
    for (const { name, type } of graph.inputs) {
      const shape = type?.shape ?? [];
      shapes[`${dirname(file)}/${name}`] = shape.map((dim) => (typeof dim === "string" ? (dims.get(dim) ?? null) : dim));
      if (file === MODEL && name === PORTS.latent) latent = shape;
    }
  }
  return { shapes, latent };
}

/**
 * Height and width of the latent's grid for a size in pixels, and the sizes of the symbolic dimensions that follow from it. Throws BAD_SIZE
 * where the pipeline does not say what pixels are of its latent, where they are no whole tokens, and where the export has another size.
 */
function gridFor(
  size: readonly number[],
  className: string,
  rule: GridRule | undefined,
  latent: readonly Dim[],
): { readonly grid: readonly number[]; readonly dims: Readonly<Record<string, number>> } {
  if (!rule)
    throw badSize(
      size,
      `what they decide in a ${className} is not known here`,
      "Name the sizes of its symbolic dimensions, as --dim height=64; smoothcc inspect lists its inputs.",
    );
  const { pixels, patch, isPacked = false } = rule;
  const unit = pixels * patch;
  if (size.some((side) => side % unit !== 0)) {
    const near = size.map((side) => Math.max(1, Math.round(side / unit)) * unit);
    throw badSize(
      size,
      `one token of its network is ${unit} by ${unit} pixels`,
      `Sizes are multiples of ${unit}; the nearest is ${near.join("x")}.`,
    );
  }
  const grid = size.map((side) => side / pixels);
  const sides = isPacked ? [grid.reduce((tokens, side) => tokens * (side / patch), 1)] : grid;
  const axes = isPacked ? [1] : [latent.length - 2, latent.length - 1];
  const dims: Record<string, number> = {};
  for (const [i, axis] of axes.entries()) {
    const [dim, side] = [latent[axis] ?? null, entryAt(sides, i)];
    if (typeof dim === "string") dims[dim] = side;
    if (dim === side || (typeof dim === "string" && dims[dim] === side)) continue;
    throw badSize(
      size,
      `the export is for latents of [${latent.map((dim) => dim ?? "?").join(", ")}], where they are ${sides.join(" by ")} of axes ${axes.join(" and ")}`,
      "Export the network with symbolic sizes, or once for each size; smoothcc inspect lists its inputs.",
    );
  }
  return { grid, dims };
}

/**
 * The entry of a folder, by its pipeline class if that is named, as several pipelines use the same network.
 * optimum prefixes the class with ORT.
 */
function pipelineOf(
  index: string | undefined,
  transformer: string | undefined,
  folder: string,
): { readonly className: string; readonly pipeline: Pipeline } {
  const all = [...pipelines.values()];
  const className = index?.replace(/^ORT/, "") ?? transformer ?? "(none)";
  const classes = (entry: Pipeline): readonly string[] => (index === undefined ? entry.transformers : entry.pipelines);
  const pipeline = all.find((entry) => classes(entry).includes(className));
  if (!pipeline) throw unknownPipeline(className, all.flatMap(classes), folder);
  return { className, pipeline };
}

function classOf(config: unknown): string | undefined {
  return z.object({ _class_name: z.string() }).safeParse(config).data?._class_name;
}

/** Input names and files, relative to the folder. */
function arraysIn(folder: string, place: string): readonly (readonly [name: string, file: string])[] {
  if (!existsSync(join(folder, place))) return [];
  const files = readdirSync(join(folder, place)).sort();
  return files.filter((file) => file.endsWith(".npy")).map((file) => [basename(file, ".npy"), `${place}/${file}`]);
}
