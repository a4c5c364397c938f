/** A lifted model with its shapes bound, and what the recipe says of it worked out against it. */
import { shapeOf } from "../../ir/build.js";
import { addMacs, type Macs, NO_MACS, stepCost, totalMacs } from "../../ir/cost.js";
import { badChannels, predictionShape } from "../words/index.js";
import { unknownName } from "../../ir/diagnostics.js";
import { ditView, type Model, opsetOf, type Value } from "../../ir/graph.js";
import { isStandard } from "../../ir/ops.js";
import type { TensorData } from "../../ir/tensor.js";
import { type Dim, staticShape } from "../../ir/types.js";
import { BIND_PASSES, decomposeContribOps } from "../../passes/index.js";
import { type PassContext, type PredictionSlice, runPasses } from "../../passes/pass.js";
import { type CachedBranch, cachedBranches, callsOf, type Guidance, hasUnguidedRows, uncondInput } from "../../schedules/index.js";
import { floatTypeOf, isInput, type Recipe, type ValueSpec } from "./recipe.js";
import type { Source } from "./source.js";
import { evaluator, type RuntimeOptions } from "../runtime/index.js";
import { tensorFor } from "./values.js";

/** A model and its recipe, worked out against each other. */
export interface BoundModel {
  readonly source: Source;
  /** Lifted, with every shape bound and every value typed; otherwise as the exporter wrote it. */
  readonly model: Model;
  /** Whether the export's batch is symbolic. */
  readonly anyBatch: boolean;
  readonly context: PassContext;
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
  const { graph } = await runPasses(model, [decomposeContribOps], context);
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

export function latentInput(model: Model): Value | undefined {
  return model.graph.inputs.find(({ name }) => name === ditView(model).latent);
}

export function conditionValues(model: Model): readonly Value[] {
  const { conditions } = ditView(model);
  return model.graph.inputs.filter(({ name }) => conditions.includes(name));
}

/** The shape of a condition at the artifact: one half of it under batched guidance. */
export function halfShape(value: Value, { guidance, batch, batched }: PassContext): readonly number[] {
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
