/** A network with bound shapes, and the recipe resolved against it: everything of a run except its sampler. */
import { shapeOf } from "../../ir/build.js";
import { unknownName } from "../../ir/diagnostics.js";
import type { Half } from "../../ir/dit.js";
import { constant, ditView, inputValue, type Model, type Value, withGraph } from "../../ir/graph.js";
import { rewrite, sweep } from "../../ir/rewrite.js";
import { firstUndecided } from "../../ir/sizes.js";
import { readTensor, type TensorData } from "../../ir/tensor.js";
import { type Dim, staticShape } from "../../ir/types.js";
import { BIND_PASSES, DERIVE_PASSES, inferTypes, type Questions, runPasses, SETTLE_PASSES, untilSettled } from "../../passes/index.js";
import { badJsonField, batchAsDim, batchMismatch, reservedName } from "../../schedules/diagnostics.js";
import {
  type Condition,
  freeName,
  type Guidance,
  guidedHalves,
  hasUnguidedRows,
  type Inpaint,
  NETWORKS,
  type OwnCondition,
  type PredictionSlice,
  type RunFacts,
  type ConditionSource,
  uncondInput,
} from "../../schedules/index.js";
import { evaluator, type RuntimeOptions } from "../runtime/index.js";
import { badChannels, dataDependent, predictionShape, typeUnknown } from "../words/index.js";
import { findingsOf } from "./findings.js";
import { lifted, type Network, type PortRoles } from "./network.js";
import { floatTypeOf, isInput, type Recipe, saidOf, type ValueSpec } from "./recipe.js";
import { samplingOf } from "./sampling.js";
import type { JobSource } from "./source.js";
import { fileOf } from "./source.js";
import { tensorFor } from "./values.js";

/** A network with bound shapes. Lifted again, at another cut, it need not be bound again. */
export interface BoundNetwork {
  readonly network: Network;
  readonly guidance: Guidance;
  readonly batch: number;
  readonly conditions: ReadonlyMap<string, Condition>;
  readonly inpaint: Pick<Inpaint, "image" | "mask"> | undefined;
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
  readonly facts: Omit<RunFacts, "table" | "steps" | "inpaint">;
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
  const rows = latentRows(network);
  const anyBatch = typeof rows === "string";
  const batch = recipe.batch ?? exportedBatch(network, guidance);
  const questions = { evaluator: evaluator(runtime), signal: runtime.signal };
  const shapedFor = (halves: number): Promise<Model> =>
    runPasses(step, BIND_PASSES, { ...questions, sizes: dimSizesOf(network, batch, halves), precision: floatTypeOf(recipe) });
  const halves = halvesOfCall(guidance);
  const shaped = await shapedFor(halves);
  const isBatched = batchedInputs(network, batch * halves);
  const latent = [batch, ...(staticShape(inputNamed(shaped, ports.latent)?.type) ?? []).slice(1)];
  const taken = new Set([ports.latent, ...ports.conditions]);
  const own = recipe.inpaint ? { image: freeName("image_latent", taken), mask: freeName("mask", taken) } : undefined;
  const tableRows = (): number => samplingOf(source, latent).table.rows.length;
  const halving = { batch, guidance, isBatched, tableRows, own: Object.values(own ?? {}) };
  const conditions = conditionSourcesOf(network, conditionValues(shaped, network, guidance), halving);
  const inpaint = own && inpaintOf(network, own, latent, tableRows);
  const settled = (model: Model, seen: readonly (readonly Half[])[]): Promise<Model> =>
    settledWith(model, network, { conditions, seen }, questions);
  const model = await settled(shaped, guidedHalves(guidance));
  const alone = halves > 1 && anyBatch && hasUnguidedRows(guidance) ? await settled(await shapedFor(1), [["cond"]]) : undefined;
  return { network, guidance, batch, conditions, inpaint, model, single: halves === 1 ? model : alone, anyBatch };
}

