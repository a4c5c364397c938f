/** Finds the recipe of MODEL, and applies the options that override it. */
import { existsSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileMissing, unknownName } from "../../ir/diagnostics.js";
import type { Dim } from "../../ir/types.js";
import { badSize, notAModel } from "../words/index.js";
import { containedFile, readJson } from "../files/index.js";
import type { Extensions } from "./extensions.js";
import { deriveRecipe, pipelineFile } from "./pipelines/index.js";
import { badOption } from "../../schedules/diagnostics.js";
import { parseWith, uncondInput } from "../../schedules/index.js";
import { type InputSpecs, type Pixels, type Precision, type Recipe, recipeSchema, RUN_TIME } from "./recipe.js";

/** Options of the command line that override the recipe. */
export interface RecipeOverrides {
  readonly recipe?: string | undefined;
  readonly scheduler?: string | undefined;
  readonly steps?: number | undefined;
  readonly start?: number | undefined;
  /** Whether a mask says what is kept of an original, besides what the recipe says. */
  readonly inpaint?: boolean | undefined;
  readonly guidance?: number | undefined;
  readonly batch?: number | undefined;
  readonly cut?: string | undefined;
  readonly precision?: Precision | undefined;
  /** What becomes an input of the artifact, besides what the recipe says (`RUN_TIME`). */
  readonly runtime?: readonly string[] | undefined;
  readonly dims?: ReadonlyMap<string, number> | undefined;
  /** Height and width of the result in pixels, for a diffusers folder whose pipeline says what they decide. */
  readonly size?: readonly number[] | undefined;
  /** Where the run ends: at its last latent, without the networks behind it. */
  readonly stopAt?: "latent" | undefined;
  /** What a picture or a video comes out as, besides what the recipe says. */
  readonly pixels?: Pixels | undefined;
  /** False: the artifact does not give its last latent beside what is made of it. */
  readonly latent?: boolean | undefined;
  /** The user's own files (`loadExtensions`). A recipe cannot name them, as they are code. */
  readonly extensions?: readonly string[] | undefined;
  /** Folders in which files that the recipe names may lie, beside its own. */
  readonly allowOutside?: readonly string[] | undefined;
  /** Values of conditions. Calibration also uses them if the recipe has no calibration values. */
  readonly inputs?: InputSpecs | undefined;
}

/** A recipe, the folder that its paths start from, and the files of its networks. */
export interface JobSource {
  readonly recipe: Recipe;
  readonly folder: string;
  readonly modelFile: string;
  /** The files of the recipe's `networks`. */
  readonly networkFiles?: readonly string[] | undefined;
  /** Where files that the recipe names may lie as well: folders, or files that the user has named. */
  readonly allowed?: readonly string[] | undefined;
  /** Whether the recipe was derived from a diffusers folder, so that it uses diffusers' names of inputs. */
  readonly isDerived?: boolean | undefined;
  /** What the files of the user's own export, once they are loaded. */
  readonly extensions?: Extensions | undefined;
}

/**
 * The source that MODEL names: an `.onnx` file (with the `recipe.json` beside it that names it, if there is one), a folder
 * with a `recipe.json`, or a folder as diffusers saves it, whose recipe is derived.
 * Throws NOT_A_MODEL, FILE_MISSING, FILE_OUTSIDE, BAD_JSON, BAD_JSON_FIELD, UNKNOWN_NAME, UNKNOWN_PIPELINE, UNSUPPORTED_PIPELINE.
 */
export async function openJobSource(model: string, overrides: RecipeOverrides = {}): Promise<JobSource> {
  if (!existsSync(model)) throw fileMissing(model, "There is no such file or folder.");
  const isFolder = statSync(model).isDirectory();
  const said = recipeOf(model, overrides);
  const home = resolve(isFolder ? model : dirname(model));
  const sourceOf = (recipe: Recipe, folder: string, facts: string): JobSource => {
    const allowed = [home, dirname(realpathSync(facts)), ...ownFiles(overrides)];
    const modelFile = isFolder ? containedFile(recipe.model, home, allowed) : resolve(model);
    const networkFiles = recipe.networks.map(({ model }) => containedFile(model, home, allowed));
    return { recipe: override(recipe, overrides), folder, modelFile, networkFiles, allowed };
  };
  if (isFolder && !said) {
    const facts = pipelineFile(model);
    if (facts === undefined) throw notAModel(model);
    return { ...sourceOf(parseWith(recipeSchema, await deriveRecipe(model, overrides), model), home, facts), isDerived: true };
  }
  if (overrides.size) throw badSize(overrides.size, "only the pipeline of a diffusers folder says what pixels are of its latent", BY_DIMS);
  if (!said) return sourceOf(recipeSchema.parse({ model: basename(model) }), home, model);
  return sourceOf(said.recipe, resolve(dirname(said.file)), said.file);
}

const BY_DIMS = "Name the sizes of its symbolic dimensions, as --dim height=64; smoothcc inspect lists its inputs.";

