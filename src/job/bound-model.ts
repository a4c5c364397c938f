/** A network with bound shapes, and the recipe resolved against it: everything of a run except its sampler. */
import { shapeOf } from "../../ir/build.js";
import { unknownName } from "../../ir/diagnostics.js";
import type { Half } from "../../ir/dit.js";
import { entryAt } from "../../ir/entries.js";
import { constant, ditView, inputValue, type Model, type Value, withGraph } from "../../ir/graph.js";
import { rewrite, sweep } from "../../ir/rewrite.js";
import { firstUndecided } from "../../ir/sizes.js";
import { readTensor, type TensorData } from "../../ir/tensor.js";
import { type Dim, staticShape, type TensorType } from "../../ir/types.js";
import { BIND_PASSES, DERIVE_PASSES, inferTypes, type Questions, runPasses, SETTLE_PASSES, untilSettled } from "../../passes/index.js";
import { batchAsDim, batchMismatch } from "../../schedules/diagnostics.js";
import {
  type Companions,
  type Condition,
  freeName,
  type Guidance,
  guidedHalves,
  hasUnguidedRows,
  type Original,
  LATENT_VALUE,
  networkName,
  ORIGINAL_INPUTS,
  type PredictionSlice,
  type RunFacts,
} from "../../schedules/index.js";
import { evaluator, type RuntimeOptions } from "../runtime/index.js";
import { badChannels, dataDependent, predictionShape, typeUnknown } from "../words/index.js";
import { atFile } from "./at-file.js";
import { bindCompanions, dimsFrom } from "./companions.js";
import {
  assertFed,
  assertInputsKnown,
  companionInputs,
  conditionSourcesOf,
  differingIn,
  originalOf,
  rowGivenFor,
} from "./condition-sources.js";
import { findingsOf } from "./findings.js";
import { assertSameBranches, assertSameInputs, assertSameTypes, sizesLike } from "./agreement.js";
import { allNetworks, lifted, type Network, type PortRoles, structureOf } from "./network.js";
import { floatTypeOf, type Recipe } from "./recipe.js";
import { samplingOf } from "./sampling.js";
import type { JobSource } from "./source.js";

/** A network with bound shapes. Lifted again, at another cut, it need not be bound again. */
export interface BoundNetwork {
  readonly network: Network;
  readonly guidance: Guidance;
  readonly batch: number;
  readonly conditions: ReadonlyMap<string, Condition>;
  readonly companions: Companions;
  readonly original: Pick<Original, "image" | "mask"> | undefined;
  /** The steps of all networks of the run, this one first. */
  readonly steps: readonly BoundStep[];
  /** Whether the batch of every export is symbolic. */
  readonly anyBatch: boolean;
}

/** One of the networks of a run, not lifted or lifted. */
interface BoundStep {
  /** The step as guided rows call it, with all shapes bound and all values typed. */
  readonly model: Model;
  /** The step for the rows of one half, if some rows of the run may call it: `model` itself where calls see one half. */
  readonly single?: Model | undefined;
}

export interface BoundModel {
  readonly bound: BoundNetwork;
  readonly source: JobSource;
  /** The step as guided rows call it: the exporter's graph with all shapes bound and all values typed, lifted. */
  readonly model: Model;
  readonly facts: Omit<RunFacts, "table" | "steps" | "borders" | "original">;
}

/** Binds the shapes of a network to the recipe's batch and dims, and lifts it. Throws what its parts throw. */
export async function bindModel(network: Network, runtime: RuntimeOptions): Promise<BoundModel> {
  return liftBound(await bindNetwork(network, runtime), runtime);
}

/**
 * Binds the shapes of a network to the recipe's batch and dims, and those of further networks to its own. Throws DATA_DEPENDENT,
 * NETWORKS_DIFFER, and what passes and values of a recipe throw.
 */
