/** The networks that a recipe joins to the run (`before`, `after`): reads them, and binds them to the run that they are joined to. */
import { basename, dirname } from "node:path";
import { shapeOf } from "../../ir/build.js";
import { requireWellFormed } from "../../ir/check.js";
import { unknownName } from "../../ir/diagnostics.js";
import type { Half } from "../../ir/dit.js";
import { inputValue, type Model, type Value, withGraph } from "../../ir/graph.js";
import { readModel } from "../../ir/onnx/index.js";
import { parse } from "../../ir/parse.js";
import { rewrite } from "../../ir/rewrite.js";
import { firstUndecided } from "../../ir/sizes.js";
import { type Dim, namedSizes, staticShape, type TensorType } from "../../ir/types.js";
import { BIND_PASSES, DERIVE_PASSES, type Questions, runPasses, SETTLE_PASSES, untilSettled, untyped } from "../../passes/index.js";
import { type Companion, LATENT_VALUE, resultsOf, valueName, type Wiring } from "../../schedules/index.js";
import { companionMisfit, companionWiring, dataDependent, noPixels, typeUnknown } from "../words/index.js";
import { atFile } from "./at-file.js";
import { toPixels } from "./glue.js";
import { companionSchema, type CompanionSpec } from "./recipe.js";
import { fileOf, type JobSource } from "./source.js";

/** A companion as it was read. */
export interface OpenCompanion extends Wiring {
  readonly name: string;
  /** The model as in the file; its weights stay on disk. */
  readonly read: Model;
  /** The file that it was read from; absent if the recipe holds it as text. */
  readonly file?: string | undefined;
  /** What the recipe says of it. */
  readonly spec: CompanionSpec;
  /** Set if it is none of the recipe's `before` and `after`, but makes the pixels that `pixels` asks for: the values of black and white. */
  readonly pixelRange?: readonly [number, number] | undefined;
}

export interface OpenCompanions {
  readonly before: readonly OpenCompanion[];
  readonly after: readonly OpenCompanion[];
}

/** Reads the companions of a recipe. Throws what reading models throws, UNKNOWN_NAME for ports that they do not have, NO_PIXELS. */
export async function openCompanions(source: JobSource): Promise<OpenCompanions> {
  const opened = async (place: "before" | "after"): Promise<readonly OpenCompanion[]> => {
    const all: OpenCompanion[] = [];
    for (const [i, spec] of source.recipe[place].entries())
      all.push(await atFile(`${place}[${i}] of the recipe`, () => openCompanion(spec, source)));
    return all;
  };
  return { before: await opened("before"), after: await withPixels(await opened("after"), source) };
}

/** The axes behind rows and channels of what pixels are made of. */
const PIXEL_AXES = { image: ["height", "width"], video: ["frames", "height", "width"] };

/**
 * What stands behind a run, and, if the recipe asks for them, what makes pixels of its last result, or of the latent itself where nothing
 * stands behind it. They have the result's name. Throws NO_PIXELS where the recipe does not say that this is a picture or a video.
 */
async function withPixels(after: readonly OpenCompanion[], source: JobSource): Promise<readonly OpenCompanion[]> {
  const { pixels, display } = source.recipe;
  if (pixels === undefined) return after;
  const result = resultsOf({ after }).at(-1);
  if (display?.kind !== "image" && display?.kind !== "video")
    throw noPixels(
      result ?? LATENT_VALUE,
      `the recipe's "display" says that it is ${display?.kind === "audio" ? "sound" : "neither a picture nor a video"}`,
    );
  const { kind, range } = display;
  if (!(range[1] > range[0])) throw noPixels(result ?? LATENT_VALUE, `its range [${range.join(", ")}] is empty`);
  const values = result === undefined ? LATENT_VALUE : `${result}_values`;
  const renamed = after.map((companion) => ({
    ...companion,
    outputs: new Map(Array.from(companion.outputs, ([output, value]) => [output, value === result ? values : value])),
  }));
  const wiring = { inputs: { values }, outputs: { pixels: result ?? kind } };
  const spec = companionSchema.parse({ ...toPixels(PIXEL_AXES[kind], range), ...wiring });
  return [...renamed, { ...(await openCompanion(spec, source)), pixelRange: range }];
}

async function openCompanion(spec: CompanionSpec, source: JobSource): Promise<OpenCompanion> {
  const { model, graph = "", inputs, outputs } = spec;
  const file = model === undefined ? undefined : fileOf(source, model);
  const read = file === undefined ? withoutShapes(parse(graph)) : await readModel(file);
  requireWellFormed(read, file);
  const ports = {
    inputs: read.graph.inputs.flatMap(({ name, data }) => (data ? [] : [name])),
    outputs: read.graph.outputs.map(({ name }) => name),
  };
  const name = file === undefined ? read.graph.name : nameOf(file);
  assertKnown(`input of '${name}'`, inputs, ports.inputs);
  assertKnown(`output of '${name}'`, outputs ?? {}, ports.outputs);
  return {
    name,
    read,
    file,
    inputs: new Map(ports.inputs.map((name) => [name, inputs[name] ?? name])),
    outputs: new Map(outputs ? Object.entries(outputs) : ports.outputs.map((name) => [name, name])),
    spec,
  };
}

