/** The options of all commands. An option has the same meaning in every command. */
import { z } from "zod";
import { MAX_BATCH, MAX_STEPS } from "../../ir/limits.js";
import { badOption } from "../../schedules/diagnostics.js";
import { cutSchema, formats, optionNamed } from "../../schedules/index.js";
import { FRONT_SHARES, TIERS } from "../planning/index.js";
import { forms } from "../../passes/index.js";
import { readNpy } from "../files/index.js";
import { DRAWING } from "../report/index.js";
import {
  type InputSpecs,
  PIXELS,
  PRECISIONS,
  type RecipeOverrides,
  RUN_TIME,
  type SampleOptions,
  sizeSchema,
  variantsOf,
  type ValueSpec,
} from "../job/index.js";
import type { RuntimeOptions } from "../runtime/index.js";
import { MODEL_NAME } from "../artifact/index.js";

/** A checked text. The error message `said` is followed by the given text. */
const text = (said: string, isValid: (text: string) => boolean): z.ZodString =>
  z.string(said).refine(isValid, { error: ({ input }) => `${said}, not '${String(input)}'` });
const numberIn = (text: string): number => (text.trim() === "" ? NaN : Number(text));
const number = text("takes a number", (text) => Number.isFinite(numberIn(text))).transform(numberIn);
const whole = (from: number, to: number, said: string): z.ZodType<number> =>
  text(said, (text) => Number.isSafeInteger(numberIn(text)) && numberIn(text) >= from && numberIn(text) <= to).transform(numberIn);
const numbers = text("takes numbers with commas between", (text) =>
  text.split(",").every((part) => Number.isFinite(numberIn(part))),
).transform((text) => text.split(",").map(numberIn));
const shares = text("takes shares above 0, up to 1, with commas between", (text) =>
  text.split(",").every((part) => numberIn(part) > 0 && numberIn(part) <= 1),
).transform((text) => text.split(",").map(numberIn));
const names = text("takes names with commas between", (text) => /^[^,]+(,[^,]+)*$/.test(text)).transform((text) => text.split(","));
const SIZE = /^(\d+(?:\.\d+)?) ?([kKMGT]?)B?$/;
/** Bytes; powers of 1000, as sizes are printed. */
const bytes = text("takes a size such as 500MB or 1.5GB", (text) => SIZE.test(text)).transform((text) => {
  const [, number = "", unit = ""] = SIZE.exec(text) ?? [];
  return Number(number) * 1000 ** ["", "K", "M", "G", "T"].indexOf(unit.toUpperCase());
});
const upTo = (most: number): z.ZodType<number> => whole(1, most, `takes a whole number from 1 to ${most}`);
/** A text that starts like an option is refused: it took the place of a missing path. */
const path = text("takes a path", (text) => text !== "" && !text.startsWith("--"));
const pairs = z.array(text("takes name=value", (text) => /^[^=]+=.+$/.test(text)));

/** The limit of samples and of runs, as figures of each are held in memory. */
const MAX_SAMPLES = 1 << 16;

/** The limit of seeds: that of the last sample is still an exact integer. */
const MAX_SEED = 2 ** 53 - MAX_SAMPLES;

/** The limit of threads. The runtime would start any number of them. */
const MAX_THREADS = 1024;

function isShard(text: string): boolean {
  const [, index, count] = /^(\d+)\/(\d+)$/.exec(text) ?? [];
  return Number(index) >= 1 && Number(index) <= Number(count);
}