async function bindNetwork(network: Network, runtime: RuntimeOptions): Promise<BoundNetwork> {
  const { source, step, ports } = network;
  const { recipe } = source;
  const guidance = guidanceOf(recipe, ports);
  const taken = new Set([ports.latent, ...ports.conditions, ...companionInputs(network)]);
  const own =
    recipe.image === true || recipe.inpaint === true
      ? { image: freeName(ORIGINAL_INPUTS.image, taken), mask: recipe.inpaint === true ? freeName(ORIGINAL_INPUTS.mask, taken) : undefined }
      : undefined;
  assertInputsKnown(
    network,
    guidance,
    Object.values(own ?? {}).filter((name) => name !== undefined),
  );
  const batch = recipe.batch ?? exportedBatch(network, guidance);
  const questions = { evaluator: evaluator(runtime), signal: runtime.signal };
  const types = new Map<string, TensorType>();
  const differing = differingIn(network, guidance);
  const givenRow = (input: string, rank: number): readonly number[] | undefined => rowGivenFor(input, rank, source);
  const surroundings = { types, batch, dims: recipe.dims, differing, givenRow };
  const before = await bindCompanions(network.companions.before, surroundings, questions);
  const shapedTo = (step: Model, sizes: ReadonlyMap<string, number>): Promise<Model> =>
    runPasses(step, BIND_PASSES, { ...questions, sizes, precision: floatTypeOf(recipe) });
  const shapedFor = (halves: number): Promise<Model> => shapedTo(step, dimSizesOf(network, batch, halves, types));
  const halves = halvesOfCall(guidance);
  const shaped = await shapedFor(halves);
  const isBatched = batchedInputs(network, batch * halves);
  const latent = [batch, ...(staticShape(inputNamed(shaped, ports.latent)?.type) ?? []).slice(1)];
  const tableRows = (): number => samplingOf(source, latent).table.rows.length;
  const halving = { batch, isBatched, tableRows, differing };
  const conditions = conditionSourcesOf(network, conditionValues(shaped, network, guidance), halving);
  assertFed(network, conditions, types);
  for (const [name, { type }] of conditions) if (type && !types.has(name)) types.set(name, type);
  types.set(LATENT_VALUE, { elem: "float", shape: latent });
  const after = await bindCompanions(network.companions.after, { ...surroundings, differing: new Set() }, questions);
  const unfed = companionInputs(network).map((name) => inputValue(name, types.get(name)));
  const inputs = conditionSourcesOf(network, unfed, { ...halving, isBatched: new Set() }, types);
  const original = own && originalOf(network, own, latent, tableRows);
  const kept = [original?.image, original?.mask].flatMap((own) => own ?? []);
  assertFed(network, new Map(kept.map((own) => [own.name, own])), types);
  const networks = allNetworks(network);
  const anyBatch = networks.every((one) => typeof latentRows(one) === "string");
  const isUnguided = hasUnguidedRows(guidance) || recipe.networks.some(({ scale }) => scale === 1);
  const shapedAlone = halves > 1 && anyBatch && isUnguided ? await shapedFor(1) : undefined;
  const stepOf = async (own: Network): Promise<BoundStep> => {
    /** The step of this network with the sizes that the first one has. */
    const like = async (first: Model): Promise<Model> => {
      if (own === network) return first;
      const shaped = await shapedTo(own.step, sizesLike(first, own.step));
      assertSameTypes(first, shaped, own.source.modelFile);
      return shaped;
    };
    const settled = async (first: Model, seen: readonly (readonly Half[])[]): Promise<Model> =>
      settledWith(await like(first), own, { conditions, seen }, questions);
    const model = await settled(shaped, guidedHalves(guidance));
    return { model, single: halves === 1 ? model : shapedAlone && (await settled(shapedAlone, [["cond"]])) };
  };
  const steps: BoundStep[] = [];
  for (const own of networks) {
    assertSameInputs(network, own);
    steps.push(await (own === network ? stepOf(own) : atFile(own.source.modelFile, () => stepOf(own))));
  }
  const companions = { before, after, inputs, keepLatent: recipe.keepLatent };
  return { network, guidance, batch, conditions, companions, original, steps, anyBatch };
}

