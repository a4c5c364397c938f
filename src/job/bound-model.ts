/** A network with bound shapes, and the recipe resolved against it: everything of a run except its sampler. */
import { basename } from "node:path";
import { shapeOf } from "../../ir/build.js";
import { unknownName } from "../../ir/diagnostics.js";
import type { Half } from "../../ir/dit.js";
import { constant, ditView, inputValue, type Model, type Value, withGraph } from "../../ir/graph.js";
import { rewrite, sweep } from "../../ir/rewrite.js";
import { firstUndecided } from "../../ir/sizes.js";
import { readTensor, type TensorData } from "../../ir/tensor.js";
import { type Dim, staticShape, type TensorType } from "../../ir/types.js";
import { BIND_PASSES, DERIVE_PASSES, inferTypes, type Questions, runPasses, SETTLE_PASSES, untilSettled } from "../../passes/index.js";
import { batchAsDim, batchMismatch, reservedName } from "../../schedules/diagnostics.js";
import {
  type Companions,
  type Condition,
  differingValues,
  givenBy,
  type Guidance,
  guidedHalves,
  hasUnguidedRows,
  LATENT_VALUE,
  NETWORKS,
  type PredictionSlice,
  type RunFacts,
  type ConditionSource,
  uncondInput,
} from "../../schedules/index.js";
import { readNpy } from "../files/index.js";
import { evaluator, type RuntimeOptions } from "../runtime/index.js";
import { badChannels, companionMisfit, dataDependent, predictionShape, typeUnknown } from "../words/index.js";
import { bindCompanions, dimsFrom } from "./companions.js";
import { findingsOf } from "./findings.js";
import { lifted, type Network, type PortRoles } from "./network.js";
import { floatTypeOf, isInput, type Recipe, type ValueSpec } from "./recipe.js";
import type { JobSource } from "./source.js";
import { fileOf } from "./source.js";
import { tensorFor } from "./values.js";

/** A network with bound shapes. Lifted again, at another cut, it need not be bound again. */
export interface BoundNetwork {
  readonly network: Network;
  readonly guidance: Guidance;
  readonly batch: number;
  readonly conditions: ReadonlyMap<string, Condition>;
  readonly companions: Companions;
  /** The step as guided rows call it, with all shapes bound and all values typed; not lifted. */
  readonly model: Model;
  /** The step for the rows of one half, if some rows of the run may call it: `model` itself where calls see one half. */
  readonly single?: Model | undefined;
  /** Whether the export's batch is symbolic. */
  readonly anyBatch: boolean;
}

export interface BoundModel {
  readonly bound: BoundNetwork;
  readonly source: JobSource;
  /** The step as guided rows call it: the exporter's graph with all shapes bound and all values typed, lifted. */
  readonly model: Model;
  readonly facts: Omit<RunFacts, "table" | "steps">;
}

/** Binds the shapes of a network to the recipe's batch and dims, and lifts it. Throws what its parts throw. */
export async function bindModel(network: Network, runtime: RuntimeOptions): Promise<BoundModel> {
  return liftBound(await bindNetwork(network, runtime), runtime);
}

/** Binds the shapes of a network to the recipe's batch and dims. Throws DATA_DEPENDENT, and what passes and values of a recipe throw. */
async function bindNetwork(network: Network, runtime: RuntimeOptions): Promise<BoundNetwork> {
  const { source, step, ports } = network;
  const { recipe } = source;
  const guidance = guidanceOf(recipe, ports);
  assertInputsKnown(network, guidance);
  const rows = latentRows(network);
  const anyBatch = typeof rows === "string";
  const batch = recipe.batch ?? exportedBatch(network, guidance);
  const questions = { evaluator: evaluator(runtime), signal: runtime.signal };
  const types = new Map<string, TensorType>();
  const differing = differingIn(network, guidance);
  const givenRow = (input: string, rank: number): readonly number[] | undefined => rowGivenFor(input, rank, source);
  const surroundings = { types, batch, dims: recipe.dims, differing, givenRow };
  const before = await bindCompanions(network.companions.before, surroundings, questions);
  const shapedFor = (halves: number): Promise<Model> =>
    runPasses(step, BIND_PASSES, { ...questions, sizes: dimSizesOf(network, batch, halves, types), precision: floatTypeOf(recipe) });
  const halves = halvesOfCall(guidance);
  const shaped = await shapedFor(halves);
  const isBatched = batchedInputs(network, batch * halves);
  const halving = { batch, guidance, isBatched, differing };
  const own = conditionValues(shaped, network, guidance);
  const conditions = conditionSourcesOf(network, own, halving);
  assertFed(network, conditions, types);
  for (const [name, { type }] of conditions) if (type && !types.has(name)) types.set(name, type);
  const latent = shaped.graph.inputs.find(({ name }) => name === ports.latent);
  types.set(LATENT_VALUE, { elem: "float", shape: latent ? [batch, ...shapeOf(latent).slice(1)] : null });
  const after = await bindCompanions(network.companions.after, { ...surroundings, differing: new Set() }, questions);
  const unfed = companionInputs(network).map((name) => inputValue(name, types.get(name)));
  const inputs = conditionSourcesOf(network, unfed, { ...halving, isBatched: new Set() }, types);
  const settled = (model: Model, seen: readonly (readonly Half[])[]): Promise<Model> =>
    settledWith(model, network, { conditions, seen }, questions);
  const model = await settled(shaped, guidedHalves(guidance));
  const alone = halves > 1 && anyBatch && hasUnguidedRows(guidance) ? await settled(await shapedFor(1), [["cond"]]) : undefined;
  const companions = { before, after, inputs, keepLatent: recipe.keepLatent };
  return { network, guidance, batch, conditions, companions, model, single: halves === 1 ? model : alone, anyBatch };
}

