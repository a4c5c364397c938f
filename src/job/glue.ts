/** What diffusers' pipelines do between their networks, as companions of a recipe. */
import { z } from "zod";
import { parse } from "../../ir/parse.js";
import { blockKeys, pixelsOf } from "./pipeline.js";
import type { CompanionFacts } from "./recipe.js";

/**
 * Operators between networks, in ONNX's text form (ir/print.ts): `glue("halve", "float x => float y", "y = Mul(x, half)", "float half = {0.5}")`.
 * Inputs without a shape have that of what they read.
 */
export function glue(name: string, signature: string, body: string, constants = ""): CompanionFacts {
  const [inputs = "", outputs = ""] = signature.split("=>");
  const held = constants === "" ? "" : `<${constants}>`;
  return { graph: `<ir_version: 8, opset_import: ["" : 17]> ${name} (${inputs.trim()}) => (${outputs.trim()}) ${held} { ${body} }` };
}

/** The values of a run that a companion gives, as far as its recipe says. */
export function valuesOf({ graph, outputs }: CompanionFacts): readonly string[] {
  return outputs ? Object.values(outputs) : graph === undefined ? [] : parse(graph).graph.outputs.map(({ name }) => name);
}

/** The tokenizer's mask of so many tokens is what the network takes. */
export function masked(tokens: number): CompanionFacts {
  const signature = "int64[rows, tokens] attention_mask => int64 encoder_attention_mask";
  return { ...glue("mask", signature, "encoder_attention_mask = Identity(attention_mask)"), dims: { tokens } };
}

/** The hidden states of a text encoder, [rows, tokens, channels], and zeros where the tokenizer has padded. */
export function unpadded(states: string, result = "encoder_hidden_states"): CompanionFacts {
  return glue(
    "unpadded",
    `float ${states}, int64 attention_mask => float ${result}`,
    `mask = CastLike(attention_mask, ${states}) column = Unsqueeze(mask, last) ${result} = Mul(${states}, column)`,
    "int64[1] last = {-1}",
  );
}

/**
 * Tokens [rows, tokens, channels · patch …] on a grid: [rows, channels, …sizes]. A token holds a patch of each channel; along axis i of the
 * grid there are sizes[i] / patches[i] of them, the last axis running fastest. Sizes that are not known are equal.
 */
export function unpacked(sizes: readonly number[] | undefined, patches: readonly number[]): CompanionFacts {
  const axes = patches.map((_, i) => i);
  const perm = [0, axes.length + 1, ...axes.flatMap((i) => [i + 1, i + 2 + axes.length])];
  const inPatches = `Reshape(latent, in_patches) moved = Transpose<perm = [${perm.join(", ")}]>(patches) unpacked_latent = Reshape(moved, whole)`;
  const list = (name: string, numbers: readonly number[]): string => `int64[${numbers.length}] ${name} = {${numbers.join(", ")}}`;
  if (sizes)
    return glue(
      "unpacked",
      "float latent => float unpacked_latent",
      `patches = ${inPatches}`,
      [
        list("in_patches", [0, ...axes.map((i) => (sizes[i] ?? 0) / (patches[i] ?? 1)), -1, ...patches]),
        list("whole", [0, 0, ...sizes]),
      ].join(", "),
    );
  return glue(
    "unpacked",
    "float latent => float unpacked_latent",
    `shape = Shape(latent) tokens = Gather(shape, one) number = Cast<to = 1>(tokens) root = Pow(number, exponent)
     nearest = Round(root) side = Cast<to = 7>(nearest) sides = Expand(side, axes)
     in_patches = Concat<axis = 0>(zero, sides, rest) full = Mul(sides, patch) whole = Concat<axis = 0>(zero, zero, full)
     patches = ${inPatches}`,
    [
      list("zero", [0]),
      list("one", [1]),
      list("axes", [axes.length]),
      list("rest", [-1, ...patches]),
      list("patch", patches),
      `float exponent = {${1 / axes.length}}`,
    ].join(", "),
  );
}

/** Keys of vae/config.json with which autoencoders scale what they encode; not all have both. */
export const scalingKeys = { scaling_factor: z.number().default(1), shift_factor: z.number().nullish() };

/** latent / scaling_factor + shift_factor. */
export function unscaled(
  { scaling_factor: scale, shift_factor: shift }: z.output<z.ZodObject<typeof scalingKeys>>,
  latent = "latent",
): CompanionFacts {
  return shift === undefined || shift === null
    ? glue("unscaled", `float ${latent} => float unscaled_latent`, `unscaled_latent = Div(${latent}, scale)`, `float scale = {${scale}}`)
    : glue(
        "unscaled",
        `float ${latent} => float unscaled_latent`,
        `divided = Div(${latent}, scale) unscaled_latent = Add(divided, shift)`,
        `float scale = {${scale}}, float shift = {${shift}}`,
      );
}

/** latent · std + mean with a number of each for every channel of a video, [rows, channels, frames, height, width]. */
export function denormalised(mean: readonly number[], std: readonly number[], latent = "latent"): CompanionFacts {
  const perChannel = (name: string, numbers: readonly number[]): string =>
    `float[1, ${numbers.length}, 1, 1, 1] ${name} = {${numbers.join(", ")}}`;
  return glue(
    "denormalised",
    `float ${latent} => float unscaled_latent`,
    `spread = Mul(${latent}, std) unscaled_latent = Add(spread, mean)`,
    `${perChannel("std", std)}, ${perChannel("mean", mean)}`,
  );
}