/** Lifts what is bound, with the cut of the network's recipe, and resolves the rest of the recipe against it. */
export async function liftBound(bound: BoundNetwork, runtime: RuntimeOptions): Promise<BoundModel> {
  const { network, guidance, batch, conditions, companions, steps } = bound;
  const { source } = network;
  const { recipe } = source;
  const first = await liftedStep(network, entryAt(steps, 0), guidance, runtime);
  const others: BoundStep[] = [];
  for (const [i, other] of allNetworks(network).slice(1).entries()) {
    const { modelFile } = other.source;
    const step = await atFile(modelFile, () => liftedStep(other, entryAt(steps, i + 1), guidance, runtime));
    assertSameBranches(first.model, step.model, modelFile);
    others.push(step);
  }
  const prediction = predictionSlice(first.model, recipe.prediction);
  const warnings = new Set(others.flatMap(({ model }) => ditView(model).warnings));
  for (const known of ditView(first.model).warnings) warnings.delete(known);
  const model = withWarnings(first.model, [...warnings, ...findingsOf(first.model, recipe, prediction)]);
  const shown = { model, single: first.single === first.model ? model : first.single };
  return {
    bound,
    source,
    model,
    facts: {
      networks: new Map([shown, ...others].flatMap(namedSteps)),
      batch,
      ...(recipe.runtime.includes("batch") && { anyBatch: true }),
      conditions,
      companions,
      guidance,
      prediction,
      precision: floatTypeOf(recipe),
      structure: structureOf(network),
      cut: recipe.cut,
    },
  };
}

/** A step of the network, lifted. */
async function liftedStep(network: Network, { model, single }: BoundStep, guidance: Guidance, runtime: RuntimeOptions): Promise<BoundStep> {
  const liftedFrom = async (bound: Model): Promise<Model> => {
    const whole = withoutScaleInput(lifted(network, bound), guidance);
    const questions = { evaluator: evaluator(runtime), signal: runtime.signal };
    return runPasses(withGraph(whole, sweep(whole.graph)), [inferTypes], questions);
  };
  const whole = await liftedFrom(model);
  return { model: whole, single: single === model ? whole : single && oneHalf(whole, await liftedFrom(single)) };
}

/** The networks of a run that are the steps at a place, by name. */
function namedSteps({ model, single }: BoundStep, place: number): readonly (readonly [string, Model])[] {
  const alone = single ? [[networkName("one", place), single] as const] : [];
  return single === model ? alone : [[networkName("both", place), model], ...alone];
}

/** The conditions of a run, and the halves that each call of the network sees. */
interface Seen {
  readonly conditions: ReadonlyMap<string, Condition>;
  readonly seen: readonly (readonly Half[])[];
}

/**
 * The model with everything that follows from the shapes of its inputs. Where numbers of inputs decide a size, or a side of an `If`,
 * these inputs become the constants that the recipe fixes them at. Throws DATA_DEPENDENT where it does not.
 */
async function settledWith(shaped: Model, network: Network, seen: Seen, questions: Questions): Promise<Model> {
  const derived = await untilSettled(shaped, DERIVE_PASSES, questions);
  const model = await untilSettled(derived, SETTLE_PASSES, questions);
  const { graph } = model;
  const open = firstUndecided(sweep({ ...graph, outputs: graph.outputs.filter(({ name }) => name === network.ports.prediction) }));
  if (!open) return model;
  const { node, inputs } = open;
  if (!inputs) throw typeUnknown(node);
  const fixed = inputs.map((input) => ({ input, data: fixedAt(input, seen) }));
  const free = fixed.filter(({ data }) => !data).map(({ input }) => input.name);
  if (free.length > 0 || fixed.length === 0)
    throw dataDependent(
      node,
      free,
      free.every((name) => network.ports.conditions.includes(name)),
    );
  const constants = new Map(fixed.flatMap(({ input, data }) => (data ? [[input, constant(input.name, data)] as const] : [])));
  return settledWith(
    withGraph(
      model,
      rewrite(graph, () => undefined, constants),
    ),
    network,
    seen,
    questions,
  );
}