/** Lifts what is bound, with the cut of the network's recipe, and resolves the rest of the recipe against it. */
export async function liftBound(bound: BoundNetwork, runtime: RuntimeOptions): Promise<BoundModel> {
  const { network, guidance, batch, conditions, companions } = bound;
  const { source, structure } = network;
  const { recipe } = source;
  const liftedFrom = async (model: Model): Promise<Model> => {
    const whole = withoutScaleInput(lifted(network, model), guidance);
    const questions = { evaluator: evaluator(runtime), signal: runtime.signal };
    return runPasses(withGraph(whole, sweep(whole.graph)), [inferTypes], questions);
  };
  const model = await liftedFrom(bound.model);
  const isGuided = bound.single !== bound.model;
  const single = !isGuided ? model : bound.single && oneHalf(model, await liftedFrom(bound.single));
  const prediction = predictionSlice(model, recipe.prediction);
  const shown = withWarnings(model, findingsOf(model, recipe.prediction, prediction));
  return {
    bound,
    source,
    model: shown,
    facts: {
      networks: new Map([
        ...(isGuided ? [[NETWORKS.both, shown] as const] : []),
        ...(single ? [[NETWORKS.one, isGuided ? single : shown] as const] : []),
      ]),
      batch,
      conditions,
      companions,
      guidance,
      prediction,
      precision: floatTypeOf(recipe),
      structure,
      cut: recipe.cut,
    },
  };
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

/** The value that an input has in every call of the network, if the recipe fixes it. */
function fixedAt({ name, type }: Value, { conditions, seen }: Seen): TensorData | undefined {
  const condition = conditions.get(name);
  const shape = staticShape(type);
  if (!condition || !shape) return undefined;
  const [first, ...others] = seen.map((halves) => halves.map((half) => condition.halves[half]));
  const isSame = others.every((sources) => sources.every((source, i) => source === first?.[i]));
  const data = first?.flatMap((source) => (source.kind === "constant" ? [source.data] : [])) ?? [];
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

interface Halving {
  readonly batch: number;
  readonly guidance: Guidance;
  readonly isBatched: ReadonlySet<string>;
  /** The values that the unconditional half has other than the conditional one. */
  readonly differing: ReadonlySet<string>;
}

/** The values that the unconditional half has other than the conditional one: those that the recipe says, and what encoders make of them. */
function differingIn({ companions, source }: Network, guidance: Guidance): ReadonlySet<string> {
  if (!guidedHalves(guidance).flat().includes("uncond")) return new Set();
  const { uncond } = source.recipe.guidance;
  return new Set([...Object.keys(uncond), ...differingValues(companions.before, (name) => uncond[name] !== undefined)]);
}

/** The sizes behind axis 0 of an input of some rank, from the first array that the recipe gives for it. Throws what reading it throws. */
function rowGivenFor(input: string, rank: number, source: JobSource): readonly number[] | undefined {
  const { inputs, guidance } = source.recipe;
  const { calibrate, fix } = inputs[input] ?? {};
  const uncond = Object.entries(guidance.uncond).flatMap(([name, spec]) => (uncondInput(name) === input && !isInput(spec) ? [spec] : []));
  const [file] = [fix, calibrate, ...uncond].flat().filter((spec) => typeof spec === "string");
  return file === undefined ? undefined : readNpy(fileOf(source, file)).shape.slice(1 - rank);
}

/** The inputs of the run that companions alone read. */
function companionInputs({ companions: { before, after }, ports }: Network): readonly string[] {
  const given = new Set([...givenBy(before), ...givenBy(after), LATENT_VALUE, ...ports.conditions]);
  const read = [...before, ...after].flatMap(({ inputs }) => [...inputs.values()]);
  return [...new Set(read)].filter((value) => !given.has(value));
}

/** Throws UNKNOWN_NAME where the recipe speaks of an input that is none, or that a companion gives, or where nobody reads what one gives. */
function assertInputsKnown(network: Network, { input }: Guidance): void {
  const { source, companions, ports } = network;
  const { inputs, guidance } = source.recipe;
  const given = givenBy(companions.before);
  const own = ports.conditions.filter((name) => name !== input);
  const known = [...own.filter((name) => !given.has(name)), ...companionInputs(network)];
  const assertKnown = (named: Iterable<string>, known: readonly string[]): void => {
    for (const name of named) if (!known.includes(name)) throw unknownName("condition input", name, known);
  };
  assertKnown(Object.keys(guidance.uncond), known);
  assertKnown(Object.keys(inputs), [...known, ...known.filter((name) => isInput(guidance.uncond[name])).map(uncondInput)]);
  const read = [...companions.before, ...companions.after].flatMap(({ inputs }) => [...inputs.values()]);
  assertKnown(
    [...given].filter((value) => !read.includes(value)),
    own,
  );
}

/** Throws COMPANION_MISFIT where what companions give does not have the shape of the condition that reads it. */
function assertFed(
  { companions, source }: Network,
  conditions: ReadonlyMap<string, Condition>,
  types: ReadonlyMap<string, TensorType>,
): void {
  for (const value of givenBy(companions.before)) {
    const wanted = conditions.get(value)?.type?.shape;
    for (const name of [value, uncondInput(value)]) {
      const found = types.get(name)?.shape;
      if (wanted && found && wanted.join() !== found.join()) throw companionMisfit(basename(source.modelFile), value, wanted, name, found);
    }
  }
}

/** For each condition, the source of the value that each half sees. Throws RESERVED_NAME, and what values that do not fit throw. */
function conditionSourcesOf(
  { source, step }: Network,
  values: readonly Value[],
  halving: Halving,
  types: ReadonlyMap<string, TensorType> = new Map(),
): ReadonlyMap<string, Condition> {
  const { recipe } = source;
  const { uncond } = recipe.guidance;
  const inputs = step.graph.inputs.map(({ name }) => name);
  return new Map(
    values.map((value): [string, Condition] => {
      const { name, type } = value;
      const isBatched = halving.isBatched.has(name);
      const shape = isBatched ? [halving.batch, ...shapeOf(value).slice(1)] : shapeOf(value);
      const uncondType = types.get(uncondInput(name));
      const sourceOf = (input: string, spec: ValueSpec | null | undefined, of: readonly Dim[] = shape): ConditionSource =>
        spec === undefined || spec === null
          ? { kind: "input", name: input }
          : { kind: "constant", data: tensorFor(value, of.map(Number), spec, (file) => fileOf(source, file)) };
      const cond = sourceOf(name, recipe.inputs[name]?.fix);
      const asked = halving.differing.has(name) ? (uncond[name] ?? { input: true as const }) : undefined;
      const halves: Record<Half, ConditionSource> = { cond, uncond: cond };
      if (isInput(asked) && inputs.includes(uncondInput(name))) throw reservedName(uncondInput(name));
      const its = uncondType?.shape ?? shape;
      if (isInput(asked)) halves.uncond = sourceOf(uncondInput(name), recipe.inputs[uncondInput(name)]?.fix, its);
      else if (asked !== undefined) halves.uncond = sourceOf(name, asked, its);
      return [name, { type: type && { ...type, shape }, ...(uncondType && { uncondType }), isBatched, halves }];
    }),
  );
}

/** The recipe's guidance. Throws UNKNOWN_NAME where an embedded scale has no input. */
function guidanceOf({ guidance }: Recipe, { conditions }: PortRoles): Guidance {
  const { form, scale, interval, order, channels, rescale, input = SCALE_INPUT } = guidance;
  const all = { form, scale, interval, order, channels, rescale };
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
  return model.graph.inputs.find(({ name }) => name === ditView(model).latent);
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
