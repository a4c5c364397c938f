/** The networks that a recipe joins to the run (`before`, `after`): reads them, and binds them to the run that they are joined to. */
import { basename, dirname } from "node:path";
import { shapeOf } from "../../ir/build.js";
import { requireWellFormed } from "../../ir/check.js";
import { unknownName } from "../../ir/diagnostics.js";
import { inputValue, type Model, type Value, withGraph } from "../../ir/graph.js";
import { readModel } from "../../ir/onnx/index.js";
import { parse } from "../../ir/parse.js";
import { rewrite } from "../../ir/rewrite.js";
import { firstUndecided } from "../../ir/sizes.js";
import { type Dim, staticShape, type TensorType } from "../../ir/types.js";
import { BIND_PASSES, DERIVE_PASSES, type Questions, runPasses, SETTLE_PASSES, untilSettled, untyped } from "../../passes/index.js";
import type { Companion, Wiring } from "../../schedules/index.js";
import { companionMisfit, dataDependent, typeUnknown } from "../words/index.js";
import type { CompanionSpec } from "./recipe.js";
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
}

export interface OpenCompanions {
  readonly before: readonly OpenCompanion[];
  readonly after: readonly OpenCompanion[];
}

/** Reads the companions of a recipe. Throws what reading models throws, UNKNOWN_NAME for ports that they do not have. */
export async function openCompanions(source: JobSource): Promise<OpenCompanions> {
  const opened = async (specs: readonly CompanionSpec[]): Promise<readonly OpenCompanion[]> => {
    const all: OpenCompanion[] = [];
    for (const spec of specs) all.push(await openCompanion(spec, source));
    return all;
  };
  return { before: await opened(source.recipe.before), after: await opened(source.recipe.after) };
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
 * Companions without those in front whose results nobody reads, as exports may lack an input that their pipeline speaks of. `inputs`: those
 * of the network.
 */
export function withoutIdle({ before, after }: OpenCompanions, inputs: readonly string[]): OpenCompanions {
  const read = new Set([...inputs, ...after.flatMap((companion) => [...companion.inputs.values()])]);
  const isNeeded = (companion: OpenCompanion): boolean => {
    const isRead = [...companion.outputs.values()].some((value) => read.has(value));
    if (isRead) for (const value of companion.inputs.values()) read.add(value);
    return isRead;
  };
  return { before: before.toReversed().filter(isNeeded).toReversed(), after };
}

/** Throws UNKNOWN_NAME. */
function assertKnown(what: string, named: object, known: readonly string[]): void {
  const stray = Object.keys(named).find((name) => !known.includes(name));
  if (stray !== undefined) throw unknownName(what, stray, known);
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
  /** The types of the values that are there: of the run, and of companions before. */
  readonly types: Map<string, TensorType>;
  readonly batch: number;
  readonly dims: Readonly<Record<string, number>>;
}

/**
 * Companions with all shapes bound. Adds to `types` those of what they give, and of the inputs of the run that they alone read.
 * Throws COMPANION_MISFIT, UNBOUND_DIM, DATA_DEPENDENT.
 */
export async function bindCompanions(
  opened: readonly OpenCompanion[],
  { types, batch, dims }: Surroundings,
  questions: Questions,
): Promise<readonly Companion[]> {
  const bound: Companion[] = [];
  for (const companion of opened) {
    const { name, read, inputs, outputs } = companion;
    const sizes = new Map(Object.entries({ ...dims, ...companion.spec.dims }));
    // What is given a value says how large the dimensions of its name are.
    for (const { name, type } of read.graph.inputs) {
      const found = staticShape(types.get(inputs.get(name) ?? ""));
      for (const [axis, dim] of type?.shape?.entries() ?? [])
        if (typeof dim === "string" && found?.[axis] !== undefined) sizes.set(dim, found[axis]);
    }
    const own = new Map<Value, Value>();
    for (const input of read.graph.inputs) {
      const value = inputs.get(input.name);
      if (value === undefined || !input.type) continue;
      const { elem, shape: declared } = input.type;
      const shape = types.get(value)?.shape ?? declared?.map((dim, axis) => freeDim(dim, axis, sizes, batch)) ?? null;
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
      if (value !== undefined && input.type && !types.has(value)) types.set(value, input.type);
    }
    for (const { name, value } of model.graph.outputs) {
      const given = outputs.get(name);
      if (given !== undefined && value.type) types.set(given, { elem: value.type.elem, shape: shapeOf(value) });
    }
    bound.push({ name, model, inputs, outputs });
  }
  return bound;
}

/** Axis 0 of what only companions read counts latents, if it has no size. */
function freeDim(dim: Dim, axis: number, sizes: ReadonlyMap<string, number>, batch: number): Dim {
  if (typeof dim === "number") return dim;
  return (dim !== null ? sizes.get(dim) : undefined) ?? (axis === 0 ? batch : dim);
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
  const sizes = new Map<string, number>();
  for (const { name, type } of inputs) {
    const found = staticShape(types.get(name));
    for (const [axis, dim] of type?.shape?.entries() ?? []) {
      const size = found?.[axis];
      if (axis > 0 && typeof dim === "string" && size !== undefined) sizes.set(dim, size);
    }
  }
  return sizes;
}
