/** A network with bound shapes, and the recipe resolved against it: everything of a run except its sampler. */
import { shapeOf } from "../../ir/build.js";
import { stepCost, totalMacs } from "../../ir/cost.js";
import { unknownName } from "../../ir/diagnostics.js";
import type { Half } from "../../ir/dit.js";
import { ditView, type Model, opsetOf, type Value } from "../../ir/graph.js";
import { isStandard } from "../../ir/ops.js";
import { type Dim, staticShape } from "../../ir/types.js";
import { BIND_PASSES, runPasses, staysForeign } from "../../passes/index.js";
import { batchAsDim, batchMismatch, reservedName } from "../../schedules/diagnostics.js";
import {
  type Condition,
  type Guidance,
  guidedHalves,
  hasUnguidedRows,
  NETWORKS,
  type PredictionSlice,
  type RunFacts,
  type ConditionSource,
  uncondInput,
} from "../../schedules/index.js";
import { evaluator, type RuntimeOptions } from "../runtime/index.js";
import { badChannels, predictionShape } from "../words/index.js";
import { heldConditions } from "./held-conditions.js";
import type { Network } from "./network.js";
import { floatTypeOf, isInput, type Recipe, type ValueSpec } from "./recipe.js";
import type { JobSource } from "./source.js";
import { tensorFor } from "./values.js";

export interface BoundModel {
  readonly network: Network;
  readonly source: JobSource;
  /** The step as guided rows call it: the exporter's graph, lifted, with all shapes bound and all values typed. */
  readonly model: Model;
  /** Whether the export's batch is symbolic. */
  readonly anyBatch: boolean;
  readonly facts: Omit<RunFacts, "table" | "steps">;
}

/** Binds the shapes of a network to the recipe's batch and dims, and resolves the rest of the recipe against it. */
export async function bindModel(network: Network, runtime: RuntimeOptions): Promise<BoundModel> {
  const { source, structure } = network;
  const { recipe } = source;
  const guidance = guidanceOf(recipe, network.lifted);
  const lifted = withoutScaleInput(network.lifted, guidance);
  const batch = recipe.batch ?? exportedBatch(lifted, guidance);
  const bindTo = (halves: number): Promise<Model> => {
    const sizes = dimSizesOf(lifted, recipe, batch, halves);
    return runPasses(lifted, BIND_PASSES, { evaluator: evaluator(runtime), signal: runtime.signal, sizes });
  };
  const halves = halvesOfCall(guidance);
  const model = await bindTo(halves);
  const anyBatch = typeof latentRows(lifted) === "string";
  const single = halves === 1 ? model : anyBatch && hasUnguidedRows(guidance) ? oneHalf(model, await bindTo(1)) : undefined;
  const prediction = predictionSlice(model, recipe.prediction);
  const shown = withHeld(withChannels(withForeign(withCoverage(model)), recipe.prediction, prediction));
  return {
    network,
    source,
    model: shown,
    anyBatch,
    facts: {
      networks: new Map([
        ...(halves > 1 ? [[NETWORKS.both, shown] as const] : []),
        ...(single ? [[NETWORKS.one, single === model ? shown : single] as const] : []),
      ]),
      batch,
      conditions: conditionSourcesOf(source, model, { batch, guidance, isBatched: batchedInputs(lifted, batch * halves) }),
      guidance,
      prediction,
      precision: floatTypeOf(recipe),
      structure,
      cut: recipe.cut,
    },
  };
}

/** The number of halves that one call of the network sees in a guided row. */
function halvesOfCall(guidance: Guidance): number {
  return guidedHalves(guidance)[0]?.length ?? 1;
}

