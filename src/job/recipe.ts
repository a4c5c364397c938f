/** The schema of recipe.json, which states what the ONNX file does not. */
import { z } from "zod";
import { MAX_BATCH, MAX_NETWORKS, MAX_RATE, MAX_STEPS } from "../../ir/limits.js";
import type { FloatType } from "../../ir/types.js";
import { cutSchema, GUIDANCE_FORMS, NO_GUIDANCE, RESCALE_FORMS, shiftRule } from "../../schedules/index.js";

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

const inputSchema = z
  .strictObject({
    /** The values for calibration: one entry per sample, in turn; or a `.npy` file whose axis 0 counts samples. */
    calibrate: z.union([z.array(valueSchema).min(1), z.string()]).optional(),
    /** Makes the input a compile-time constant. */
    fix: valueSchema.nullish(),
    /**
     * Whether every value of the input, for calibration, fixed or given to a run, holds one for each row of the sampler's table that is
     * run (`tensorFor`). Such a value in place of `true` is fixed.
     */
    perStep: z.union([z.boolean(), valueSchema]).optional(),
  })
  .refine(({ fix, perStep = true }) => typeof perStep === "boolean" || (fix ?? undefined) === undefined, {
    error: 'has values, and so has "fix"',
    path: ["perStep"],
  });

/** What the recipe says of an input: the value that it is fixed at, if any, and whether values hold one for each row of the table. */
export function saidOf({ inputs }: Recipe, name: string): { readonly fixed: ValueSpec | undefined; readonly isPerStep: boolean } {
  const { fix, perStep = false } = inputs[name] ?? {};
  return typeof perStep === "boolean" ? { fixed: fix ?? undefined, isPerStep: perStep } : { fixed: perStep, isPerStep: true };
}

/** What the unconditional half sees in place of an input: a value, or another input of the artifact, called `<input>_uncond`. */
const uncondSchema = z.union([valueSchema, z.strictObject({ input: z.literal(true) })]);

/** Whether the unconditional half has an input of its own. */
export function isInput(spec: z.infer<typeof uncondSchema> | undefined): spec is { readonly input: true } {
  return typeof spec === "object" && "input" in spec;
}

const guidanceSchema = z.strictObject({
  form: z.enum(GUIDANCE_FORMS),
  /** One scale, or a list with one for each row of the sampler's table: one per step, unless steps have several evaluations. */
  scale: z.union([z.number(), z.array(z.number()).min(1)]).default(NO_GUIDANCE.scale),
  /** Steps [from, to) that are guided. */
  interval: z.tuple([z.int().min(0), z.int().min(1)]).optional(),
  order: z
    .union([z.tuple([z.literal("cond"), z.literal("uncond")]), z.tuple([z.literal("uncond"), z.literal("cond")])])
    .readonly()
    .default(NO_GUIDANCE.order),
  uncond: z.record(z.string(), uncondSchema).default({}),
  /** Channels [from, to) of the prediction that are guided; the others are the conditional half's. */
  channels: z.tuple([z.int().min(0), z.int().min(1)]).optional(),
  rescale: z.strictObject({ form: z.enum(RESCALE_FORMS), strength: z.number().default(1) }).optional(),
  /** The input that takes an embedded scale. */
  input: z.string().optional(),
});

/**
 * A network in front of the run or behind it: an ONNX file, or a graph in ONNX's text form. `inputs` and `outputs` say which value of the
 * run each of its inputs reads and each of its outputs gives: that of its own name unless another is named. With `outputs`, only those
 * that are named are used.
 */
export const companionSchema = z
  .strictObject({
    model: z.string().optional(),
    graph: z.string().optional(),
    inputs: z.record(z.string(), z.string()).default({}),
    outputs: z.record(z.string(), z.string()).optional(),
    /** Sizes of its symbolic dimensions besides the batch; those of the recipe's `dims` hold as well. */
    dims: z.record(z.string(), z.int().min(1)).default({}),
  })
  .refine(({ model, graph }) => (model === undefined) !== (graph === undefined), {
    error: 'is either a file ("model") or a graph as text ("graph")',
  });
export type CompanionSpec = z.infer<typeof companionSchema>;
/** As it is written. */
export type CompanionFacts = z.input<typeof companionSchema>;

/** What a picture or a video can come out as in place of a decoder's floats. */
export const PIXELS = ["uint8"] as const;
export type Pixels = (typeof PIXELS)[number];

/** What a run can take as an input in place of a fact of the build: `guidance`, the scale; `batch`, the size of axis 0 of its latent. */
export const RUN_TIME = ["guidance", "batch"] as const;

export const PRECISIONS = ["fp32", "fp16", "bf16"] as const;
export type Precision = (typeof PRECISIONS)[number];

/** The float type that a recipe asks for. */
export function floatTypeOf({ precision }: Recipe): FloatType | undefined {
  return precision && ({ fp32: "float", fp16: "float16", bf16: "bfloat16" } as const)[precision];
}

