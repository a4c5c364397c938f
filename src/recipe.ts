/** recipe.json: all that the ONNX file does not say. Its form, where it is found, and how options override it. */
import { existsSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { badJsonField, fileMissing, noScheduler, notAModel } from "../ir/diagnostics.js";
import type { FloatType } from "../ir/types.js";
import { readJson } from "./files.js";
import type { Extensions } from "./extensions.js";
import { deriveRecipe, isPipelineFolder } from "./pipelines/index.js";
import {
  cutSchema,
  linspace,
  MAX_STEPS,
  parseWith,
  samplerTable,
  shiftOf,
  shiftRule,
  type SamplerOptions,
  type SamplerTable,
} from "../schedules/index.js";

/**
 * A number fills the tensor, a list gives its elements or those of each row of the batch, a string names a `.npy` file
 * beside the recipe, and a grid gives positions: along the last two axes, the coordinates of the points of a grid with
 * these sizes, the last running fastest. Sizes that are null are equal, and as large as the rows allow.
 */
const valueSchema = z.union([
  z.number(),
  z.array(z.number()),
  z.string(),
  z.strictObject({ grid: z.array(z.int().min(1).nullable()).min(1) }),
]);
export type ValueSpec = z.infer<typeof valueSchema>;

const inputSchema = z.strictObject({
  /** What calibration runs with: one entry a sample, in turn; or a `.npy` file whose axis 0 counts samples. */
  calibrate: z.union([z.array(valueSchema).min(1), z.string()]).optional(),
  /** Makes the input a compile-time constant. */
  fix: valueSchema.nullish(),
});

/** What the unconditional half sees in place of an input: a value, or another input of the artifact, called `<input>_uncond`. */
const uncondSchema = z.union([valueSchema, z.strictObject({ input: z.literal(true) })]);

/** Whether the unconditional half has an input of its own. */
export function isInput(spec: z.infer<typeof uncondSchema> | undefined): spec is { readonly input: true } {
  return typeof spec === "object" && "input" in spec;
}

const guidanceSchema = z.strictObject({
  form: z.enum(["none", "batched", "two-calls", "embedded"]),
  /** A list has one for each call of the sampler, which is one a step where a step has one evaluation. */
  scale: z.union([z.number(), z.array(z.number()).min(1)]).default(1),
  /** Steps [from, to) that are guided. */
  interval: z.tuple([z.int().min(0), z.int().min(1)]).optional(),
  order: z
    .union([z.tuple([z.literal("cond"), z.literal("uncond")]), z.tuple([z.literal("uncond"), z.literal("cond")])])
    .default(["cond", "uncond"]),
  uncond: z.record(z.string(), uncondSchema).default({}),
  /** Channels [from, to) of the prediction that are guided; the others are the conditional half's. */
  channels: z.tuple([z.int().min(0), z.int().min(1)]).optional(),
  rescale: z.strictObject({ form: z.enum(["std", "norm"]), strength: z.number().default(1) }).optional(),
  /** The input that takes an embedded scale. */
  input: z.string().optional(),
});

export const PRECISIONS = ["fp32", "fp16", "bf16"] as const;
type Precision = (typeof PRECISIONS)[number];

/** The float type that a recipe asks for. */
export function floatTypeOf({ precision }: Recipe): FloatType | undefined {
  return precision && ({ fp32: "float", fp16: "float16", bf16: "bfloat16" } as const)[precision];
}

const samplingSchema = z.strictObject({
  /** `linear`: 1, …, 1/steps, evenly spaced; not where the scheduler makes its own ("use_flow_sigmas"). */
  sigmas: z.union([z.literal("linear"), z.array(z.number()).min(1)]).optional(),
  timesteps: z.array(z.number()).min(1).optional(),
  /**
   * Logarithm of the time shift; or the rule that finds it, under dynamic shifting, from the number of the latent's tokens:
   * the product of its sizes along `axes` (negative: from the end), each in patches of `patch`.
   */
  mu: z
    .union([z.number(), z.strictObject({ rule: shiftRule, axes: z.array(z.int()).min(1), patch: z.int().min(1).default(1) })])
    .optional(),
  eta: z.number().optional(),
});

/** Noise, conditions and results of a whole batch are held in memory. */
export const MAX_BATCH = 1 << 16;

export const recipeSchema = z.strictObject({
  model: z.string(),
  /** A file, an inline configuration, or a sampler table. */
  scheduler: z.union([z.string(), z.record(z.string(), z.unknown())]).optional(),
  /** Default: the rows of a sampler table, else 50. */
  steps: z.int().min(1).max(MAX_STEPS).optional(),
  /** The first step that is run; the run begins with the latent that it is given there. */
  start: z.int().min(0).optional(),
  /** The same as a share of the steps, as diffusers' image-to-image pipelines have it: the last ⌊steps · strength⌋ are run. */
  strength: z.number().positive().max(1).optional(),
  /** Latents of one run. Default: what the export was made for, or 1. */
  batch: z.int().min(1).max(MAX_BATCH).optional(),
  latent: z.string().optional(),
  /** Several names where several inputs get the same time. */
  timestep: z.union([z.string(), z.array(z.string()).min(1)]).optional(),
  /** The network is told scale · t + offset, where t is the scheduler's time. */
  time: z.strictObject({ scale: z.number().default(1), offset: z.number().default(0) }).default({ scale: 1, offset: 0 }),
  sampling: samplingSchema.default({}),
  prediction: z
    .strictObject({
      output: z.string().optional(),
      channels: z.tuple([z.int().min(0), z.int().min(1)]).optional(),
      channelAxis: z.int().min(0).default(1),
      sign: z.union([z.literal(1), z.literal(-1)]).default(1),
    })
    .default({ channelAxis: 1, sign: 1 }),
  /** Where the network is cut: what a cache holds (ir/residual/cut.ts). */
  cut: cutSchema.default("branch"),
  guidance: guidanceSchema.default({ form: "none", scale: 1, order: ["cond", "uncond"], uncond: {} }),
  inputs: z.record(z.string(), inputSchema).default({}),
  dims: z.record(z.string(), z.int().min(1)).default({}),
  /** Names of recognisers, samplers and passes of the user's own, without which it cannot be followed. */
  extensions: z.array(z.string()).default([]),
  /** What the network computes in; the exporter's types if absent. */
  precision: z.enum(PRECISIONS).optional(),
  display: z.strictObject({ kind: z.enum(["image", "none"]), range: z.tuple([z.number(), z.number()]).default([-1, 1]) }).optional(),
});

export type Recipe = z.infer<typeof recipeSchema>;
/** A recipe as it is written, without its defaults. */
export type RecipeFacts = z.input<typeof recipeSchema>;

/** Options of the command line that beat the recipe. */
export interface RecipeOverrides {
  readonly recipe?: string | undefined;
  readonly scheduler?: string | undefined;
  readonly steps?: number | undefined;
  readonly start?: number | undefined;
  readonly guidance?: number | undefined;
  readonly batch?: number | undefined;
  readonly cut?: string | undefined;
  readonly precision?: Precision | undefined;
  readonly dims?: ReadonlyMap<string, number> | undefined;
  /** Files of the user's own (`loadExtensions`). They are code: no recipe names them. */
  readonly extensions?: readonly string[] | undefined;
  /** Values of conditions; they are also what calibration runs with where the recipe says nothing of it. */
  readonly inputs?: InputSpecs | undefined;
}

/** Values of conditions by input name; files are relative to the working directory. */
export type InputSpecs = ReadonlyMap<string, ValueSpec>;

/** A recipe, the folder that its paths start from, and the model file. */
export interface Source {
  readonly recipe: Recipe;
  readonly folder: string;
  readonly modelFile: string;
  /** Whether the recipe follows from a diffusers folder, and so speaks of inputs by the names that they have there. */
  readonly isDerived?: boolean | undefined;
  /** What the files of the user's own export, once they are loaded. */
  readonly extensions?: Extensions | undefined;
}

/**
 * The source that MODEL names: an `.onnx` file (with the `recipe.json` beside it that names it, if there is one), a folder
 * with a `recipe.json`, or a folder as diffusers saves it, whose recipe is derived.
 * Throws NOT_A_MODEL, FILE_MISSING, BAD_JSON, BAD_JSON_FIELD, UNKNOWN_PIPELINE, UNSUPPORTED_PIPELINE.
 */
export function openSource(model: string, overrides: RecipeOverrides = {}): Source {
  if (!existsSync(model)) throw fileMissing(model, "There is no such file or folder.");
  const isFolder = statSync(model).isDirectory();
  const beside = join(isFolder ? model : dirname(model), "recipe.json");
  const file = overrides.recipe ?? (existsSync(beside) ? beside : undefined);
  if (isFolder && file === undefined) {
    if (!isPipelineFolder(model)) throw notAModel(model);
    const recipe = parseWith(recipeSchema, deriveRecipe(model), model);
    return { recipe: override(recipe, overrides), folder: resolve(model), modelFile: resolve(model, recipe.model), isDerived: true };
  }
  const read = file === undefined ? undefined : parseWith(recipeSchema, readJson(file), file);
  const speaksOfIt = isFolder || overrides.recipe !== undefined || read?.model === basename(model);
  const recipe = read && speaksOfIt ? read : recipeSchema.parse({ model: basename(model) });
  const folder = resolve(file !== undefined && speaksOfIt ? dirname(file) : dirname(model));
  const modelFile = isFolder ? resolve(model, recipe.model) : resolve(model);
  return { recipe: override(recipe, overrides), folder, modelFile };
}

/** A derived recipe without what it says of inputs that the export does not have; `given` ones stay, for the error. */
export function withoutAbsentInputs(recipe: Recipe, inputs: readonly string[], given: InputSpecs = new Map()): Recipe {
  const isThere = (name: string): boolean => inputs.includes(name) || given.has(name);
  const present = <T>(entries: Readonly<Record<string, T>>): Record<string, T> =>
    Object.fromEntries(Object.entries(entries).filter(([name]) => isThere(name)));
  const [latent] = [recipe.latent ?? []].flat().filter(isThere);
  const times = [recipe.timestep ?? []].flat().filter(isThere);
  return {
    ...recipe,
    latent,
    timestep: times.length > 1 ? times : times[0],
    guidance: { ...recipe.guidance, uncond: present(recipe.guidance.uncond) },
    inputs: present(recipe.inputs),
  };
}

function override(
  recipe: Recipe,
  { scheduler, steps, start, guidance, batch, cut, precision, dims, inputs: given = new Map() }: RecipeOverrides,
): Recipe {
  const inputs = { ...recipe.inputs };
  for (const [name, spec] of given) inputs[name] = { calibrate: [typeof spec === "string" ? resolve(spec) : spec], ...inputs[name] };
  return {
    ...recipe,
    ...(scheduler === undefined ? {} : { scheduler: resolve(scheduler) }),
    ...(steps === undefined ? {} : { steps }),
    ...(start === undefined ? {} : { start }),
    ...(batch === undefined ? {} : { batch }),
    ...(cut === undefined ? {} : { cut }),
    ...(precision === undefined ? {} : { precision }),
    ...(guidance === undefined ? {} : { guidance: { ...recipe.guidance, scale: guidance } }),
    dims: { ...recipe.dims, ...Object.fromEntries(dims ?? []) },
    inputs,
  };
}

const DEFAULT_STEPS = 50;

/** What a source samples with. */
export interface Sampling {
  readonly table: SamplerTable;
  /** Steps that are run; a step may have several rows in the table, each an evaluation of the network. */
  readonly steps: number;
  /** Where the run starts later than from noise, the rows of a whole run before it. */
  readonly lead?: SamplerTable | undefined;
}

/**
 * The sampler of a source, for its number of steps and the shape of its latent; times are those that the network is told.
 * Throws NO_SCHEDULER and what reading and tabulating throw.
 */
export function samplingOf(source: Source, latent: readonly number[]): Sampling {
  const { recipe, extensions } = source;
  const config = schedulerConfig(source);
  const options = samplerOptions(recipe, config, latent);
  const { steps } = options;
  const { strength = 1, start = steps - Math.floor(steps * strength) } = recipe;
  const table = told(samplerTable(config, { ...options, start }, extensions?.samplers), recipe);
  if (start === 0) return { table, steps };
  const whole = told(samplerTable(config, options, extensions?.samplers), recipe);
  return { table, steps: steps - start, lead: { ...whole, rows: whole.rows.slice(0, whole.rows.length - table.rows.length) } };
}

/** The table with times as the network is told them. */
function told(table: SamplerTable, { time }: Recipe): SamplerTable {
  return { ...table, rows: table.rows.map((row) => ({ ...row, timestep: time.scale * row.timestep + time.offset })) };
}

const schedulerKeys = z.object({
  rows: z.array(z.unknown()).optional(),
  use_flow_sigmas: z.boolean().optional(),
  use_dynamic_shifting: z.boolean().optional(),
});

/** What a pipeline of diffusers passes to `set_timesteps`. What the recipe gives by rule is for schedulers that make use of it. */
function samplerOptions({ sampling, steps }: Recipe, config: unknown, latent: readonly number[]): SamplerOptions {
  const { rows, use_flow_sigmas: ownSigmas = false, use_dynamic_shifting: isDynamic = false } = schedulerKeys.safeParse(config).data ?? {};
  const { sigmas, timesteps, mu, eta } = sampling;
  const given = rows ?? timesteps ?? (typeof sigmas === "object" ? sigmas : undefined);
  const count = steps ?? given?.length ?? DEFAULT_STEPS;
  const ruled = sigmas !== "linear" ? sigmas : rows || ownSigmas ? undefined : linspace(1, 1 / count, count);
  return {
    steps: count,
    sigmas: ruled,
    timesteps,
    mu: typeof mu === "object" ? (isDynamic ? shiftOf(mu.rule, tokensOf(latent, mu), count, config) : undefined) : mu,
    eta,
    nonlinear: true,
  };
}

function tokensOf(latent: readonly number[], { axes, patch }: { readonly axes: readonly number[]; readonly patch: number }): number {
  return axes.reduce((tokens, axis) => {
    const size = latent.at(axis);
    if (size === undefined) throw badJsonField("recipe", "sampling.mu.axes", `has ${axis}, and the latent is [${latent.join(", ")}]`);
    return tokens * Math.floor(size / patch);
  }, 1);
}

/** The scheduler's configuration as JSON. Throws NO_SCHEDULER, FILE_MISSING, BAD_JSON. */
export function schedulerConfig({ recipe, folder, modelFile }: Source): unknown {
  const { scheduler } = recipe;
  if (typeof scheduler === "object") return scheduler;
  const file = scheduler === undefined ? join(dirname(modelFile), "scheduler_config.json") : resolve(folder, scheduler);
  if (scheduler === undefined && !existsSync(file)) throw noScheduler();
  return readJson(file);
}