/** Every option of every command: flag, description and schema. */
export const OPTIONS = {
  allowOutside: {
    flags: "--allow-outside <dir>",
    summary: "a folder in which files that the recipe names may lie, beside the recipe's own",
    schema: z.array(path),
  },
  apng: { flags: "--apng <file>", summary: "write the result, a video, as an animated PNG", schema: path },
  batch: {
    flags: "--batch <n>",
    summary: "latents of one run; of serve-package: the most that the server puts together",
    schema: upTo(MAX_BATCH),
  },
  cache: { flags: "--no-cache", summary: "compile the plain unrolled model, nothing cached", schema: z.boolean() },
  check: { flags: "--no-check", summary: "use the artifact's files without comparing them with their digests", schema: z.boolean() },
  cacheMemory: {
    flags: "--cache-memory <size>",
    summary: "most memory for cached values; the branches that cost most of it are computed instead",
    schema: bytes,
  },
  device: { flags: "--device <device>", summary: "cpu, cuda or cuda:<id>", schema: z.string() },
  dim: { flags: "--dim <name=value>", summary: "size of a symbolic dimension", schema: pairs },
  dumpBranches: { flags: "--dump-branches <dir>", summary: "run one step and write <site>.npy for every branch", schema: path },
  eta: { flags: "--eta <share>", summary: "share of fresh noise, where the sampler leaves it open", schema: number },
  extension: {
    flags: "--extension <file>",
    summary: "a file of your own with a recogniser, a sampler, a policy or a pass",
    schema: z.array(path),
  },
  force: { flags: "--force", summary: "overwrite what is there", schema: z.boolean() },
  form: {
    flags: "--form <form>",
    summary: [...forms.values()].map(({ name, summary }) => `${name}: ${summary}`).join("; "),
    schema: text(`takes ${[...forms.keys()].join(" or ")}`, (name) => forms.has(name)),
  },
  cut: {
    flags: "--cut <where>",
    summary: "what a cache holds: branch, norm, gate, block, stack, or ranges of blocks: 0-13,14-27",
    schema: cutSchema,
  },
  format: { flags: "--format <name>", summary: `how the plan is written: ${[...formats.keys()].join(", ")}`, schema: z.string() },
  front: {
    flags: "--front [shares]",
    summary: `plans at several shares of the compute, with a chart: budget's, at ${FRONT_SHARES.join(",")} unless others are given`,
    schema: z.preprocess((given) => (given === true ? FRONT_SHARES.join() : given), shares),
  },
  guidance: { flags: "--guidance <scale>", summary: "guidance scale", schema: number },
  inpaint: { flags: "--inpaint", summary: "keep an original where a mask is 0: inputs of the artifact", schema: z.boolean() },
  input: { flags: "--input <name=value>", summary: "a condition: a number, numbers with commas between, or a .npy file", schema: pairs },
  inputs: { flags: "--inputs <dir>", summary: "folder with <input>.npy for every input of the step", schema: path },
  memory: {
    flags: "--memory <size>",
    summary: "for the values of branches while calibrating, beside the network itself: 4GB if absent",
    schema: bytes,
  },
  model: { flags: "--model <path>", summary: "the model that the trace was made from, for policies that run it", schema: path },
  latent: {
    flags: "--no-latent",
    summary: "the artifact gives what networks behind the run make of its latent, and not the latent itself",
    schema: z.boolean(),
  },
  mu: { flags: "--mu <value>", summary: "logarithm of the time shift under dynamic shifting", schema: number },
  name: {
    flags: "--name <name>",
    summary: "what the server calls the model; the folder's name if absent",
    schema: text("takes letters, digits, '_', and further on '-' and single '.' within", (text) => MODEL_NAME.test(text)),
  },
  noise: {
    flags: "--noise <file>",
    summary: ".npy with the initial latents: unit variance, or those of the step that --start named",
    schema: path,
  },
  output: { flags: "-o, --output <path>", summary: "where the result goes", schema: path },
  passes: {
    flags: "--passes <list>",
    summary: "optional passes to leave out, to see what they are worth: -merge,-fuse",
    schema: text("takes names with a - before each and commas between, as in -merge,-fuse", (text) =>
      /^-[^,-][^,]*(,-[^,-][^,]*)*$/.test(text),
    ).transform((text) => text.split(",").map((name) => name.slice(1))),
  },
  pixels: {
    flags: "--pixels <type>",
    summary: "uint8: a picture or a video comes out as bytes, channels last, in place of floats",
    schema: z.enum(PIXELS, { error: ({ input }) => `takes ${PIXELS.join(", ")}, not '${String(input)}'` }),
  },
  plan: { flags: "--plan <file>", summary: "plan.json, or a plan in a format of another program", schema: path },
  plot: {
    flags: "--plot <file>",
    summary: "draw it: an SVG picture, or a PNG picture if the name ends so",
    schema: text("takes a path that ends in .svg or .png", (path) => DRAWING.test(path)),
  },
  png: { flags: "--png <file>", summary: "write the result as a picture", schema: path },
  policy: {
    flags: "--policy <name>",
    summary: "how the plan is chosen: a name, a file of your own, or a plan that is there already",
    schema: z.string(),
  },
  policyOption: {
    flags: "--policy-option <name=value>",
    summary: "an option of a policy of your own",
    schema: pairs,
  },
  precision: {
    flags: "--precision <type>",
    summary: "what the network computes in: fp32, fp16 (the CPU converts at every step: slow), bf16 (CUDA only); default: as exported",
    schema: z.enum(PRECISIONS, { error: ({ input }) => `takes ${PRECISIONS.join(", ")}, not '${String(input)}'` }),
  },
  recipe: { flags: "--recipe <file>", summary: "recipe.json of another place", schema: path },
  resume: { flags: "--resume", summary: "go on where a calibration ended: samples that are there are not run again", schema: z.boolean() },
  runtime: {
    flags: "--runtime <list>",
    summary: `left to the run in place of what is built in: ${RUN_TIME.join(", ")} (the scale, with that of the build as default; how many latents there are)`,
    schema: names,
  },
  runs: { flags: "--runs <n>", summary: "timed runs of each candidate", schema: upTo(MAX_SAMPLES) },
  samples: { flags: "--samples <n>", summary: "calibration samples", schema: upTo(MAX_SAMPLES) },
  scheduler: { flags: "--scheduler <file>", summary: "scheduler_config.json or a sampler table", schema: path },
  segments: { flags: "--segments <n>", summary: "the run in so many parts as well, to be run in turn", schema: upTo(MAX_STEPS) },
  seed: {
    flags: "--seed <n>",
    summary: "seed of the noise, as torch's CPU generator draws it",
    schema: whole(0, MAX_SEED, `takes a whole number from 0 to ${MAX_SEED}`),
  },
  shard: {
    flags: "--shard <i/n>",
    summary: "run part i of n of the samples, from 1/n to n/n; merge adds them up",
    schema: text("takes i/n with i from 1 to n, such as 1/4", isShard).transform((text) => {
      const [index = 1, count = 1] = text.split("/").map(Number);
      return { index, count };
    }),
  },
  sigmas: { flags: "--sigmas <list>", summary: "noise levels in sampling order, with commas between", schema: numbers },
  start: {
    flags: "--start <step>",
    summary: "first step that is run, from a latent that the run is given",
    schema: whole(0, Infinity, "takes a step, from 0 up"),
  },
  stopAt: {
    flags: "--stop-at <value>",
    summary: "latent: leave out the networks behind the run, such as a decoder",
    schema: z.literal("latent", { error: ({ input }) => `takes latent, not '${String(input)}'` }),
  },
  size: {
    flags: "--size <size>",
    summary: "height and width of the result in pixels, as 512x768, where the pipeline's folder says what that means",
    schema: sizeSchema,
  },
  steps: { flags: "--steps <n>", summary: "sampling steps", schema: upTo(MAX_STEPS) },
  threads: { flags: "--threads <n>", summary: "threads of the runtime", schema: upTo(MAX_THREADS) },
  tiers: {
    flags: "--tiers <list>",
    summary: `an artifact each, in a folder of its name: ${[...TIERS.keys()].join(",")}; plans by budget, from one calibration`,
    schema: names,
  },
  timesteps: { flags: "--timesteps <list>", summary: "times in sampling order, with commas between", schema: numbers },
  variant: {
    flags: "--variant <name>",
    summary:
      "one of the recipe's variants, or one that is defined here, as 512x768 or small:height=64,share=0.3; of a folder of artifacts, one of them",
    schema: z.array(text("takes a name or a definition", (text) => text !== "" && !text.startsWith("--"))),
  },
  wav: { flags: "--wav <file>", summary: "write the result as sound", schema: path },
} as const;