const samplingSchema = z.strictObject({
  /** `linear`: 1, …, 1/steps, evenly spaced; not used if the scheduler makes its own ("use_flow_sigmas"). */
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

/** A network that takes over from the one before it. */
const networkSchema = z
  .strictObject({
    /** Of the same inputs and the same structure as the first. */
    model: z.string(),
    /** The first row of the sampler's table that calls it: one per step, unless steps have several evaluations. */
    from: z.int().min(1).optional(),
    /** In place of that: it is called from the first row on whose time, as the scheduler has it, is below this. */
    belowTime: z.number().optional(),
    /** The guidance scale of the rows that call it. Default: that of the recipe's `guidance`. */
    scale: z.number().optional(),
  })
  .refine(({ from, belowTime }) => (from === undefined) !== (belowTime === undefined), "takes one of 'from' and 'belowTime'");

export const PICTURE_SIZE = /^(\d+)x(\d+)$/;

/** Height and width of a picture, or of the frames of a video, in pixels: `512x768`. */
export const sizeSchema = z
  .string()
  .regex(PICTURE_SIZE, "takes height and width in pixels, as in 512x768")
  .transform((text) => (PICTURE_SIZE.exec(text) ?? []).slice(1).map(Number))
  .refine((sizes) => sizes.every((size) => size > 0), { error: "takes sizes from 1 up" });

/** What a variant of a build has other than its recipe says. */
export const variantSchema = z.strictObject({
  size: sizeSchema.optional(),
  steps: z.int().min(1).max(MAX_STEPS).optional(),
  start: z.int().min(0).optional(),
  guidance: z.number().optional(),
  batch: z.int().min(1).max(MAX_BATCH).optional(),
  precision: z.enum(PRECISIONS).optional(),
  cut: cutSchema.optional(),
  /** Sizes of symbolic dimensions. */
  dims: z.record(z.string(), z.int().min(1)).optional(),
  /** Options of the policy. */
  policy: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).optional(),
});
export type VariantFacts = z.infer<typeof variantSchema>;

const recipeFields = z.strictObject({
  model: z.string(),
  /** A file, an inline configuration, or a sampler table. */
  scheduler: z.union([z.string(), z.record(z.string(), z.unknown())]).optional(),
  /** Networks that take over from `model` on the way, in this order. */
  networks: z.array(networkSchema).max(MAX_NETWORKS).default([]),
  /** Default: the rows of a sampler table, else 50. */
  steps: z.int().min(1).max(MAX_STEPS).optional(),
  /** The first step that is run; the run begins with the latent that it is given there. */
  start: z.int().min(0).optional(),
  /** `start` as a share of the steps, as in diffusers' image-to-image pipelines: the last ⌊steps · strength⌋ steps are run. */
  strength: z.number().positive().max(1).optional(),
  /** Latents of one run. Default: what the export was made for, or 1. */
  batch: z.int().min(1).max(MAX_BATCH).optional(),
  latent: z.string().optional(),
  /** Several names where several inputs get the same time; null where none does. */
  timestep: z.union([z.string(), z.array(z.string()).min(1)]).nullish(),
  /** The network gets the time scale · t + offset, where t is the scheduler's time. */
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
  /** The artifact takes an original (`image_latent`), and starts from it at the noise of its first step. */
  image: z.boolean().optional(),
  /** The artifact takes an original and a mask (`image_latent`, `mask`), and keeps the original where the mask is 0. */
  inpaint: z.boolean().optional(),
  /** Where the network is cut: what a cache holds (ir/residual/cut.ts). */
  cut: cutSchema.default("branch"),
  guidance: guidanceSchema.prefault({ form: NO_GUIDANCE.form }),
  /** What is an input of the artifact in place of a fact of it: names among `RUN_TIME`. */
  runtime: z.array(z.string()).default([]),
  inputs: z.record(z.string(), inputSchema).default({}),
  /** Networks in front of the run: what they give is read by conditions of the same name, and by each other. */
  before: z.array(companionSchema).default([]),
  /** Networks behind the run: they read `latent`, the last one, what those in front give, and inputs. */
  after: z.array(companionSchema).default([]),
  /** Whether the artifact gives the last latent as well, where networks behind the run make something of it. */
  keepLatent: z.boolean().default(true),
  /** What comes out last, a picture or a video by `display`, as pixels: of this type, 0 black and 255 white, channels last. */
  pixels: z.enum(PIXELS).optional(),
  dims: z.record(z.string(), z.int().min(1)).default({}),
  /** What `build` makes of it: an artifact each, by name, or named as they are written (`parseVariant`). An artifact's own recipe has none. */
  variants: z.union([z.array(z.string()).min(1), z.record(z.string(), variantSchema)]).optional(),
  /** Names of the user's own recognisers, samplers and passes that the recipe requires. */
  extensions: z.array(z.string()).default([]),
  /** The type that the network computes in. Default: as exported. */
  precision: z.enum(PRECISIONS).optional(),
  display: z
    .strictObject({
      kind: z.enum(["image", "video", "audio", "none"]),
      range: z.tuple([z.number(), z.number()]).default([-1, 1]),
      /** Frames of a video or samples of sound a second. */
      rate: z.number().positive().max(MAX_RATE).optional(),
    })
    .optional(),
});

export const recipeSchema = recipeFields.refine(({ after, pixels, keepLatent }) => keepLatent || after.length > 0 || pixels !== undefined, {
  path: ["keepLatent"],
  error: 'is false, and no network stands behind the run ("after"): nothing would be left',
});

export type Recipe = z.infer<typeof recipeSchema>;
/** A recipe as it is written, without its defaults. */
export type RecipeFacts = z.input<typeof recipeSchema>;

/** Values of conditions by input name; files are relative to the working directory. */
export type InputSpecs = ReadonlyMap<string, ValueSpec>;
