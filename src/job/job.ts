/** A job: the network and the recipe of MODEL, and the sampling run that they define. Also checks that they fit together. */
import { elemOf } from "../../ir/build.js";
import { addMacs, type Macs, NO_MACS, stepCost } from "../../ir/cost.js";
import { ambiguousPort, CompilerError } from "../../ir/diagnostics.js";
import { entryAt } from "../../ir/entries.js";
import { ditView, type Model } from "../../ir/graph.js";
import {
  bind,
  latentShape,
  placeAt,
  type CachedBranch,
  type ConditionSource,
  levelsBehind,
  type Plan,
  type Run,
  runOf,
  sampledBy,
  scaleAt,
  scaleInput,
  startLevel,
  type Schedule,
  unknownKeys,
  withSources,
} from "../../schedules/index.js";
import type { Questions } from "../../passes/index.js";
import { isFloatType } from "../../ir/types.js";
import { batchFixed } from "../../schedules/diagnostics.js";
import { assertDevice, evaluator, type RuntimeOptions } from "../runtime/index.js";
import { badGuidance, fractionalTime, inputNumber, noLevels, noVariance } from "../words/index.js";
import { bindModel, type BoundModel, type BoundNetwork, latentInput, liftBound } from "./bound-model.js";
import { type Network, openNetwork, withRecipe } from "./network.js";
import type { Recipe } from "./recipe.js";
import { type Sampling, samplingOf, schedulerConfig } from "./sampling.js";
import type { RecipeOverrides, JobSource } from "./source.js";
import { holdsNumber } from "./values.js";

export interface Job {
  /** The network that was read, so that it can be bound again without reading it. */
  readonly network: Network;
  /** The network as it was bound, so that it can be cut again without binding it. */
  readonly bound: BoundNetwork;
  readonly source: JobSource;
  /** The step as a guided row calls it. */
  readonly model: Model;
  /** Whether the export's batch is symbolic. */
  readonly anyBatch: boolean;
  readonly run: Run;
  /** The context of passes over it. */
  readonly questions: Questions;
  /** Steps that are run; a step may have several rows in the table, each an evaluation of the network. */
  readonly steps: number;
  /** If the run does not start from noise: the part of a whole run before it, with constant guidance. */
  readonly skipped?: Run | undefined;
}

/**
 * The job of a model and its recipe. `runtime` has the options of the runtime, for the run and for compilation.
 * Throws what its parts throw.
 */
export async function openJob(path: string, overrides: RecipeOverrides = {}, runtime: RuntimeOptions = {}): Promise<Job> {
  await assertDevice(runtime.device);
  const network = await openNetwork(path, overrides);
  const [guess] = network.ports.guesses;
  if (guess) throw ambiguousPort(guess.role, guess.option, guess.candidates);
  return jobOf(network, runtime);
}

/** The same job with another batch. */
export function withBatch({ network }: Job, batch: number, runtime: RuntimeOptions = {}): Promise<Job> {
  return jobOf(withRecipe(network, { batch }), runtime);
}

/** The job with its network cut where a schedule wants it. Throws NOT_RECOGNISED where the network cannot be cut there. */
export async function cutFor(job: Job, { cut = job.source.recipe.cut }: Pick<Schedule, "cut">, runtime: RuntimeOptions = {}): Promise<Job> {
  if (cut === job.source.recipe.cut) return job;
  const bound = { ...job.bound, network: withRecipe(job.network, { cut }) };
  return jobWith(await liftBound(bound, runtime), runtime);
}

/** A schedule, bound to the job that it is for (`cutFor`). Throws what `bind` throws. */
export function planFor({ run }: Job, schedule: Schedule): Plan {
  return bind(schedule, run);
}

/** The job of a network that has been opened. */
export async function jobOf(network: Network, runtime: RuntimeOptions = {}): Promise<Job> {
  return jobWith(await bindModel(network, runtime), runtime);
}