export type OptionName = keyof typeof OPTIONS;

/** The options of one invocation. Options that were not given are absent. */
export type Options = { readonly [Name in OptionName]?: z.infer<(typeof OPTIONS)[Name]["schema"]> | undefined } & {
  /** Options of the policy, which parses them itself. */
  readonly policyOptions?: Readonly<Record<string, string>> | undefined;
};

const optionsSchema = z.object(Object.fromEntries(Object.entries(OPTIONS).map(([name, { schema }]) => [name, schema.optional()])));

/** Options as the command line gives them, checked. Throws BAD_OPTION. */
export function parseOptions(given: unknown): Options {
  const result = optionsSchema.safeParse(given);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const name = String(issue?.path[0] ?? "");
  throw badOption(isOptionName(name) ? OPTIONS[name].flags : name, issue?.message ?? "is not valid");
}

export function isOptionName(name: string): name is OptionName {
  return Object.hasOwn(OPTIONS, name);
}

/** Whether an option may be given more than once. */
export function isRepeatable(name: OptionName): boolean {
  return OPTIONS[name].schema instanceof z.ZodArray;
}

/** The options of every command that opens a model. */
export const MODEL_OPTIONS = [
  "allowOutside",
  "precision",
  "recipe",
  "scheduler",
  "steps",
  "start",
  "inpaint",
  "guidance",
  "runtime",
  "batch",
  "cut",
  "dim",
  "size",
  "extension",
  "threads",
] as const satisfies readonly OptionName[];