/**
 * The latent that an encoder of the class AutoencoderKL, as optimum exports it, makes of `start_image`, a picture in [−1, 1]:
 * (mean + exp(log variance / 2) · vae_noise − shift_factor) · scaling_factor (`retrieve_latents` and `prepare_latents` of
 * pipeline_stable_diffusion_3_img2img.py; the bounds are those of `DiagonalGaussianDistribution`).
 */
export function encodedOriginal(
  { latent_channels: channels, scaling_factor: scale, shift_factor: shift }: z.output<z.ZodObject<typeof encodingKeys>>,
  latent = "image_latent",
): readonly CompanionFacts[] {
  return [
    { model: "vae_encoder/model.onnx", inputs: { sample: "start_image" }, outputs: { latent_parameters: "posterior" } },
    glue(
      "drawn",
      `float[rows, ${2 * channels}, height, width] posterior, float[rows, ${channels}, height, width] vae_noise => float ${latent}`,
      `mean, log = Split<axis = 1>(posterior, parts) bounded = Clip(log, least, most) halved = Mul(bounded, half) deviation = Exp(halved)
       spread = Mul(deviation, vae_noise) sample = Add(mean, spread) moved = Sub(sample, shift) ${latent} = Mul(moved, scale)`,
      `int64[2] parts = {${channels}, ${channels}}, float least = {-30}, float most = {20}, float half = {0.5},
       float shift = {${shift ?? 0}}, float scale = {${scale}}`,
    ),
  ];
}

/** Keys of vae/config.json of autoencoders that tell mean and variance. */
export const encodingKeys = {
  ...scalingKeys,
  latent_channels: z.int().min(1).default(4),
  ...blockKeys,
};

/**
 * A mask of a latent, [rows, 1, height, width], from that of the picture `start_image`, [rows, 1, …]: 1 from a half on and 0 below, at the first of
 * the pixels that a latent element stands for (`prepare_mask_latents` of pipeline_stable_diffusion_3_inpaint.py; an autoencoder halves the
 * picture once fewer than it has blocks).
 */
export function latentMask(vae: z.output<z.ZodObject<typeof encodingKeys>>, result = "mask"): CompanionFacts {
  const pixels = pixelsOf(vae);
  return glue(
    "latent_mask",
    `float[rows, channels, picture_height, picture_width] start_image, float[rows, 1, picture_height, picture_width] mask_image => float ${result}`,
    `marked = GreaterOrEqual(mask_image, half) numbers = Cast<to = 1>(marked) ${result} = Slice(numbers, start, end, axes, steps)`,
    `float half = {0.5}, int64[2] start = {0, 0}, int64[2] end = {${Number.MAX_SAFE_INTEGER}, ${Number.MAX_SAFE_INTEGER}},
     int64[2] axes = {2, 3}, int64[2] steps = {${pixels}, ${pixels}}`,
  );
}

/** A mask of one channel for each channel of a latent. */
export function spread(
  mask: string,
  { latent_channels: channels }: z.output<z.ZodObject<typeof encodingKeys>>,
  result: string,
): CompanionFacts {
  return glue("spread", `float ${mask} => float ${result}`, `${result} = Tile(${mask}, times)`, `int64[4] times = {1, ${channels}, 1, 1}`);
}

/** A latent [rows, channels, height, width] as tokens [rows, tokens, channels · patch · patch]: what `unpacked` takes apart. */
export function packed(latent: string, patch: number, result: string): CompanionFacts {
  return glue(
    "packed",
    `float ${latent} => float ${result}`,
    `shape = Shape(${latent}) rows = Gather(shape, zero) channels = Gather(shape, one) sizes = Gather(shape, behind) counts = Div(sizes, patch)
     height, width = Split<axis = 0>(counts, single)
     in_patches = Concat<axis = 0>(rows, channels, height, patch, width, patch)
     patches = Reshape(${latent}, in_patches) moved = Transpose<perm = [0, 2, 4, 1, 3, 5]>(patches)
     area = Mul(height, width) patch_area = Mul(patch, patch) depth = Mul(channels, patch_area)
     whole = Concat<axis = 0>(rows, area, depth) ${result} = Reshape(moved, whole)`,
    `int64[1] zero = {0}, int64[1] one = {1}, int64[2] behind = {2, 3}, int64[1] patch = {${patch}}, int64[2] single = {1, 1}`,
  );
}

/**
 * `pixels`, [batch, …sizes, channels] of bytes, of `values`, [batch, channels, …sizes]: black is 0, white 255, what is beyond is clipped, and
 * a half is rounded to the even neighbour (`VaeImageProcessor` of diffusers' image_processor.py: `denormalize`, `pt_to_numpy`, `numpy_to_pil`).
 */
export function toPixels(sizes: readonly string[], [black, white]: readonly [number, number]): CompanionFacts {
  const perm = [0, ...sizes.map((_, i) => i + 2), 1];
  return glue(
    "pixels",
    `float[rows, channels, ${sizes.join(", ")}] values => uint8 pixels`,
    `scaled = Mul(values, scale) moved = Add(scaled, shift) bounded = Clip(moved, least, most) stretched = Mul(bounded, levels)
     rounded = Round(stretched) bytes = Cast<to = 2>(rounded) pixels = Transpose<perm = [${perm.join(", ")}]>(bytes)`,
    `float scale = {${1 / (white - black)}}, float shift = {${-black / (white - black)}}, float least = {0}, float most = {1}, float levels = {255}`,
  );
}

/** What the decoder, as optimum exports it, makes of a latent. */
export function decoded(latent: string, result: "image" | "video" | "audio"): CompanionFacts {
  return { model: "vae_decoder/model.onnx", inputs: { latent_sample: latent }, outputs: { sample: result } };
}