function jobWith({ bound, source, model, facts }: BoundModel, runtime: RuntimeOptions): Job {
  const { network, anyBatch } = bound;
  const { calls, networks } = runOf({ ...facts, table: NO_ROWS });
  const { table, borders, steps, setUp, skipped: before } = samplingOf(source, latentShape({ calls, networks, batch: facts.batch }));
  const levels = bound.original?.mask ? levelsBehind(table) : startLevel(table);
  if (bound.original && !levels) throw noLevels(table.name, table.corrects !== undefined);
  const original = bound.original && { ...bound.original, isStarted: before !== undefined };
  // What is kept is noised within the run, so that it starts from noise wherever it starts.
  const skipped = original ? undefined : before;
  const { guidance } = facts;
  const scaled = (scale: Scale, { table, borders }: Pick<Sampling, "table" | "borders">): Scale =>
    withOwnScales(scale, source.recipe, table.rows.length, borders);
  const run = runOf({
    ...{ ...facts, original, table: withWholeTimes(table, model), borders, steps: setUp },
    guidance: { ...guidance, scale: scaled(guidance.scale, { table, borders }) },
  });
  // The first row's guidance, at all rows: an interval that has none of them leaves the scale at 1.
  const { scale, atRunTime } = scaleAt(guidance, 0);
  const interval = guidance.atRunTime && !atRunTime ? NO_INTERVAL : undefined;
  const job = {
    ...{ network, bound, source, model, anyBatch, run, steps, questions: { evaluator: evaluator(runtime), signal: runtime.signal } },
    skipped:
      skipped &&
      sampledBy(atFirstRow(run, skipped.table), skipped.table, { ...guidance, scale: scaled(scale, skipped), interval }, skipped.borders),
  };
  if (run.anyBatch && !anyBatch) throw batchFixed("the export has a fixed one");
  assertTimes(job);
  assertGuidance(job);
  assertVariance(job);
  return job;
}

const NO_INTERVAL = [0, 0] as const;

/** The run for another table, at all of whose rows conditions with a value for each row have the first one. */
function atFirstRow(run: Run, { rows }: Run["table"]): Run {
  const held = (source: ConditionSource): ConditionSource => (source.perStep ? { ...source, perStep: rows.map(() => 0) } : source);
  return { ...run, conditions: new Map(Array.from(run.conditions, ([name, condition]) => [name, withSources(condition, held)])) };
}

/** The first row of the sampler's table that calls each network but the first; undefined where no scheduler is known. */
export function bordersOf({ source, facts }: BoundModel): readonly number[] | undefined {
  const { calls, networks } = runOf({ ...facts, table: NO_ROWS });
  try {
    return samplingOf(source, latentShape({ calls, networks, batch: facts.batch })).borders;
  } catch (error) {
    if (error instanceof CompilerError && error.code === "NO_SCHEDULER") return undefined;
    throw error;
  }
}

type Scale = Run["guidance"]["scale"];

/** The guidance scale, with those of networks that have their own, in a run of so many rows. */
function withOwnScales(scale: Scale, { networks }: Recipe, rows: number, borders: readonly number[]): Scale {
  if (networks.every((own) => own.scale === undefined) || (typeof scale !== "number" && scale.length !== rows)) return scale;
  return Array.from(
    { length: rows },
    (_, k) => networks[placeAt(borders, k) - 1]?.scale ?? (typeof scale === "number" ? scale : entryAt(scale, k)),
  );
}

const NO_ROWS: Run["table"] = { name: "none", prediction: "epsilon", initialScale: 1, rows: [] };

/** The cost of a guided step with all of its network calls, and of every branch with a cache of its own. */
export function guidedStep({ model, run: { calls, caches } }: Pick<Job, "model" | "run">): {
  readonly total: Macs;
  readonly branches: readonly (CachedBranch & { readonly macs: Macs })[];
} {
  const { total, branches: costs } = stepCost(model);
  return {
    total: calls.reduce((sum) => addMacs(sum, total), NO_MACS),
    branches: caches.map((cache) => ({ ...cache, macs: costs.get(cache.site) ?? NO_MACS })),
  };
}

/** Warnings for the user: about the network, and about settings without effect. */
export function warningsOf({ source, model, run }: Job): readonly string[] {
  const unknown = unknownKeys(schedulerConfig(source), source.extensions?.samplers).map(
    (key) => `The scheduler's '${key}' is not known here and has no effect.`,
  );
  const { form, scale } = run.guidance;
  const twoHalves = run.calls.flatMap(({ halves }) => halves).length > 1;
  const isUnconditional = [...run.conditions.values()].every(({ halves }) => halves.cond === halves.uncond);
  const unguided = twoHalves ? isUnconditional : form === "none" && scale !== 1;
  const noUncond = twoHalves
    ? 'Guidance has no effect: "guidance.uncond" in the recipe does not say what the unconditional half sees.'
    : `The guidance scale ${String(scale)} has no effect: the recipe's "guidance.form" is '${form}'.`;
  const isGuided = scale !== 1 || run.guidance.atRunTime === true;
  const idle =
    isGuided && run.rows.some((row) => row.scale === 1 && !row.atRunTime && row.calls.some(({ halves }) => halves.includes("uncond")));
  const called = new Set(run.rows.map((_, k) => placeAt(run.borders, k)));
  const { recipe } = source;
  const unused = [recipe.model, ...recipe.networks.map((own) => own.model)].filter((_, place) => !called.has(place));
  const noDrop =
    "Steps at guidance scale 1 still compute both halves: this export cannot run one of them. Export with a symbolic batch, or use the form 'two-calls'.";
  return [
    ...ditView(model).warnings,
    ...unknown,
    ...(unguided ? [noUncond] : []),
    ...(idle ? [noDrop] : []),
    ...unused.map((file) => `No step of the run calls '${file}'.`),
  ];
}