/** The value that an input has in every call of the network, if the recipe fixes it at one. */
function fixedAt({ name, type }: Value, { conditions, seen }: Seen): TensorData | undefined {
  const condition = conditions.get(name);
  const shape = staticShape(type);
  if (!condition || !shape) return undefined;
  const [first, ...others] = seen.map((halves) => halves.map((half) => condition.halves[half]));
  const isSame = others.every((sources) => sources.every((source, i) => source === first?.[i]));
  const data = first?.flatMap((source) => (source.kind === "constant" && !source.perStep ? [source.data] : [])) ?? [];
  if (!first || !isSame || data.length < first.length) return undefined;
  return condition.isBatched ? joinedRows(data, shape) : new Set(first).size === 1 ? data[0] : undefined;
}

/** Rows of the halves, one after the other. */
function joinedRows(parts: readonly TensorData[], shape: readonly number[]): TensorData | undefined {
  const [first] = parts;
  const bytes = Uint8Array.from(Buffer.concat(parts.map((part) => readTensor(part))));
  return first && { elem: first.elem, shape, content: { kind: "bytes", bytes } };
}

/** The number of halves that one call of the network sees in a guided row. */
function halvesOfCall(guidance: Guidance): number {
  return guidedHalves(guidance)[0]?.length ?? 1;
}

/** Sizes of the symbolic dimensions, that of the batch among them. Throws BATCH_MISMATCH, BATCH_AS_DIM, UNKNOWN_NAME. */
function dimSizesOf(network: Network, batch: number, halves: number, given: ReadonlyMap<string, TensorType>): ReadonlyMap<string, number> {
  const { dims, guidance } = network.source.recipe;
  const rows = latentRows(network);
  if (typeof rows === "number" && rows !== batch * halves) throw batchMismatch(rows, batch, guidance.form);
  const { before, after } = network.companions;
  const all = [network.step, ...[...before, ...after].map(({ read }) => read)].flatMap(({ graph }) => graph.inputs);
  const free = new Set(all.flatMap(({ type }) => type?.shape ?? []).filter((dim) => typeof dim === "string" && dim !== rows));
  for (const name of Object.keys(dims)) {
    if (name === rows) throw batchAsDim(name);
    if (!free.has(name)) throw unknownName("symbolic dimension", name, [...free].map(String));
  }
  const { inputs } = network.step.graph;
  // optimum gives the time a dimension of its own: there is one for each row.
  const times = inputs.find(({ name }) => name === network.ports.timestep)?.type?.shape?.[0];
  const perRow = (dim: Dim | undefined): readonly (readonly [string, number])[] => (typeof dim === "string" ? [[dim, batch * halves]] : []);
  return new Map([...perRow(times), ...dimsFrom(given, inputs), ...Object.entries(dims), ...perRow(rows)]);
}

/** The network bound to the rows of one half; undefined if some branch does not have the halves along axis 0. */
function oneHalf(both: Model, one: Model): Model | undefined {
  const shapes = both.graph.marks.map(({ value }) => shapeOf(value));
  const fits = one.graph.marks.every(({ value }, i) => {
    const [rows = 0, ...rest] = shapeOf(value);
    return [2 * rows, ...rest].join() === shapes[i]?.join();
  });
  return fits ? one : undefined;
}

/** The recipe's guidance. Throws UNKNOWN_NAME where an embedded scale has no input. */
function guidanceOf({ guidance, runtime }: Recipe, { conditions }: PortRoles): Guidance {
  const { form, scale, interval, order, channels, rescale, input = SCALE_INPUT } = guidance;
  const all = { form, scale, interval, order, channels, rescale, atRunTime: runtime.includes("guidance") };
  if (form !== "embedded") return all;
  if (!conditions.includes(input)) throw unknownName("input for the guidance scale", input, conditions);
  return { ...all, input };
}

