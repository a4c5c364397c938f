/** One job: the model and the recipe that MODEL names, bound to each other and to a sampler; what is wrong with them is said here. */
import { elemOf } from "../../ir/build.js";
import { requireWellFormed } from "../../ir/check.js";
import { ambiguousPort, notRecognised } from "../../ir/diagnostics.js";
import { badGuidance, fractionalTime, inputNumber, METADATA_PREFIX, missingExtension, noVariance } from "../words/index.js";
import { ditView, type Model } from "../../ir/graph.js";
import { lift } from "../../ir/lift/index.js";
import { readModel } from "../../ir/onnx/index.js";
import { parseCut } from "../../ir/residual/cut.js";
import { bind, callsOf, hasUnguidedRows, type Plan, type SamplerTable, type Schedule, unknownKeys } from "../../schedules/index.js";
import { bindModel, type BoundModel, latentInput, latentShape } from "./bound-model.js";
import { type Extensions, loadExtensions } from "./extensions.js";
import { openSource, type RecipeOverrides, type Source, withoutAbsentInputs } from "./source.js";
import { type Sampling, samplingOf, schedulerConfig } from "./sampling.js";
import type { Recipe } from "./recipe.js";
import { assertDevice, type RuntimeOptions } from "../runtime/index.js";
import { holdsNumber } from "./values.js";

export interface Job extends BoundModel, Sampling {}

/** Reads and lifts the model that MODEL names. Throws what reading, recipes and lifting throw. */
export async function openLifted(path: string, overrides: RecipeOverrides): Promise<{ readonly source: Source; readonly model: Model }> {
  const opened = openSource(path, overrides);
  const model = await readModel(opened.modelFile);
  const inputs = model.graph.inputs.map(({ name }) => name);
  const extensions = await loadExtensions(overrides.extensions ?? []);
  const recipe = opened.isDerived ? withoutAbsentInputs(opened.recipe, inputs, overrides.inputs) : opened.recipe;
  const source = { ...opened, recipe: withExtensions(recipe, extensions), extensions };
  if ([...model.metadata.keys()].some((key) => key.startsWith(METADATA_PREFIX)))
    throw notRecognised(
      "This is a whole sampling run that smoothcc has emitted, not one step.",
      "Name the folder of the artifact, or the model that it was made from.",
    );
  requireWellFormed(model, opened.modelFile);
  return { source, model: liftedAs(source, model) };
}

/** The recipe, needing what was loaded for it: policies have done their work once there is a plan. Throws MISSING_EXTENSION. */
function withExtensions(recipe: Recipe, { recognisers, samplers, passes }: Extensions): Recipe {
  const given = [...recognisers, ...samplers, ...passes].map(({ name }) => name);
  const missing = recipe.extensions.find((name) => !given.includes(name));
  if (missing !== undefined) throw missingExtension(missing);
  return { ...recipe, extensions: given };
}

/** The model with the branches, the names and the cut of a source. */
function liftedAs({ recipe, extensions }: Source, model: Model): Model {
  const { latent, timestep, prediction, cut } = recipe;
  return lift(model, { latent, timestep, prediction: prediction.output, cut: parseCut(cut), own: extensions?.recognisers });
}

/** The job of a model and its recipe. `runtime` is where it will run, and for the questions that passes ask. Throws what its parts throw. */
export async function openJob(path: string, overrides: RecipeOverrides, runtime: RuntimeOptions = {}): Promise<Job> {
  await assertDevice(runtime.device);
  const { source, model } = await openLifted(path, overrides);
  const [guess] = ditView(model).guesses;
  if (guess) throw ambiguousPort(guess.role, guess.option, guess.candidates);
  return jobOf(source, model, runtime);
}

/**
 * The job with its network cut where a schedule wants it, read again where that is somewhere else. Throws NOT_RECOGNISED where
 * the network cannot be cut there.
 */
export async function jobFor(job: Job, { cut = job.source.recipe.cut }: Pick<Schedule, "cut">, runtime: RuntimeOptions = {}): Promise<Job> {
  const { source } = job;
  if (cut === source.recipe.cut) return job;
  const recut = { ...source, recipe: { ...source.recipe, cut } };
  return jobOf(recut, liftedAs(recut, await readModel(source.modelFile)), runtime);
}