/** Times of a sampler may miss whole numbers by the rounding of doubles. */
const TIME_ROUNDING = 1e-9;

/** The table with whole times for a network that takes no others, where they are so but for rounding. */
function withWholeTimes(table: Run["table"], { graph, dit }: Model): Run["table"] {
  const input = graph.inputs.find((value) => value.name === dit?.timestep);
  if (!input?.type || isFloatType(input.type.elem)) return table;
  const whole = (time: number): number => (Math.abs(time - Math.round(time)) <= TIME_ROUNDING * Math.abs(time) ? Math.round(time) : time);
  return { ...table, rows: table.rows.map((row) => ({ ...row, timestep: whole(row.timestep) })) };
}

/**
 * Throws FRACTIONAL_TIME if the sampler's times are no whole numbers and the network takes nothing else,
 * INPUT_NUMBER if they are too large for it.
 */
function assertTimes({ model: { graph, dit }, run: { table } }: Job): void {
  const input = graph.inputs.find((value) => value.name === dit?.timestep);
  if (!input?.type) return;
  const { elem } = input.type;
  const misfit = table.rows.find(({ timestep }) => !holdsNumber(elem, timestep));
  if (!misfit) return;
  throw Number.isInteger(misfit.timestep)
    ? inputNumber(input.name, elem, misfit.timestep)
    : fractionalTime(table.name, misfit.timestep, input.name, elem);
}

/** Throws BAD_GUIDANCE for scales, an interval or channels that do not fit the run, INPUT_NUMBER for scales that do not fit their input. */
function assertGuidance({ model, source, run: { guidance, prediction, rows }, run }: Job): void {
  const { form, scale, interval, channels } = guidance;
  const count = rows.length;
  const taken = scaleInput(run)?.name;
  if (taken !== undefined && form === "none")
    throw badGuidance(
      "form",
      "is 'none', which has no scale that could be given at run time",
      "Say which form it is, or leave out --runtime guidance.",
    );
  if (taken !== undefined && typeof scale !== "number")
    throw badGuidance(
      "scale",
      "is a list, and a scale that is given at run time is one number for all guided rows",
      'Give one scale, and "guidance.interval" where some rows are not guided; or leave out --runtime guidance.',
    );
  if (taken !== undefined && source.recipe.inputs[taken]?.fix !== undefined)
    throw badGuidance(
      "scale",
      `is given at run time, and "inputs.${taken}.fix" fixes it`,
      'Its default is "guidance.scale"; what it is calibrated with is "calibrate".',
    );
  if (typeof scale !== "number" && scale.length !== count)
    throw badGuidance(
      "scale",
      `has ${scale.length} numbers for ${count} evaluations of the network`,
      "Give one scale, or one for each evaluation.",
    );
  const input = model.graph.inputs.find(({ name }) => name === guidance.input);
  const misfit = input && [scale].flat().find((number) => !holdsNumber(elemOf(input), number));
  if (input && misfit !== undefined) throw inputNumber(input.name, elemOf(input), misfit);
  if (interval && (interval[0] >= interval[1] || interval[1] > count))
    throw badGuidance(
      "interval",
      `[${interval.join(", ")}] is no part of ${count} steps`,
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
function assertVariance({ model, run: { table, prediction } }: Job): void {
  if (!table.rows.some(({ next }) => next.learned)) return;
  const have = Number(model.graph.outputs[0]?.value.type?.shape?.[prediction.channelAxis]);
  const need = Number(latentInput(model)?.type?.shape?.[prediction.channelAxis]);
  if ((prediction.channels?.[1] ?? have) + need > have) throw noVariance(table.name, have, need);
}
