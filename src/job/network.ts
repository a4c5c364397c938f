/** The network of a job as it was exported, read once, and its inputs and outputs. */
import { filesOf } from "../../ir/analysis.js";
import { requireWellFormed } from "../../ir/check.js";
import { CompilerError, notRecognised } from "../../ir/diagnostics.js";
import { structureDigest, textDigest } from "../../ir/digest.js";
import type { PortGuess } from "../../ir/dit.js";
import { constant, type Graph, type Model, type Value, withGraph } from "../../ir/graph.js";
import { lift } from "../../ir/lift/index.js";
import { definesFunctions, readModel } from "../../ir/onnx/index.js";
import { assertPlainStep, findPorts, withOneTime } from "../../ir/ports.js";
import { parseCut } from "../../ir/residual/cut.js";
import { rewrite } from "../../ir/rewrite.js";
import { unknownBetween, unknownNamed } from "../../ir/unknown.js";
import { type Stamps, stampsOf } from "../files/index.js";
import { badJsonField } from "../../schedules/diagnostics.js";
import { ORIGINAL_INPUTS } from "../../schedules/index.js";
import { METADATA_PREFIX, missingExtension } from "../words/index.js";
import { assertWired, type OpenCompanion, openCompanions, type OpenCompanions, withoutIdle } from "./companions.js";
import { atFile } from "./at-file.js";
import { type Extensions, loadExtensions } from "./extensions.js";
import { type Recipe, saidOf } from "./recipe.js";
import { openJobSource, type RecipeOverrides, type JobSource, withoutAbsent } from "./source.js";

export interface Network {
  readonly source: JobSource;
  /** The model as in the file; its weights stay on disk. */
  readonly read: Model;
  /** `read` with one input for the time, and with constants for inputs that have a default and that the recipe says nothing of. */
  readonly step: Model;
  readonly ports: PortRoles;
  /** Digest of `read` (`structureDigest`). */
  readonly structure: string;
  /** The networks that the recipe joins to it. */
  readonly companions: OpenCompanions;
  /** The files of `read`, of companions and of all further networks, as they were when they were opened. */
  readonly files: Stamps;
  /** The networks that take over from this one, in the order of the recipe's `networks`. */
  readonly others: readonly Network[];
}

/** The names of the inputs and the output of a step, and what their choice left open. */
export interface PortRoles {
  readonly latent: string;
  /** Absent if the recipe says that there is none. */
  readonly timestep: string | undefined;
  /** All other inputs. */
  readonly conditions: readonly string[];
  readonly prediction: string;
  readonly guesses: readonly PortGuess[];
}

/** Reads the models that MODEL names. Throws what reading, recipes and finding the ports throw. */
export async function openNetwork(path: string, overrides: RecipeOverrides): Promise<Network> {
  const opened = await openJobSource(path, overrides);
  const { read, files } = await readStep(opened.modelFile);
  const inputs = read.graph.inputs.map(({ name }) => name);
  const extensions = await loadExtensions(overrides.extensions ?? []);
  const named = await openCompanions(opened);
  const companions = opened.isDerived ? withoutIdle(named, [...inputs, ...Object.values(ORIGINAL_INPUTS)]) : named;
  const around = [...companions.before, ...companions.after];
  const known = {
    inputs: [...inputs, ...around.flatMap((companion) => [...companion.inputs.values()])],
    dims: [read, ...around.map((companion) => companion.read)].flatMap(({ graph }) =>
      graph.inputs.flatMap(({ type }) => type?.shape ?? []),
    ),
  };
  const recipe = opened.isDerived ? withoutAbsent(opened.recipe, known, overrides) : opened.recipe;
  const specs = (all: readonly OpenCompanion[]): Recipe["after"] => all.flatMap(({ spec, pixelRange }) => (pixelRange ? [] : [spec]));
  const joined = { before: specs(companions.before), after: specs(companions.after) };
  const source = { ...opened, recipe: { ...withExtensions(recipe, extensions), ...joined }, extensions };
  const first = networkOf(source, read, { companions, files });
  const others: Network[] = [];
  for (const modelFile of opened.networkFiles ?? [])
    others.push(
      await atFile(modelFile, async () => {
        const step = await readStep(modelFile);
        return networkOf({ ...source, modelFile }, step.read, { companions, files: step.files });
      }),
    );
  const beside = stampsOf(around.flatMap(({ file, read }) => [...filesOf(read.graph), ...(file === undefined ? [] : [file])]));
  return { ...first, others, files: new Map([...[first, ...others].flatMap((network) => [...network.files]), ...beside]) };
}