/** The recipe that speaks of MODEL, and its file; undefined if there is none. Throws FILE_MISSING, BAD_JSON, BAD_JSON_FIELD. */
export function recipeOf(model: string, overrides: RecipeOverrides): { readonly recipe: Recipe; readonly file: string } | undefined {
  const isFolder = statSync(model, { throwIfNoEntry: false })?.isDirectory() ?? false;
  const beside = join(isFolder ? model : dirname(model), "recipe.json");
  const file = overrides.recipe ?? (existsSync(beside) ? beside : undefined);
  if (file === undefined) return undefined;
  const recipe = parseWith(recipeSchema, readJson(file), file);
  return isFolder || overrides.recipe !== undefined || recipe.model === basename(model) ? { recipe, file } : undefined;
}

/** A file that the recipe names. Throws FILE_OUTSIDE. */
export function fileOf({ folder, allowed }: JobSource, name: string): string {
  return containedFile(name, folder, allowed);
}

/**
 * A derived recipe without the inputs and the symbolic dimensions that the exports do not have. What the command line names stays, so that
 * it is reported as unknown.
 */
export function withoutAbsent(
  recipe: Recipe,
  { inputs, dims }: { readonly inputs: readonly string[]; readonly dims: readonly Dim[] },
  given: Pick<RecipeOverrides, "inputs" | "dims">,
): Recipe {
  const known = new Set([...inputs, ...inputs.map(uncondInput), ...(given.inputs?.keys() ?? [])]);
  const isThere = (name: string): boolean => known.has(name);
  const kept = <T>(entries: Readonly<Record<string, T>>, isKept: (name: string) => boolean): Record<string, T> =>
    Object.fromEntries(Object.entries(entries).filter(([name]) => isKept(name)));
  const [latent] = [recipe.latent ?? []].flat().filter(isThere);
  const times = [recipe.timestep ?? []].flat().filter(isThere);
  return {
    ...recipe,
    latent,
    timestep: recipe.timestep === null ? null : times.length > 1 ? times : times[0],
    guidance: { ...recipe.guidance, uncond: kept(recipe.guidance.uncond, isThere) },
    inputs: kept(recipe.inputs, isThere),
    dims: kept(recipe.dims, (name) => dims.includes(name) || (given.dims?.has(name) ?? false)),
  };
}

/** Files of the command line, which stand in the recipe as any other, and the folders that it allows. */
function ownFiles({ scheduler, inputs = new Map(), allowOutside = [] }: RecipeOverrides): readonly string[] {
  const named = [...inputs.values(), scheduler].filter((spec) => typeof spec === "string");
  return [...allowOutside, ...named].map((file) => resolve(file));
}

function override(
  recipe: Recipe,
  {
    scheduler,
    steps,
    start,
    inpaint,
    guidance,
    batch,
    cut,
    precision,
    runtime = [],
    dims,
    stopAt,
    pixels,
    latent,
    inputs: given = new Map(),
  }: RecipeOverrides,
): Recipe {
  const atRunTime = [...new Set([...recipe.runtime, ...runtime])];
  const stray = atRunTime.find((name) => !RUN_TIME.some((known) => known === name));
  if (stray === "strength")
    throw badOption(
      "--runtime",
      "cannot make the strength an input: which steps there are is built in; build an artifact for each (--start)",
    );
  if (stray !== undefined) throw unknownName("run-time input", stray, RUN_TIME);
  const after = stopAt === "latent" ? [] : recipe.after;
  if (stopAt === "latent" && pixels !== undefined)
    throw badOption("--pixels", "is for what stands behind the latent, where --stop-at ends");
  const asPixels = stopAt === "latent" ? undefined : (pixels ?? recipe.pixels);
  if (latent === false && after.length === 0 && asPixels === undefined)
    throw badOption("--no-latent", "nothing else would be left: no network stands behind the run");
  const inputs = { ...recipe.inputs };
  for (const [name, spec] of given) inputs[name] = { calibrate: [typeof spec === "string" ? resolve(spec) : spec], ...inputs[name] };
  return {
    ...recipe,
    variants: undefined,
    ...(scheduler === undefined ? {} : { scheduler: resolve(scheduler) }),
    ...(steps === undefined ? {} : { steps }),
    ...(start === undefined ? {} : { start }),
    ...(inpaint === undefined ? {} : { inpaint }),
    ...(batch === undefined ? {} : { batch }),
    ...(cut === undefined ? {} : { cut }),
    ...(precision === undefined ? {} : { precision }),
    ...(guidance === undefined ? {} : { guidance: { ...recipe.guidance, scale: guidance } }),
    runtime: atRunTime,
    ...(stopAt === undefined ? {} : { after, keepLatent: true }),
    pixels: asPixels,
    ...(latent === false ? { keepLatent: false } : {}),
    dims: { ...recipe.dims, ...Object.fromEntries(dims ?? []) },
    inputs,
  };
}
