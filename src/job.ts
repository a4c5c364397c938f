/** One job: the lifted model with the recipe's facts worked out against it, ready for the passes and for the loop. */
import {
  ambiguousPort,
  badChannels,
  badGuidance,
  fractionalTime,
  inputNumber,
  missingExtension,
  missingInput,
  noVariance,
  notRecognised,
  predictionShape,
  unknownName,
} from "../ir/diagnostics.js";
import { requireWellFormed } from "../ir/check.js";
import { addMacs, NO_MACS, stepCost, totalMacs, type Macs } from "../ir/cost.js";
import { ditView, opsetOf, type Model, type Value } from "../ir/graph.js";
import { lift } from "../ir/lift/index.js";
import { parseCut } from "../ir/residual/cut.js";
import { readModel } from "../ir/onnx/index.js";
import { isStandard } from "../ir/ops.js";
import { shapeOf, elemOf } from "../ir/build.js";
import type { TensorData } from "../ir/tensor.js";
import { staticShape, type Dim } from "../ir/types.js";
import standard from "../passes/standard.js";
import { BIND_PASSES, runPasses, type PassContext, type PredictionSlice } from "../passes/index.js";
import {
  bind,
  cachedBranches,
  callsOf,
  hasUnguidedRows,
  uncondInput,
  unknownKeys,
  type CachedBranch,
  type Guidance,
  type Plan,
  type SamplerTable,
  type Schedule,
} from "../schedules/index.js";
import { loadExtensions, type Extensions } from "./extensions.js";
import {
  floatTypeOf,
  isInput,
  openSource,
  schedulerConfig,
  samplingOf,
  withoutAbsentInputs,
  type InputSpecs,
  type Recipe,
  type RecipeOverrides,
  type Sampling,
  type Source,
  type ValueSpec,
} from "./recipe.js";
import { assertDevice, evaluator, type RuntimeOptions } from "./runtime.js";
import { holds, sampleOf, tensorFor } from "./values.js";
import { METADATA_PREFIX } from "./version.js";

/** A model and its recipe, worked out against each other. */
export interface BoundModel {
  readonly source: Source;
  /** Lifted, with every shape bound and every value typed; otherwise as the exporter wrote it. */
  readonly model: Model;
  /** Whether the export's batch is symbolic. */
  readonly anyBatch: boolean;
  readonly context: PassContext;
}

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

