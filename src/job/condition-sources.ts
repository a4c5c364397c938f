/** What a run is given beside its noise, as the recipe says it: for each condition the source of what either half of the guidance sees. */
import { basename } from "node:path";
import { shapeOf } from "../../ir/build.js";
import { unknownName } from "../../ir/diagnostics.js";
import type { Half } from "../../ir/dit.js";
import { inputValue, type Value } from "../../ir/graph.js";
import type { TensorType } from "../../ir/types.js";
import { badJsonField, reservedName } from "../../schedules/diagnostics.js";
import {
  type Condition,
  type ConditionSource,
  differingValues,
  givenBy,
  type Guidance,
  guidedHalves,
  LATENT_VALUE,
  type Original,
  type OwnCondition,
  portsBeside,
  uncondInput,
} from "../../schedules/index.js";
import { readNpy } from "../files/index.js";
import { companionMisfit } from "../words/index.js";
import type { Network } from "./network.js";
import { isInput, saidOf, type ValueSpec } from "./recipe.js";
import { fileOf, type JobSource } from "./source.js";
import { tensorFor } from "./values.js";

/** How the conditions of a run are taken apart. */
export interface Halving {
  readonly batch: number;
  /** The values that the unconditional half has other than the conditional one. */
  readonly differing: ReadonlySet<string>;
  readonly isBatched: ReadonlySet<string>;
  /** The number of rows of the sampler's table. Throws what making the table throws. */
  readonly tableRows: () => number;
}

/** The values that the unconditional half has other than the conditional one: those that the recipe says, and what encoders make of them. */
export function differingIn({ companions, source }: Network, guidance: Guidance): ReadonlySet<string> {
  if (!guidedHalves(guidance).flat().includes("uncond")) return new Set();
  const { uncond } = source.recipe.guidance;
  return new Set([...Object.keys(uncond), ...differingValues(companions.before, (name) => uncond[name] !== undefined)]);
}

/** The sizes behind axis 0 of an input of some rank, from the first array that the recipe gives for it. Throws what reading it throws. */
export function rowGivenFor(input: string, rank: number, source: JobSource): readonly number[] | undefined {
  const { inputs, guidance } = source.recipe;
  const { calibrate, fix } = inputs[input] ?? {};
  const uncond = Object.entries(guidance.uncond).flatMap(([name, spec]) => (uncondInput(name) === input && !isInput(spec) ? [spec] : []));
  const [file] = [fix, calibrate, ...uncond].flat().filter((spec) => typeof spec === "string");
  return file === undefined ? undefined : readNpy(fileOf(source, file)).shape.slice(1 - rank);
}

/** The inputs of the run that companions alone read. */
export function companionInputs({ companions: { before, after }, ports }: Network): readonly string[] {
  const given = new Set([...givenBy(before), ...givenBy(after), LATENT_VALUE, ...ports.conditions]);
  const read = [...before, ...after].flatMap(({ inputs }) => [...inputs.values()]);
  return [...new Set(read)].filter((value) => !given.has(value));
}

/**
 * Throws UNKNOWN_NAME where the recipe speaks of an input that is none, or that a companion gives, or where nobody reads what one gives.
 * `own`: inputs of the run that no network has.
 */
export function assertInputsKnown(network: Network, { input, atRunTime }: Guidance, own: readonly string[]): void {
  const { source, companions, ports } = network;
  const { inputs, guidance } = source.recipe;
  const given = givenBy(companions.before);
  const seen = ports.conditions.filter((name) => name !== input);
  const known = [...seen.filter((name) => !given.has(name)), ...companionInputs(network)];
  const free = own.filter((name) => !given.has(name));
  const assertKnown = (named: Iterable<string>, known: readonly string[]): void => {
    for (const name of named) if (!known.includes(name)) throw unknownName("condition input", name, known);
  };
  assertKnown(Object.keys(guidance.uncond), known);
  const { scale } = portsBeside([ports.latent, ...ports.conditions, ...companionInputs(network), ...own]);
  assertKnown(Object.keys(inputs), [
    ...known,
    ...free,
    ...known.filter((name) => isInput(guidance.uncond[name])).map(uncondInput),
    ...(atRunTime ? [scale] : []),
  ]);
  const read = [...companions.before, ...companions.after].flatMap(({ inputs }) => [...inputs.values()]);
  assertKnown(
    [...given].filter((value) => !read.includes(value)),
    [...seen, ...own],
  );
}

/** Throws COMPANION_MISFIT where what companions give does not have the shape of the condition that reads it. */
export function assertFed(
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

/**
 * For each condition, the source of the value that each half sees. Throws RESERVED_NAME, what values that do not fit throw,
 * and if there is one with a value for each row of the sampler's table, what making that throws.
 */
export function conditionSourcesOf(
  { source, step }: Network,
  values: readonly Value[],
  halving: Halving,
  types: ReadonlyMap<string, TensorType> = new Map(),
): ReadonlyMap<string, Condition> {
  const { uncond } = source.recipe.guidance;
  const inputs = step.graph.inputs.map(({ name }) => name);
  return new Map(
    values.map((value): [string, Condition] => {
      const { name, type } = value;
      const isBatched = halving.isBatched.has(name);
      const shape = isBatched ? [halving.batch, ...shapeOf(value).slice(1)] : shapeOf(value);
      const uncondType = types.get(uncondInput(name));
      const typed = inputValue(name, type && { ...type, shape });
      const its = uncondType ? inputValue(name, uncondType) : typed;
      const cond = sourceAsSaid(source, typed, name, halving.tableRows);
      const asked = halving.differing.has(name) ? (uncond[name] ?? { input: true as const }) : undefined;
      const halves: Record<Half, ConditionSource> = { cond, uncond: cond };
      if (isInput(asked) && inputs.includes(uncondInput(name))) throw reservedName(uncondInput(name));
      if (isInput(asked)) halves.uncond = sourceAsSaid(source, its, uncondInput(name), halving.tableRows);
      else if (asked !== undefined) halves.uncond = constantFor(source, its, asked);
      return [name, { type: typed.type, ...(uncondType && { uncondType }), isBatched, halves }];
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
export function originalOf(
  { source }: Network,
  names: { readonly image: string; readonly mask: string | undefined },
  latent: readonly number[],
  tableRows: Halving["tableRows"],
): Pick<Original, "image" | "mask"> {
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
  return { image: ofRun(names.image, latent), mask: names.mask === undefined ? undefined : ofRun(names.mask, masked) };
}