/**
 * Companions without those in front, and without results of theirs, that nobody reads, as exports may lack an input that their pipeline
 * speaks of. `inputs`: those of the network.
 */
export function withoutIdle({ before, after }: OpenCompanions, inputs: readonly string[]): OpenCompanions {
  const read = new Set([...inputs, ...after.flatMap((companion) => [...companion.inputs.values()])]);
  const needed = before.toReversed().flatMap((companion): readonly OpenCompanion[] => {
    const outputs = new Map([...companion.outputs].filter(([, value]) => read.has(value)));
    if (outputs.size === 0) return [];
    for (const value of companion.inputs.values()) read.add(value);
    return [{ ...companion, outputs, spec: { ...companion.spec, outputs: Object.fromEntries(outputs) } }];
  });
  return { before: needed.toReversed(), after };
}

/** Throws UNKNOWN_NAME. */
function assertKnown(what: string, named: object, known: readonly string[]): void {
  const stray = Object.keys(named).find((name) => !known.includes(name));
  if (stray !== undefined) throw unknownName(what, stray, known);
}

/** The inputs of a step. */
interface StepInputs {
  readonly latent: string;
  readonly timestep: string | undefined;
  readonly conditions: readonly string[];
}

/** Throws COMPANION_WIRING where a value has two givers or is not there yet where it is read. */
export function assertWired({ before, after }: OpenCompanions, { latent, timestep, conditions }: StepInputs): void {
  const all = [...before, ...after];
  const givers = new Map(all.flatMap(({ name, outputs }) => [...outputs.values()].map((value) => [value, name] as const)));
  const there = new Set<string>();
  for (const [i, { name, inputs: read, outputs }] of all.entries()) {
    const isBehind = i >= before.length;
    if (isBehind) there.add(LATENT_VALUE);
    for (const value of read.values()) {
      const giver = givers.get(value);
      if (value === latent || value === timestep)
        throw companionWiring(name, `reads '${value}', which is another at every step: the last latent is called '${LATENT_VALUE}'`);
      if (giver !== undefined && !there.has(value)) throw companionWiring(name, `reads '${value}' before '${giver}' gives it`);
      if (value === LATENT_VALUE && !isBehind && !conditions.includes(value))
        throw companionWiring(name, `reads '${value}' in front of the run, and there is none before its end`);
    }
    for (const value of outputs.values()) {
      if (there.has(value)) throw companionWiring(name, `gives '${value}', which is there already`);
      if (value === latent || value === timestep || value === LATENT_VALUE || (isBehind && conditions.includes(value)))
        throw companionWiring(name, `gives '${value}', which the run has as something else`);
      there.add(value);
    }
  }
}

/** `text_encoder` of text_encoder/model.onnx, `vocoder` of vocoder.onnx. */
function nameOf(file: string): string {
  const stem = basename(file, ".onnx");
  return stem === "model" ? basename(dirname(file)) : stem;
}

/** What a graph as text declares without a shape has that of what it reads, whatever that is. */
function withoutShapes(model: Model): Model {
  const free = model.graph.inputs
    .filter(({ type }) => type?.shape?.length === 0)
    .map((input) => [input, inputValue(input.name, input.type && { ...input.type, shape: null })] as const);
  return withGraph(model, untyped(model.graph, new Map(free)));
}

/** What a companion is bound to. */
export interface Surroundings {
  /** The types of the values that are there: of the run, and of companions before. Those of the unconditional half as `valueName` has them. */
  readonly types: Map<string, TensorType>;
  readonly batch: number;
  readonly dims: Readonly<Record<string, number>>;
  /** The values that the unconditional half has other than the conditional one. */
  readonly differing: ReadonlySet<string>;
  /** The sizes of a row of the array that the recipe gives for an input of this rank, if it gives one. */
  readonly givenRow: (input: string, rank: number) => readonly number[] | undefined;
}

/**
 * Companions with all shapes bound. Adds to `types` those of what they give, and of the inputs of the run that they alone read.
 * Throws COMPANION_MISFIT, UNBOUND_DIM, DATA_DEPENDENT, NO_PIXELS.
 */