/** Whether the export takes any batch and the recipe's conditions can be had for it: numbers, one a row, grids, or a file of samples. */
export function fitsAnyBatch({ source, model, anyBatch }: Job): boolean {
  const fits = conditionValues(model).every((value) => {
    const { inputs, guidance } = source.recipe;
    const given = [value.name, uncondInput(value.name)].flatMap((name) => inputs[name] ?? []);
    const calibrated = given.flatMap(({ calibrate = [] }) => (typeof calibrate === "string" ? [] : calibrate));
    const specs = [...calibrated, ...given.map(({ fix }) => fix ?? 0), guidance.uncond[value.name] ?? 0];
    return shapeOf(value).length <= 1 || specs.every((spec) => typeof spec !== "string" && !Array.isArray(spec));
  });
  return anyBatch && fits;
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
  const misfit = rows.find(({ timestep }) => !holds(elem, timestep));
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
  const misfit = input && [scale].flat().find((number) => !holds(elemOf(input), number));
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

/** Binds the shapes of a lifted model to the recipe's batch and dims, and works out what else the recipe says of it. */
export async function bindModel(source: Source, lifted: Model, runtime: RuntimeOptions): Promise<BoundModel> {
  const { recipe } = source;
  const { form } = recipe.guidance;
  const batch = recipe.batch ?? exportedBatch(lifted, form);
  const unbound: PassContext = {
    evaluator: evaluator(runtime),
    signal: runtime.signal,
    batch,
    dims: new Map(Object.entries(recipe.dims)),
    fixed: new Map(),
    guidance: guidanceOf(recipe, lifted),
    batched: batchedInputs(lifted, form === "batched" ? 2 * batch : batch),
    uncond: new Map(),
    prediction: recipe.prediction,
    precision: floatTypeOf(recipe),
  };
  const model = await runPasses(withoutScaleInput(lifted, unbound.guidance), BIND_PASSES, unbound);
  const conditions = conditionValues(model);
  const known = conditions.map(({ name }) => name);
  const assertKnown = (named: object, known: readonly string[]): void => {
    const stray = Object.keys(named).find((name) => !known.includes(name));
    if (stray !== undefined) throw unknownName("condition input", stray, known);
  };
  assertKnown(recipe.guidance.uncond, known);
  assertKnown(recipe.inputs, [...known, ...known.filter((name) => isInput(recipe.guidance.uncond[name])).map(uncondInput)]);
  const fixed = new Map<string, TensorData>();
  const uncond = new Map<string, TensorData | "input">();
  for (const value of conditions) {
    const half = (spec: ValueSpec): TensorData => tensorFor(value, halfShape(value, unbound), spec, source.folder);
    const asked = recipe.guidance.uncond[value.name];
    const without = isInput(asked) ? (recipe.inputs[uncondInput(value.name)]?.fix ?? asked) : asked;
    if (without !== undefined && callsOf(unbound.guidance).flat().includes("uncond"))
      uncond.set(value.name, isInput(without) ? "input" : half(without));
    const fix = recipe.inputs[value.name]?.fix;
    if (fix !== undefined && fix !== null) fixed.set(value.name, half(fix));
  }
  const anyBatch = typeof latentRows(lifted) === "string";
  const alone = anyBatch ? await boundAlone(lifted, model, unbound) : undefined;
  const prediction = predictionSlice(model, recipe.prediction);
  const guidance = { ...unbound.guidance, drops: form !== "batched" || alone !== undefined };
  return {
    source,
    model: await withForeign(withCoverage(model), unbound),
    anyBatch,
    context: { ...unbound, fixed, uncond, prediction, guidance, alone },
  };
}

/** The recipe's guidance. Throws UNKNOWN_NAME where an embedded scale has no input. */
function guidanceOf({ guidance }: Recipe, lifted: Model): Guidance {
  const { form, scale, interval, order, channels, rescale, input = SCALE_INPUT } = guidance;
  const all = { form, scale, interval, order, channels, rescale, drops: true };
  if (form !== "embedded") return all;
  const { conditions } = ditView(lifted);
  if (!conditions.includes(input)) throw unknownName("input for the guidance scale", input, conditions);
  return { ...all, input };
}

/** What diffusers calls it (FLUX.1 dev, HunyuanVideo). */
const SCALE_INPUT = "guidance";

/** The model with the input of an embedded scale no condition: the recipe sets it. */
function withoutScaleInput(lifted: Model, { input }: Guidance): Model {
  const view = ditView(lifted);
  return { ...lifted, dit: { ...view, conditions: view.conditions.filter((name) => name !== input) } };
}

/** Under batched guidance with rows that are not guided, the step bound to one half of the rows; absent where a branch does not have its halves along axis 0. */
async function boundAlone(lifted: Model, both: Model, unbound: PassContext): Promise<Model | undefined> {
  const { guidance } = unbound;
  if (guidance.form !== "batched" || !hasUnguidedRows(guidance)) return undefined;
  const alone = await runPasses(lifted, BIND_PASSES, { ...unbound, guidance: { ...guidance, form: "none" } });
  const shapes = both.graph.marks.map(({ value }) => shapeOf(value));
  const fits = alone.graph.marks.every(({ value }, i) => {
    const [rows = 0, ...rest] = shapeOf(value);
    return [2 * rows, ...rest].join() === shapes[i]?.join();
  });
  return fits ? alone : undefined;
}

/** The shape of the latent at the artifact: without guidance doubling. */
export function latentShape({ model, context }: BoundModel): readonly number[] {
  return [context.batch, ...(staticShape(latentInput(model)?.type) ?? []).slice(1)];
}

/** What a guided step costs: all of its calls of the network, and every branch of them that has a cache of its own. */
export function guidedStep({ model, context }: BoundModel): {
  readonly total: Macs;
  readonly branches: readonly (CachedBranch & { readonly macs: Macs })[];
} {
  const { total, branches: costs } = stepCost(model);
  const calls = callsOf(context.guidance);
  const branches = ditView(model).branches.map((branch) => ({ ...branch, macs: costs.get(branch.site) ?? NO_MACS }));
  return {
    total: calls.reduce((sum) => addMacs(sum, total), NO_MACS),
    branches: cachedBranches(branches, context.guidance),
  };
}

/** Branches that hold less than this share of a step's MACs are not all that there are. */
const EXPECTED_COVERAGE = 0.5;

/** The model with a warning where much of it is in no branch that was found. */
function withCoverage(model: Model): Model {
  const { total, branches } = stepCost(model);
  const all = totalMacs(total);
  const found = [...branches.values()].reduce((sum, macs) => sum + totalMacs(macs), 0);
  if (all === 0 || found >= EXPECTED_COVERAGE * all) return model;
  const share = ((100 * found) / all).toFixed(0);
  const warning = `Only ${share} % of a step's MACs are in branches that were found; the rest is computed at every step. The model may be of a kind that is not supported yet.`;
  const view = ditView(model);
  return { ...model, dit: { ...view, warnings: [...view.warnings, warning] } };
}

/** The model with a warning where the artifact will have operators that are not of the standard. */
async function withForeign(model: Model, context: PassContext): Promise<Model> {
  const { graph } = await runPasses(model, [standard], context);
  const foreign = graph.nodes.filter((node) => !isStandard(node, opsetOf(model)));
  if (foreign.length === 0) return model;
  const operators = [...new Set(foreign.map(({ domain, opType }) => (domain === "" ? opType : `${domain}.${opType}`)))].join(", ");
  const count = foreign.length === 1 ? "1 node has an operator" : `${foreign.length} nodes have operators`;
  const warning = `${count} outside of the ONNX standard (${operators}), which other runtimes may not have: export without ONNX Runtime's extended optimisation.`;
  const view = ditView(model);
  return { ...model, dit: { ...view, warnings: [...view.warnings, warning] } };
}

/** The batch that a static export was made for; 1 where the batch is symbolic. */
function exportedBatch(lifted: Model, form: Guidance["form"]): number {
  const rows = latentRows(lifted);
  return typeof rows === "number" ? Math.max(1, Math.floor(form === "batched" ? rows / 2 : rows)) : 1;
}

/** Axis 0 of the exporter's latent. */
function latentRows(lifted: Model): Dim {
  return latentInput(lifted)?.type?.shape?.[0] ?? null;
}

function latentInput(model: Model): Value | undefined {
  return model.graph.inputs.find(({ name }) => name === ditView(model).latent);
}

function conditionValues(model: Model): readonly Value[] {
  const { conditions } = ditView(model);
  return model.graph.inputs.filter(({ name }) => conditions.includes(name));
}

/** The condition inputs of the artifact, without guidance doubling. */
function conditionInputs({ model, context }: BoundModel): readonly Value[] {
  return conditionValues(model).flatMap((value) => {
    const half = { ...value, type: { elem: elemOf(value), shape: halfShape(value, context) } };
    const cond = context.fixed.has(value.name) ? [] : [half];
    return context.uncond.get(value.name) === "input" ? [...cond, { ...half, name: uncondInput(value.name) }] : cond;
  });
}

/** Values of the artifact's condition inputs for one sample: from `given`, else what the recipe calibrates with. */
export function conditionsOf(job: BoundModel, sample: number, given: InputSpecs = new Map()): ReadonlyMap<string, TensorData> {
  const { recipe, folder } = job.source;
  const free = conditionInputs(job);
  for (const name of given.keys()) {
    if (!free.some((value) => value.name === name))
      throw unknownName(
        "condition input",
        name,
        free.map((value) => value.name),
      );
  }
  return new Map(
    free.map((value) => {
      const shape = shapeOf(value);
      const spec = given.get(value.name);
      if (spec !== undefined) return [value.name, tensorFor(value, shape, spec, process.cwd())];
      const calibrate = recipe.inputs[value.name]?.calibrate;
      if (calibrate === undefined) throw missingInput(value.name, shape);
      return [value.name, sampleOf(value, shape, calibrate, sample, folder)];
    }),
  );
}

/** The shape of a condition at the artifact: one half of it under batched guidance. */
function halfShape(value: Value, { guidance, batch, batched }: PassContext): readonly number[] {
  const shape = shapeOf(value);
  return guidance.form === "batched" && batched.has(value.name) ? [batch, ...shape.slice(1)] : shape;
}

/** Inputs whose axis 0 is the latent's: the same symbolic dimension, or the same size where the export is static. */
function batchedInputs(lifted: Model, boundRows: number): ReadonlySet<string> {
  const rows = latentRows(lifted) ?? boundRows;
  return new Set(lifted.graph.inputs.filter(({ type }) => type?.shape?.[0] === rows).map(({ name }) => name));
}

/** The channels that are the prediction: the recipe's, or as many as the latent has where the network also gives a variance. */
function predictionSlice(model: Model, recipe: PredictionSlice): PredictionSlice {
  const wanted = staticShape(latentInput(model)?.type);
  const found = staticShape(model.graph.outputs[0]?.value.type);
  const { channelAxis } = recipe;
  const have = found?.[channelAxis] ?? 0;
  const need = wanted?.[channelAxis] ?? 0;
  if (!wanted || !found) return recipe;
  const channels = recipe.channels ?? (have > need ? [0, need] : undefined);
  if (channels === undefined ? have !== need : channels[1] > have || channels[1] - channels[0] !== need)
    throw badChannels(channels, channelAxis, have, need);
  const other = wanted.some((size, axis) => axis !== channelAxis && size !== found[axis]);
  if (other || wanted.length !== found.length) throw predictionShape(found, wanted);
  return { ...recipe, channels: channels?.[0] === 0 && channels[1] === have ? undefined : channels };
}