/** Reads the step of one network. */
async function readStep(file: string): Promise<{ readonly read: Model; readonly files: Stamps }> {
  const stamps = stampsOf([file]);
  const read = await readModel(file);
  if ([...read.metadata.keys()].some((key) => key.startsWith(METADATA_PREFIX)))
    throw notRecognised(
      "This is a whole sampling run that smoothcc has emitted, not one step.",
      "Name the folder of the artifact, or the model that it was made from.",
    );
  requireWellFormed(read, file);
  return { read, files: new Map([...stampsOf(filesOf(read.graph)), ...stamps]) };
}

/** The network of a model that has been read. Throws NOT_RECOGNISED, RANDOM_NODE, BAD_JSON_FIELD and what finding the ports throws. */
export function networkOf(
  source: JobSource,
  read: Model,
  { companions, files }: Pick<Network, "companions" | "files"> = { companions: { before: [], after: [] }, files: new Map() },
): Network {
  const { recipe } = source;
  assertPlainStep(read.graph);
  assertNoFunctions(read);
  if (recipe.timestep === null && !Object.keys(recipe.inputs).some((name) => saidOf(recipe, name).isPerStep))
    throw badJsonField(
      "recipe",
      "timestep",
      'is null, and no input has a value for each step ("perStep"): all steps would be told the same',
    );
  const asked = { latent: recipe.latent, timestep: recipe.timestep, prediction: recipe.prediction.output };
  const { graph, names } = withOneTime(withoutDefaults(read, recipe), asked);
  const step = withGraph(read, graph);
  const { latent, timestep, prediction, guesses } = findPorts(graph, names);
  const conditions = step.graph.inputs.filter((input) => input !== latent && input !== timestep).map(({ name }) => name);
  const ports = { latent: latent.name, timestep: timestep?.name, conditions, prediction: prediction.name, guesses };
  assertWired(companions, ports);
  return { source, read, step, ports, structure: structureDigest(read), companions, files, others: [] };
}

function assertNoFunctions(read: Model): void {
  const call = definesFunctions(read.extra)
    ? read.graph.nodes.find((node) => !["", "ai.onnx", "com.microsoft"].includes(node.domain))
    : undefined;
  if (call)
    throw notRecognised(
      `The file defines operators of its own, as ${call.domain}.${call.opType}: such functions are not looked into.`,
      "Spell them out first: in Python, onnx.save(onnx.inliner.inline_local_functions(onnx.load(file)), file).",
      call.name,
    );
}

/** The graph with constants for inputs with a default, which are the weights of old exports, except those that the recipe names. */
function withoutDefaults({ graph }: Model, { latent, timestep, inputs, guidance }: Recipe): Graph {
  const named = new Set([latent, timestep ?? [], guidance.input, ...Object.keys(inputs), ...Object.keys(guidance.uncond)].flat());
  const constants = graph.inputs.flatMap((input): [Value, Value][] =>
    input.data && !named.has(input.name) ? [[input, constant(input.name, input.data)]] : [],
  );
  return constants.length === 0 ? graph : rewrite(graph, () => undefined, new Map(constants));
}

/** The network with other facts in its recipe. */
export function withRecipe(network: Network, facts: Partial<Recipe>): Network {
  const { source } = network;
  return { ...network, source: { ...source, recipe: { ...source.recipe, ...facts } } };
}

/** All networks of a run, in the order of the rows that call them. They have one recipe, that of the first. */
export function allNetworks(network: Network): readonly Network[] {
  return [network, ...network.others.map((other) => withRecipe(other, network.source.recipe))];
}

/** What identifies the structures of all networks of a run. */
export function structureOf(network: Network): string {
  const [first = network.structure, ...others] = allNetworks(network).map(({ structure }) => structure);
  return others.length === 0 ? first : textDigest([first, ...others].join());
}

/** The step with its branches, cut as in the recipe: `step` as it is, or after passes. Throws what lifting throws. */
export function lifted({ source: { recipe, extensions }, ports }: Network, step: Model): Model {
  const { latent, timestep, prediction, guesses } = ports;
  try {
    return lift(step, { latent, timestep: timestep ?? null, prediction, guesses, cut: parseCut(recipe.cut), own: extensions?.recognisers });
  } catch (error) {
    const unknown = unknownBetween(step.graph, latent, prediction);
    if (!(error instanceof CompilerError) || error.code !== "NOT_RECOGNISED" || unknown.length === 0) throw error;
    throw notRecognised(`${error.message} ${unknownNamed(unknown)}, which may be why.`, error.hint, error.where.node);
  }
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