/** A schedule, bound to the job that it is for (`jobFor`). Throws what `bind` throws. */
export function planFor({ model, table, context }: Job, schedule: Schedule): Plan {
  return bind(schedule, table, ditView(model).branches, context.guidance);
}

async function jobOf(source: Source, model: Model, runtime: RuntimeOptions): Promise<Job> {
  const bound = await bindModel(source, model, runtime);
  const sampling = samplingOf(source, latentShape(bound));
  const job = { ...bound, ...sampling };
  assertTimes(bound.model, sampling.table);
  assertGuidance(job);
  assertVariance(job);
  return job;
}

/** Sentences for the user about what was found and what will have no effect. */
export function warningsOf({ source, model, context }: Job): readonly string[] {
  const unknown = unknownKeys(schedulerConfig(source), source.extensions?.samplers).map(
    (key) => `The scheduler's '${key}' is not known here and has no effect.`,
  );
  const { guidance } = context;
  const { form, scale } = guidance;
  const twoHalves = callsOf(guidance).flat().length > 1;
  const unguided = twoHalves ? context.uncond.size === 0 : form === "none" && scale !== 1;
  const noUncond = twoHalves
    ? 'Guidance has no effect: "guidance.uncond" in the recipe does not say what the unconditional half sees.'
    : `The guidance scale ${String(scale)} has no effect: the recipe's "guidance.form" is '${form}'.`;
  const undropped = !guidance.drops && scale !== 1 && hasUnguidedRows(guidance);
  const noDrop =
    "Steps at guidance scale 1 still compute both halves: this export cannot run one of them. Export with a symbolic batch, or use the form 'two-calls'.";
  return [...ditView(model).warnings, ...unknown, ...(unguided ? [noUncond] : []), ...(undropped ? [noDrop] : [])];
}

/** Throws FRACTIONAL_TIME if the sampler's times are no whole numbers and the network takes nothing else, INPUT_NUMBER if they are too large for it. */
function assertTimes({ graph, dit }: Model, { name, rows }: SamplerTable): void {
  const input = graph.inputs.find((value) => value.name === dit?.timestep);
  if (!input?.type) return;
  const { elem } = input.type;
  const misfit = rows.find(({ timestep }) => !holdsNumber(elem, timestep));
  if (!misfit) return;
  throw Number.isInteger(misfit.timestep)
    ? inputNumber(input.name, elem, misfit.timestep)
    : fractionalTime(name, misfit.timestep, input.name, elem);
}

/** Throws BAD_GUIDANCE for scales, an interval or channels that do not fit the run, INPUT_NUMBER for scales that do not fit their input. */
function assertGuidance({ model, table, context: { guidance, prediction } }: Job): void {
  const { scale, interval, channels } = guidance;
  const rows = table.rows.length;
  if (typeof scale !== "number" && scale.length !== rows)
    throw badGuidance(
      "scale",
      `has ${scale.length} numbers for ${rows} evaluations of the network`,
      "Give one scale, or one for each evaluation.",
    );
  const input = model.graph.inputs.find(({ name }) => name === guidance.input);
  const misfit = input && [scale].flat().find((number) => !holdsNumber(elemOf(input), number));
  if (input && misfit !== undefined) throw inputNumber(input.name, elemOf(input), misfit);
  if (interval && (interval[0] >= interval[1] || interval[1] > rows))
    throw badGuidance(
      "interval",
      `[${interval.join(", ")}] is no part of ${rows} steps`,
      "It is [from, to): steps count from 0, and `to` is not guided any more.",
    );
  const have = latentInput(model)?.type?.shape?.[prediction.channelAxis];
  if (channels && (channels[0] >= channels[1] || channels[1] > Number(have)))
    throw badGuidance(
      "channels",
      `[${channels.join(", ")}] are no channels of a prediction that has ${have}`,
      "They are [from, to) and count within the prediction.",
    );
}

/** Throws NO_VARIANCE if the sampler's noise is learned and the network gives nothing after the prediction's channels. */
function assertVariance({ model, table, context: { prediction } }: Job): void {
  if (!table.rows.some(({ next }) => next.learned)) return;
  const have = Number(model.graph.outputs[0]?.value.type?.shape?.[prediction.channelAxis]);
  const need = Number(latentInput(model)?.type?.shape?.[prediction.channelAxis]);
  if ((prediction.channels?.[1] ?? have) + need > have) throw noVariance(table.name, have, need);
}