/** The options that override the recipe. */
export function recipeOverrides(options: Options): RecipeOverrides {
  const { recipe, scheduler, steps, start, inpaint, guidance, runtime, batch, cut, precision, extension: extensions } = options;
  const { allowOutside, stopAt, pixels, latent, size } = options;
  return {
    ...{ recipe, scheduler, steps, start, inpaint, guidance, runtime, batch, cut, precision, extensions },
    ...{ allowOutside, stopAt, pixels, latent, size },
    ...{ dims: sizes(options.dim ?? []), inputs: inputSpecs(options) },
  };
}

/** The options that override the recipe of MODEL, with what its variant says where one is named. Throws what `variantsOf` throws, BAD_OPTION. */
export function variantOverrides(model: string, options: Options): RecipeOverrides {
  const overrides = recipeOverrides(options);
  const [variant] = options.variant ? variantsOf(model, { overrides, policyOptions: {} }, oneVariant(options)) : [];
  return variant?.overrides ?? overrides;
}

/** The options of the chosen policy. Those of built-in policies have flags; others are given as name=value. */
export function policyOptionsOf({ policyOptions = {}, policyOption = [] }: Options): Readonly<Record<string, string>> {
  return { ...policyOptions, ...Object.fromEntries(pairsOf(policyOption).map(([word, value]) => [optionNamed(word), value])) };
}

export function runtimeOptions(options: Options, signal: AbortSignal): RuntimeOptions {
  return { device: options.device, threads: options.threads, signal };
}

/** `--seed`, `--noise` and `--input`: the start of a run. Throws what reading the noise throws. */
export function sampleOptions(options: Options): SampleOptions {
  const { seed, noise } = options;
  return { seed, noise: noise === undefined ? undefined : readNpy(noise), inputs: inputSpecs(options) };
}

/** `--input name=value`: a number, numbers with commas between, or a file. */
export function inputSpecs(options: Options): InputSpecs {
  return new Map(
    pairsOf(options.input ?? []).map(([name, text]): [string, ValueSpec] => {
      const numbers = text.split(",").map((part) => (part.trim() === "" ? NaN : Number(part)));
      const [first] = numbers;
      if (first === undefined || numbers.some(Number.isNaN)) return [name, text];
      return [name, numbers.length === 1 ? first : numbers];
    }),
  );
}

/** `--variant` of a command that takes one artifact. Throws BAD_OPTION. */
export function oneVariant({ variant = [] }: Options): readonly string[] {
  if (variant.length > 1) throw badOption(OPTIONS.variant.flags, "can be given once here");
  return variant;
}

function sizes(given: readonly string[]): ReadonlyMap<string, number> {
  return new Map(
    pairsOf(given).map(([name, text]) => {
      const size = Number(text);
      if (!Number.isInteger(size) || size < 1) throw badOption("--dim", `takes whole numbers from 1 up, not '${text}'`);
      return [name, size];
    }),
  );
}

function pairsOf(given: readonly string[]): readonly (readonly [string, string])[] {
  return given.map((pair) => {
    const at = pair.indexOf("=");
    return [pair.slice(0, at), pair.slice(at + 1)];
  });
}
