/** What diffusers' pipelines do between their networks, as companions of a recipe. */
import type { CompanionFacts } from "./recipe.js";

/**
 * Operators between networks, in ONNX's text form (ir/print.ts): `glue("halve", "float x => float y", "y = Mul(x, half)", "float half = {0.5}")`.
 * Shapes are those of what the inputs read; constants have theirs.
 */
export function glue(name: string, signature: string, body: string, constants = ""): CompanionFacts {
  const [inputs = "", outputs = ""] = signature.split("=>");
  const held = constants === "" ? "" : `<${constants}>`;
  return { graph: `<ir_version: 8, opset_import: ["" : 17]> ${name} (${inputs.trim()}) => (${outputs.trim()}) ${held} { ${body} }` };
}

/** latent / scaling_factor + shift_factor, as AutoencoderKL wants it, decoded by `vae_decoder`, as optimum exports it. */
export function decodedBy(
  {
    scaling_factor: scale = 1,
    shift_factor: shift,
  }: { readonly scaling_factor?: number | undefined; readonly shift_factor?: number | null | undefined },
  result = "image",
): readonly CompanionFacts[] {
  const constants = `float scale = {${scale}}, float shift = {${shift ?? 0}}`;
  return [
    glue(
      "unscaled",
      "float latent => float unscaled_latent",
      "divided = Div(latent, scale) unscaled_latent = Add(divided, shift)",
      constants,
    ),
    { model: "vae_decoder/model.onnx", inputs: { latent_sample: "unscaled_latent" }, outputs: { sample: result } },
  ];
}