/** The name of the input for an embedded scale in diffusers (FLUX.1 dev, HunyuanVideo). */
const SCALE_INPUT = "guidance";

/** Removes the input of an embedded scale from the conditions, as the recipe sets it. */
function withoutScaleInput(lifted: Model, { input }: Guidance): Model {
  const view = ditView(lifted);
  return { ...lifted, dit: { ...view, conditions: view.conditions.filter((name) => name !== input) } };
}

function withWarnings(model: Model, sentences: readonly string[]): Model {
  const view = ditView(model);
  return sentences.length === 0 ? model : { ...model, dit: { ...view, warnings: [...view.warnings, ...sentences] } };
}

/** The batch that a static export was made for; 1 where the batch is symbolic. */
function exportedBatch(network: Network, guidance: Guidance): number {
  const rows = latentRows(network);
  return typeof rows === "number" ? Math.max(1, Math.floor(rows / halvesOfCall(guidance))) : 1;
}

/** Axis 0 of the exporter's latent. */
function latentRows({ step, ports }: Network): Dim {
  return step.graph.inputs.find(({ name }) => name === ports.latent)?.type?.shape?.[0] ?? null;
}

export function latentInput(model: Model): Value | undefined {
  return inputNamed(model, ditView(model).latent);
}

function inputNamed({ graph }: Model, wanted: string): Value | undefined {
  return graph.inputs.find(({ name }) => name === wanted);
}

/** The inputs that are conditions; an embedded guidance scale is none. */
function conditionValues({ graph }: Model, { ports }: Network, { input }: Guidance): readonly Value[] {
  return graph.inputs.filter(({ name }) => name !== input && ports.conditions.includes(name));
}

/** Inputs whose axis 0 is the latent's: the same symbolic dimension, or the same size where the export is static. */
function batchedInputs(network: Network, boundRows: number): ReadonlySet<string> {
  const rows = latentRows(network) ?? boundRows;
  return new Set(network.step.graph.inputs.filter(({ type }) => type?.shape?.[0] === rows).map(({ name }) => name));
}

/**
 * The channels that are the prediction:
 * those of the recipe, or the first ones, as many as the latent has, if the network also predicts a variance.
 */
function predictionSlice(model: Model, recipe: PredictionSlice): PredictionSlice {
  const wanted = staticShape(latentInput(model)?.type);
  const found = staticShape(model.graph.outputs[0]?.value.type);
  const { channelAxis } = recipe;
  if (!wanted || !found) return recipe;
  const have = found[channelAxis] ?? 0;
  const need = wanted[channelAxis] ?? 0;
  const channels = recipe.channels ?? (have > need ? [0, need] : undefined);
  const isPart = channels === undefined ? have === need : channels[1] <= have && channels[1] - channels[0] === need;
  if (!isPart || !mayDifferAt(channelAxis, found, wanted)) {
    const [axis] = [channelAxis, ...wanted.keys()].filter((axis) => mayDifferAt(axis, found, wanted));
    if (axis === undefined) throw predictionShape(found, wanted);
    throw badChannels(channels, channelAxis, { found, wanted, fits: { axis, channels: wanted[axis] ?? 0 } });
  }
  return { ...recipe, channels: channels?.[0] === 0 && channels[1] === have ? undefined : channels };
}

/** Whether the first channels of an axis, as many as are wanted, have the wanted shape. */
function mayDifferAt(channelAxis: number, found: readonly number[], wanted: readonly number[]): boolean {
  if (found.length !== wanted.length || channelAxis >= wanted.length) return false;
  return wanted.every((size, axis) => (axis === channelAxis ? size <= (found[axis] ?? 0) : size === found[axis]));
}
