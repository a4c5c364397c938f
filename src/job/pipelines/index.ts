/** The known pipelines of diffusers, and the way from a folder that it saves to a recipe. */
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { z } from "zod";
import { unknownPipeline, unsupportedPipeline } from "../../words/index.js";
import { hasMethods, loadFolder } from "../../../ir/registry.js";
import { parseWith } from "../../../schedules/index.js";
import { readJson } from "../../files/index.js";
import type { FolderConfigs, Pipeline, PipelineFacts } from "../pipeline.js";
import type { CompanionFacts, RecipeFacts } from "../recipe.js";

function isPipeline(candidate: unknown): candidate is Pipeline {
  return hasMethods(candidate, "recipe") && "pipelines" in candidate && "transformers" in candidate && "config" in candidate;
}

/** By file stem, in alphabetical order. */
export const pipelines: ReadonlyMap<string, Pipeline> = await loadFolder(import.meta.url, isPipeline);

const INDEX = "model_index.json";
const MODEL = "transformer/model.onnx";
const TRANSFORMER = "transformer/config.json";
const SCHEDULER = "scheduler/scheduler_config.json";

/** The names that diffusers' networks give to their latent and their time. */
const PORTS = { latent: "hidden_states", timestep: "timestep" };

/** The file that says that it is a folder as diffusers saves a pipeline; undefined if it is none. */
export function pipelineFile(folder: string): string | undefined {
  return [INDEX, TRANSFORMER].map((file) => join(folder, file)).find((file) => existsSync(file));
}

/**
 * The recipe of a diffusers folder: the settings of its pipeline class, and the arrays in the folder as
 * `calibrate/<input>.npy`, `uncond/<input>.npy` and `fix/<input>.npy`.
 * Throws FILE_MISSING, BAD_JSON, BAD_JSON_FIELD, UNKNOWN_PIPELINE, UNSUPPORTED_PIPELINE.
 */
export function deriveRecipe(folder: string): RecipeFacts {
  const read = (file: string): unknown => (existsSync(join(folder, file)) ? readJson(join(folder, file)) : {});
  const configOf = (network: string): unknown => read(`${network}/config.json`);
  const configs: FolderConfigs = {
    index: read(INDEX),
    scheduler: read(SCHEDULER),
    transformer: readJson(join(folder, TRANSFORMER)),
    vae: configOf("vae"),
    text_encoder: configOf("text_encoder"),
    text_encoder_2: configOf("text_encoder_2"),
    text_encoder_3: configOf("text_encoder_3"),
  };
  const { className, pipeline } = pipelineOf(classOf(configs.index), classOf(configs.transformer), folder);
  const found = pipeline.recipe(parseWith(pipeline.config, configs, folder));
  if (!("reason" in found)) return recipeOf(folder, found);
  const nearest = JSON.stringify(recipeOf(folder, found.nearest));
  throw unsupportedPipeline(className, found.reason, found.instead, nearest, folder);
}

function recipeOf(folder: string, facts: PipelineFacts): RecipeFacts {
  const inputs = { ...facts.inputs };
  for (const [name, file] of arraysIn(folder, "calibrate")) inputs[name] = { ...inputs[name], calibrate: file };
  for (const [name, file] of arraysIn(folder, "fix")) inputs[name] = { ...inputs[name], fix: file };
  const { guidance = { form: "none" }, before = [], after = [] } = facts;
  const isThere = (specs: readonly CompanionFacts[]): boolean =>
    specs.every(({ model }) => model === undefined || existsSync(join(folder, model)));
  // Embeddings that are given stand for the encoders that would make them.
  const embeddings = before.flatMap(({ outputs = {} }) => Object.values(outputs));
  const areGiven = embeddings.some((name) =>
    ["calibrate", "uncond", "fix"].some((place) => existsSync(join(folder, place, `${name}.npy`))),
  );
  const taken = isThere(after) ? after : [];
  return {
    ...displayOf(taken),
    ...PORTS,
    ...(existsSync(join(folder, SCHEDULER)) ? { scheduler: SCHEDULER } : {}),
    ...facts,
    model: MODEL,
    guidance: { ...guidance, uncond: { ...guidance.uncond, ...Object.fromEntries(arraysIn(folder, "uncond")) } },
    inputs,
    before: isThere(before) && !areGiven ? before : [],
    after: taken,
  };
}

/** How the result of a decoder is shown: its name says what it is. */
function displayOf(after: readonly CompanionFacts[]): Pick<RecipeFacts, "display"> {
  const results = after.flatMap(({ outputs = {} }) => Object.values(outputs));
  const kind = (["image", "video", "audio"] as const).find((name) => results.includes(name));
  return kind ? { display: { kind } } : {};
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