/** Lifts what is bound, with the cut of the network's recipe, and resolves the rest of the recipe against it. */
export async function liftBound(bound: BoundNetwork, runtime: RuntimeOptions): Promise<BoundModel> {
  const { network, guidance, batch, conditions } = bound;
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
  const shown = withWarnings(model, findingsOf(model, recipe, prediction));
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
function dimSizesOf(network: Network, batch: number, halves: number): ReadonlyMap<string, number> {
  const { dims, guidance } = network.source.recipe;
  const rows = latentRows(network);
  if (typeof rows === "number" && rows !== batch * halves) throw batchMismatch(rows, batch, guidance.form);
  const free = new Set(
    network.step.graph.inputs.flatMap(({ type }) => type?.shape ?? []).filter((dim) => typeof dim === "string" && dim !== rows),
  );
  for (const name of Object.keys(dims)) {
    if (name === rows) throw batchAsDim(name);
    if (!free.has(name)) throw unknownName("symbolic dimension", name, [...free].map(String));
  }
  return new Map([...Object.entries(dims), ...(typeof rows === "string" ? [[rows, batch * halves] as const] : [])]);
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
  /** The number of rows of the sampler's table. Throws what making the table throws. */
  readonly tableRows: () => number;
  /** Names of inputs that the run has and the network does not. */
  readonly own: readonly string[];
}

/**
 * For each condition, the source of the value that each half sees. Throws UNKNOWN_NAME, RESERVED_NAME, what values that do not fit throw,
 * and if there is one with a value for each row of the sampler's table, what making that throws.
 */
function conditionSourcesOf({ source, step }: Network, values: readonly Value[], halving: Halving): ReadonlyMap<string, Condition> {
  const { recipe } = source;
  const { uncond } = recipe.guidance;
  const known = [...values.map(({ name }) => name), ...halving.own];
  const inputs = step.graph.inputs.map(({ name }) => name);
  const assertKnown = (named: object, known: readonly string[]): void => {
    const stray = Object.keys(named).find((name) => !known.includes(name));
    if (stray !== undefined) throw unknownName("condition input", stray, known);
  };
  assertKnown(
    uncond,
    values.map(({ name }) => name),
  );
  assertKnown(recipe.inputs, [...known, ...known.filter((name) => isInput(uncond[name])).map(uncondInput)]);
  const seesUncond = guidedHalves(halving.guidance).flat().includes("uncond");
  return new Map(
    values.map((value): [string, Condition] => {
      const { name, type } = value;
      const isBatched = halving.isBatched.has(name);
      const shape = isBatched ? [halving.batch, ...shapeOf(value).slice(1)] : shapeOf(value);
      const typed = inputValue(name, type && { ...type, shape });
      const sourceOf = (input: string): ConditionSource => sourceAsSaid(source, typed, input, halving.tableRows);
      const cond = sourceOf(name);
      const asked = seesUncond ? uncond[name] : undefined;
      const halves: Record<Half, ConditionSource> = { cond, uncond: cond };
      if (isInput(asked) && inputs.includes(uncondInput(name))) throw reservedName(uncondInput(name));
      if (isInput(asked)) halves.uncond = sourceOf(uncondInput(name));
      else if (asked !== undefined) halves.uncond = constantFor(source, typed, asked);
      return [name, { type: typed.type, isBatched, halves }];
    }),
  );
}

/** What the recipe says of the input `input`, which has values of the type of `value`. */
function sourceAsSaid(source: JobSource, value: Value, input: string, tableRows: Halving["tableRows"]): ConditionSource {
  const { fixed, isPerStep } = saidOf(source.recipe, input);
  const rows = isPerStep ? tableRows() : undefined;
  const whole: ConditionSource = fixed === undefined ? { kind: "input", name: input } : constantFor(source, value, fixed, rows);
  return rows === undefined ? whole : { ...whole, perStep: Array.from({ length: rows }, (_, row) => row) };
}

function constantFor(source: JobSource, value: Value, spec: ValueSpec, rows?: number): ConditionSource {
  return { kind: "constant", data: tensorFor(value, shapeOf(value), spec, (file) => fileOf(source, file), rows) };
}

/**
 * Original and mask of a run that keeps what the mask says. A mask has one channel; that of a latent of less than four axes, whose
 * channels may be pixels of a patch (FLUX), has the latent's shape. Throws BAD_JSON_FIELD for an original that changes.
 */
function inpaintOf(
  { source }: Network,
  names: Readonly<Record<"image" | "mask", string>>,
  latent: readonly number[],
  tableRows: Halving["tableRows"],
): Pick<Inpaint, "image" | "mask"> {
  const { recipe } = source;
  if (saidOf(recipe, names.image).isPerStep)
    throw badJsonField("recipe", `inputs.${names.image}.perStep`, "is not for the original, which is the same at all steps");
  const ofRun = (name: string, shape: readonly number[]): OwnCondition => {
    const type = { elem: "float", shape } as const;
    const said = sourceAsSaid(source, inputValue(name, type), name, tableRows);
    return { name, type, isBatched: true, halves: { cond: said, uncond: said } };
  };
  const isPacked = latent.length < 4;
  const masked = latent.map((size, axis) => (axis === recipe.prediction.channelAxis && !isPacked ? 1 : size));
  return { image: ofRun(names.image, latent), mask: ofRun(names.mask, masked) };
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
