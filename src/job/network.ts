/** The network of a job as it was exported, read once and lifted with the requested branches and cut. */
import { requireWellFormed } from "../../ir/check.js";
import { notRecognised } from "../../ir/diagnostics.js";
import { structureDigest } from "../../ir/digest.js";
import type { Model } from "../../ir/graph.js";
import { lift } from "../../ir/lift/index.js";
import { definesFunctions, readModel } from "../../ir/onnx/index.js";
import { parseCut } from "../../ir/residual/cut.js";
import { METADATA_PREFIX, missingExtension } from "../words/index.js";
import { type Extensions, loadExtensions } from "./extensions.js";
import type { Recipe } from "./recipe.js";
import { openJobSource, type RecipeOverrides, type JobSource, withoutAbsentInputs } from "./source.js";

export interface Network {
  readonly source: JobSource;
  /** The model as in the file; its weights stay on disk. */
  readonly read: Model;
  /** The model with its branches, cut as in the recipe. */
  readonly lifted: Model;
  /** Digest of `read` (`structureDigest`). */
  readonly structure: string;
}

/** Reads and lifts the model that MODEL names. Throws what reading, recipes and lifting throw. */
export async function openNetwork(path: string, overrides: RecipeOverrides): Promise<Network> {
  const opened = openJobSource(path, overrides);
  const read = await readModel(opened.modelFile);
  const inputs = read.graph.inputs.map(({ name }) => name);
  const extensions = await loadExtensions(overrides.extensions ?? []);
  const recipe = opened.isDerived ? withoutAbsentInputs(opened.recipe, inputs, overrides.inputs) : opened.recipe;
  const source = { ...opened, recipe: withExtensions(recipe, extensions), extensions };
  if ([...read.metadata.keys()].some((key) => key.startsWith(METADATA_PREFIX)))
    throw notRecognised(
      "This is a whole sampling run that smoothcc has emitted, not one step.",
      "Name the folder of the artifact, or the model that it was made from.",
    );
  const call = definesFunctions(read.extra)
    ? read.graph.nodes.find((node) => !["", "ai.onnx", "com.microsoft"].includes(node.domain))
    : undefined;
  if (call)
    throw notRecognised(
      `The file defines operators of its own, as ${call.domain}.${call.opType}: such functions are not looked into.`,
      "Spell them out first: in Python, onnx.save(onnx.inliner.inline_local_functions(onnx.load(file)), file).",
      call.name,
    );
  requireWellFormed(read, opened.modelFile);
  return { source, read, lifted: liftedAt(source, read, source.recipe.cut), structure: structureDigest(read) };
}

/** The network cut somewhere else. Throws NOT_RECOGNISED where it cannot be cut there. */
export function recut(network: Network, cut: string): Network {
  const { source, read } = network;
  if (cut === source.recipe.cut) return network;
  return { ...network, source: { ...source, recipe: { ...source.recipe, cut } }, lifted: liftedAt(source, read, cut) };
}

function liftedAt({ recipe, extensions }: JobSource, read: Model, cut: string): Model {
  const { latent, timestep, prediction } = recipe;
  return lift(read, { latent, timestep, prediction: prediction.output, cut: parseCut(cut), own: extensions?.recognisers });
}

/**
 * The recipe with the loaded extensions as its requirements; policies are not needed any more once there is a plan.
 * Throws MISSING_EXTENSION.
 */
function withExtensions(recipe: Recipe, { recognisers, samplers, passes }: Extensions): Recipe {
  const given = [...recognisers, ...samplers, ...passes].map(({ name }) => name);
  const missing = recipe.extensions.find((name) => !given.includes(name));
  if (missing !== undefined) throw missingExtension(missing);
  return { ...recipe, extensions: given };
}