/** Sizes of the symbolic dimensions, that of the batch among them. Throws BATCH_MISMATCH, BATCH_AS_DIM, UNKNOWN_NAME. */
function dimSizesOf(lifted: Model, { dims, guidance }: Recipe, batch: number, halves: number): ReadonlyMap<string, number> {
  const rows = latentRows(lifted);
  if (typeof rows === "number" && rows !== batch * halves) throw batchMismatch(rows, batch, guidance.form);
  const free = new Set(
    lifted.graph.inputs.flatMap(({ type }) => type?.shape ?? []).filter((dim) => typeof dim === "string" && dim !== rows),
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
}

/** For each condition, the source of the value that each half sees. Throws UNKNOWN_NAME, RESERVED_NAME, and what values that do not fit throw. */
function conditionSourcesOf({ recipe, folder }: JobSource, model: Model, halving: Halving): ReadonlyMap<string, Condition> {
  const { uncond } = recipe.guidance;
  const values = conditionValues(model);
  const known = values.map(({ name }) => name);
  const inputs = model.graph.inputs.map(({ name }) => name);
  const assertKnown = (named: object, known: readonly string[]): void => {
    const stray = Object.keys(named).find((name) => !known.includes(name));
    if (stray !== undefined) throw unknownName("condition input", stray, known);
  };
  assertKnown(uncond, known);
  assertKnown(recipe.inputs, [...known, ...known.filter((name) => isInput(uncond[name])).map(uncondInput)]);
  const seesUncond = guidedHalves(halving.guidance).flat().includes("uncond");
  return new Map(
    values.map((value): [string, Condition] => {
      const { name, type } = value;
      const isBatched = halving.isBatched.has(name);
      const shape = isBatched ? [halving.batch, ...shapeOf(value).slice(1)] : shapeOf(value);
      const sourceOf = (input: string, spec: ValueSpec | null | undefined): ConditionSource =>
        spec === undefined || spec === null
          ? { kind: "input", name: input }
          : { kind: "constant", data: tensorFor(value, shape, spec, folder) };
      const cond = sourceOf(name, recipe.inputs[name]?.fix);
      const asked = seesUncond ? uncond[name] : undefined;
      const halves: Record<Half, ConditionSource> = { cond, uncond: cond };
      if (isInput(asked) && inputs.includes(uncondInput(name))) throw reservedName(uncondInput(name));
      if (isInput(asked)) halves.uncond = sourceOf(uncondInput(name), recipe.inputs[uncondInput(name)]?.fix);
      else if (asked !== undefined) halves.uncond = sourceOf(name, asked);
      return [name, { type: type && { ...type, shape }, isBatched, halves }];
    }),
  );
}

/** The recipe's guidance. Throws UNKNOWN_NAME where an embedded scale has no input. */
function guidanceOf({ guidance }: Recipe, lifted: Model): Guidance {
  const { form, scale, interval, order, channels, rescale, input = SCALE_INPUT } = guidance;
  const all = { form, scale, interval, order, channels, rescale };
  if (form !== "embedded") return all;
  const { conditions } = ditView(lifted);
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

/** If the branches hold less than this share of a step's MACs, some were probably not found. */
const EXPECTED_COVERAGE = 0.5;

/** Adds a warning if much of the model's compute is in no branch. */
function withCoverage(model: Model): Model {
  const { total, branches } = stepCost(model);
  const all = totalMacs(total);
  const found = [...branches.values()].reduce((sum, macs) => sum + totalMacs(macs), 0);
  if (all === 0 || found >= EXPECTED_COVERAGE * all) return model;
  const share = ((100 * found) / all).toFixed(0);
  return warning(
    model,
    `Only ${share} % of a step's MACs are in branches that were found; the rest is computed at every step. The model may be of a kind that is not supported yet.`,
  );
}

/** Adds a warning if the artifact will contain operators outside of the standard. */
function withForeign(model: Model): Model {
  const opset = opsetOf(model);
  const foreign = model.graph.nodes.filter((node) => !isStandard(node, opset) && staysForeign(node, opset));
  if (foreign.length === 0) return model;
  const operators = [...new Set(foreign.map(({ domain, opType }) => (domain === "" ? opType : `${domain}.${opType}`)))].join(", ");
  const count = foreign.length === 1 ? "1 node has an operator" : `${foreign.length} nodes have operators`;
  return warning(
    model,
    `${count} outside of the ONNX standard (${operators}), which other runtimes may not have: export without ONNX Runtime's extended optimisation.`,
  );
}

/** Adds a warning if the prediction was taken from an output that has something else than a variance behind it. */
function withChannels(model: Model, asked: PredictionSlice, { channels, channelAxis }: PredictionSlice): Model {
  const [port] = model.graph.outputs;
  const have = port?.value.type?.shape?.[channelAxis];
  if (asked.channels !== undefined || channels === undefined || have === 2 * channels[1]) return model;
  return warning(
    model,
    `The first ${channels[1]} of ${have} channels of '${port?.name}' are taken for the prediction: if those are others, name them as "prediction": { "channels": [from, to] } in recipe.json.`,
  );
}

function withHeld(model: Model): Model {
  const sentence = heldConditions(model);
  return sentence === undefined ? model : warning(model, sentence);
}

function warning(model: Model, sentence: string): Model {
  const view = ditView(model);
  return { ...model, dit: { ...view, warnings: [...view.warnings, sentence] } };
}

/** The batch that a static export was made for; 1 where the batch is symbolic. */
function exportedBatch(lifted: Model, guidance: Guidance): number {
  const rows = latentRows(lifted);
  return typeof rows === "number" ? Math.max(1, Math.floor(rows / halvesOfCall(guidance))) : 1;
}

/** Axis 0 of the exporter's latent. */
function latentRows(lifted: Model): Dim {
  return latentInput(lifted)?.type?.shape?.[0] ?? null;
}

export function latentInput(model: Model): Value | undefined {
  return model.graph.inputs.find(({ name }) => name === ditView(model).latent);
}

function conditionValues(model: Model): readonly Value[] {
  const { conditions } = ditView(model);
  return model.graph.inputs.filter(({ name }) => conditions.includes(name));
}

/** Inputs whose axis 0 is the latent's: the same symbolic dimension, or the same size where the export is static. */
function batchedInputs(lifted: Model, boundRows: number): ReadonlySet<string> {
  const rows = latentRows(lifted) ?? boundRows;
  return new Set(lifted.graph.inputs.filter(({ type }) => type?.shape?.[0] === rows).map(({ name }) => name));
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