export async function bindCompanions(
  opened: readonly OpenCompanion[],
  surroundings: Surroundings,
  questions: Questions,
): Promise<readonly Companion[]> {
  const bound: Companion[] = [];
  for (const companion of opened) {
    const { name, inputs, outputs } = companion;
    const bind = (half: Half): Promise<Model> =>
      atFile(companion.file ?? `the recipe's graph '${name}'`, () => boundFor(half, companion, surroundings, questions));
    const model = await bind("cond");
    assertColours(companion, surroundings.types);
    const hasOwn = [...inputs.values()].some((value) => surroundings.differing.has(value));
    const uncondModel = hasOwn ? await bind("uncond") : undefined;
    const isSame = uncondModel?.graph.inputs.every((input, i) => input.type?.shape?.join() === model.graph.inputs[i]?.type?.shape?.join());
    bound.push({ name, model, ...(!isSame && { uncondModel }), inputs, outputs });
  }
  return bound;
}

/** The model of a companion as one half sees it; adds the types of that half. */
async function boundFor(
  half: Half,
  { name, read, inputs, outputs, spec }: OpenCompanion,
  { types, batch, dims, differing, givenRow }: Surroundings,
  questions: Questions,
): Promise<Model> {
  const nameOf = (value: string): string => (differing.has(value) ? valueName(value, half) : value);
  const wired = read.graph.inputs.flatMap((input) => {
    const { type } = input;
    const value = inputs.get(input.name);
    if (value === undefined || !type) return [];
    const isOpen = type.shape?.some((dim, axis) => axis > 0 && typeof dim !== "number");
    const row = isOpen && type.shape ? givenRow(nameOf(value), type.shape.length) : undefined;
    return [{ input, value, ...type, known: types.get(nameOf(value))?.shape ?? (row && [null, ...row]) }];
  });
  // What is given says how large the dimensions of its name are.
  const named = namedSizes(wired.map(({ shape, known }) => [shape, known]));
  const sizes = new Map([...Object.entries({ ...dims, ...spec.dims }), ...named]);
  const own = new Map<Value, Value>();
  for (const { input, value, elem, shape: declared, known } of wired) {
    const sizeOf = (dim: Dim, axis: number): Dim =>
      typeof dim === "number" ? dim : (known?.[axis] ?? (dim === null ? undefined : sizes.get(dim)) ?? (axis === 0 ? batch : dim));
    const free = declared?.map(sizeOf) ?? null;
    // Without sizes of its own the unconditional half has those of the conditional one.
    const shape =
      types.get(nameOf(value))?.shape ?? (free?.every((dim) => typeof dim === "number") ? free : types.get(value)?.shape) ?? free;
    if (declared && shape && !fits(declared, shape)) throw companionMisfit(name, input.name, declared, value, shape);
    own.set(input, inputValue(input.name, { elem, shape }));
  }
  const shaped = withGraph(
    read,
    rewrite(read.graph, () => undefined, own),
  );
  const model = await settled(await runPasses(shaped, BIND_PASSES, { ...questions, sizes }), questions);
  for (const input of model.graph.inputs) {
    const value = inputs.get(input.name);
    if (value !== undefined && input.type && !types.has(nameOf(value))) types.set(nameOf(value), input.type);
  }
  for (const { name, value } of model.graph.outputs) {
    const given = outputs.get(name);
    if (given !== undefined && value.type) types.set(valueName(given, half), { elem: value.type.elem, shape: shapeOf(value) });
  }
  return model;
}

/** Throws NO_PIXELS where what pixels are made of has other channels than grey or colours, as a latent has. */
function assertColours({ inputs, pixelRange }: OpenCompanion, types: ReadonlyMap<string, TensorType>): void {
  if (pixelRange === undefined) return;
  for (const value of inputs.values()) {
    const channels = types.get(value)?.shape?.[1];
    if (channels !== 1 && channels !== 3) throw noPixels(value, `it has ${channels} channels, which are neither grey nor colours`);
  }
}

function fits(declared: readonly Dim[], shape: readonly Dim[]): boolean {
  return (
    declared.length === shape.length &&
    declared.every((dim, axis) => typeof dim !== "number" || typeof shape[axis] !== "number" || dim === shape[axis])
  );
}

async function settled(shaped: Model, questions: Questions): Promise<Model> {
  const derived = await untilSettled(shaped, DERIVE_PASSES, questions);
  const model = await untilSettled(derived, SETTLE_PASSES, questions);
  const open = firstUndecided(model.graph);
  if (open)
    throw open.inputs
      ? dataDependent(
          open.node,
          open.inputs.map(({ name }) => name),
          false,
        )
      : typeUnknown(open.node);
  return model;
}

/** The sizes of the symbolic dimensions of a network's inputs, from the values that companions give them. Axis 0 counts rows. */
export function dimsFrom(types: ReadonlyMap<string, TensorType>, inputs: readonly Value[]): ReadonlyMap<string, number> {
  return namedSizes(
    inputs.map(({ name, type }) => {
      const [, ...sizes] = staticShape(types.get(name)) ?? [];
      return [type?.shape, [null, ...sizes]];
    }),
  );
}
