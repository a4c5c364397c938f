/** The interface of an entry of `pipelines/`: how one of diffusers' pipelines runs its network, as a recipe. */
import { z } from "zod";
import type { Named } from "../../ir/registry.js";
import type { CompanionFacts, RecipeFacts } from "./recipe.js";

/**
 * The configurations of a diffusers folder, as read; empty where there is no file. Those of networks are under the names of their folders:
 * `transformer/config.json`.
 */
export interface FolderConfigs {
  /** model_index.json */
  readonly index: unknown;
  /** scheduler/scheduler_config.json */
  readonly scheduler: unknown;
  readonly transformer: unknown;
  readonly vae: unknown;
  readonly text_encoder: unknown;
  readonly text_encoder_2: unknown;
  readonly text_encoder_3: unknown;
  /** What the files of transformer and decoder declare of their inputs, as `vae_decoder/latent_sample`: sizes, null where they are open. */
  readonly shapes: Readonly<Record<string, readonly (number | null)[]>>;
}

/**
 * What a pipeline determines: a recipe without the model file, which is at the same place for all. Its `before` and `after` are those of a
 * folder that has all networks; a folder that lacks some of them is taken without, and without inputs for a negative prompt
 * (`guidance.uncond`).
 */
export interface PipelineFacts extends Omit<RecipeFacts, "model"> {
  /** Networks that make `image_latent` of a picture, `start_image`, for runs that do not start from noise (`--start`). */
  readonly original?: readonly CompanionFacts[] | undefined;
  /** Operators that make `mask` of a mask of that picture, `mask_image`, for runs that keep some of it (`--inpaint`). */
  readonly mask?: readonly CompanionFacts[] | undefined;
}

/** Why no recipe says what a pipeline does by itself, and what a recipe can say in its place. */
export interface NoRecipe {
  /** A clause. */
  readonly reason: string;
  /** What to do, without a full stop, in front of the recipe that is nearest. */
  readonly instead: string;
  readonly nearest: PipelineFacts;
}

/** One family of pipelines: a file of `pipelines/`, named as diffusers names the folder of the class. */
export interface Pipeline<Config extends z.ZodObject = z.ZodObject> extends Named {
  /** `_class_name` in model_index.json. */
  readonly pipelines: readonly string[];
  /** `_class_name` in transformer/config.json, used if there is no model_index.json. */
  readonly transformers: readonly string[];
  /** The keys of `FolderConfigs` that it reads, with the library's defaults. */
  readonly config: Config;
  /** What a size in pixels decides; absent where nobody has said, as where the network has its sizes inside. */
  grid?(config: z.output<Config>): GridRule;
  /**
   * The recipe for the pipeline's `__call__` with default arguments, or why no recipe can express it. `grid`: height and width of the latent
   * that is asked for, in place of the default.
   */
  recipe(config: z.output<Config>, grid?: readonly number[]): PipelineFacts | NoRecipe;
}

/** How the latent's grid follows from a size in pixels. The grid is the last two axes of the latent, or packed into tokens along axis 1. */
export interface GridRule {
  /** The side of the square of pixels that one element of the grid becomes. */
  readonly pixels: number;
  /** The side of the square of elements that is one token. */
  readonly patch: number;
  readonly isPacked?: boolean;
}

/** Keys of vae/config.json of the class AutoencoderKL, each of whose blocks but the last doubles the sides. */
export const blockKeys = { block_out_channels: z.array(z.number()).min(1).default([128, 256, 512, 512]) };

/** The pixels that one latent element becomes along each side. */
export function pixelsOf({ block_out_channels: blocks }: z.output<z.ZodObject<typeof blockKeys>>): number {
  return 2 ** (blocks.length - 1);
}

/** Keys of transformer/config.json. */
export const channelKeys = { in_channels: z.int().min(1), out_channels: z.int().min(1).nullish() };

export const declaredShapes = z.record(z.string(), z.array(z.number().nullable()));

/** The sizes of the grid of a latent, [rows, channels, …sizes], that the decoder takes; undefined where its file leaves some of them open. */
export function gridOf(shapes: z.output<typeof declaredShapes>): readonly number[] | undefined {
  const [, , ...sizes] = shapes["vae_decoder/latent_sample"] ?? [];
  const known = sizes.flatMap((size) => size ?? []);
  return known.length > 0 && known.length === sizes.length ? known : undefined;
}

/** The prediction is the first half of the output's channels where the network also predicts a variance. */
export function predictionOf(
  { in_channels: latent, out_channels: output }: z.output<z.ZodObject<typeof channelKeys>>,
  channelAxis = 1,
): NonNullable<RecipeFacts["prediction"]> {
  return output === 2 * latent ? { channels: [0, latent], channelAxis } : { channelAxis };
}
