/** The sampler of a recipe: the scheduler's table for its number of steps and the shape of its latent. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { badJsonField } from "../../schedules/diagnostics.js";
import { badNetworks, noScheduler } from "../words/index.js";
import { readJson } from "../files/index.js";
import { linspace, type SamplerOptions, samplerTable, type SamplerTable, shiftOf } from "../../schedules/index.js";
import type { Recipe } from "./recipe.js";
import { fileOf, type JobSource } from "./source.js";

const DEFAULT_STEPS = 50;

/** The sampler table of a recipe, and its steps. */
export interface Sampling {
  readonly table: SamplerTable;
  /** Steps that are run; a step may have several rows in the table, each an evaluation of the network. */
  readonly steps: number;
  /** The number of steps that the sampler was set up with: more than `steps` if the run does not start from noise. */
  readonly setUp: number;
  /** The first row of the table that calls each network but the first. */
  readonly borders: readonly number[];
  /** If the run does not start from noise: the rows of a whole run before its start. */
  readonly skipped?: Pick<Sampling, "table" | "borders"> | undefined;
}

/**
 * The sampling of a source for the shape of its latent, with times as the network gets them. Throws NO_SCHEDULER, BAD_NETWORKS, and what
 * reading the scheduler and making its table throw.
 */
export function samplingOf(source: JobSource, latent: readonly number[]): Sampling {
  const { recipe, extensions } = source;
  const config = schedulerConfig(source);
  const options = samplerOptions(recipe, config, latent);
  const { steps } = options;
  const { strength = 1, start = steps - Math.floor(steps * strength) } = recipe;
  const run = samplerTable(config, { ...options, start }, extensions?.samplers);
  const borders = bordersOf(recipe, run, true);
  const table = inNetworkTime(run, recipe);
  if (start === 0) return { table, borders, steps, setUp: steps };
  const whole = samplerTable(config, options, extensions?.samplers);
  const before = { ...whole, rows: whole.rows.slice(0, whole.rows.length - table.rows.length) };
  const skipped = { table: inNetworkTime(before, recipe), borders: bordersOf(recipe, before, false) };
  return { table, borders, steps: steps - start, setUp: steps, skipped };
}

/**
 * For each of the recipe's `networks`, the first row of a table in the scheduler's time that calls it; the number of rows if none does.
 * `from` counts in the rows of the run: none of those that a run skips has come so far. Throws BAD_NETWORKS.
 */
function bordersOf({ networks }: Recipe, { rows }: SamplerTable, isRun: boolean): readonly number[] {
  const borders: number[] = [];
  for (const [i, { from, belowTime = -Infinity }] of networks.entries()) {
    const isBelow = ({ timestep }: SamplerTable["rows"][number]): boolean => timestep < belowTime;
    const first = rows.findIndex(isBelow);
    const border = from === undefined ? (first < 0 ? rows.length : first) : isRun ? from : rows.length;
    if (from !== undefined && isRun && from >= rows.length)
      throw badNetworks(i, `is called from ${from} on, and the run has ${rows.length} evaluations`);
    if (from === undefined && !rows.slice(border).every(isBelow))
      throw badNetworks(i, `is called below the time ${belowTime}, and the sampler's times rise above it again`);
    if (border < (borders.at(-1) ?? 0)) throw badNetworks(i, `is called from ${border} on, before the network in front of it`);
    borders.push(border);
  }
  return borders;
}

/** The table with times as the network gets them. */
function inNetworkTime(table: SamplerTable, { time }: Recipe): SamplerTable {
  return { ...table, rows: table.rows.map((row) => ({ ...row, timestep: time.scale * row.timestep + time.offset })) };
}

const schedulerKeys = z.object({
  rows: z.array(z.unknown()).optional(),
  use_flow_sigmas: z.boolean().optional(),
  use_dynamic_shifting: z.boolean().optional(),
});

/** The arguments that a diffusers pipeline passes to `set_timesteps`. Rules of the recipe only apply to schedulers that use them. */
function samplerOptions({ sampling, steps }: Recipe, config: unknown, latent: readonly number[]): SamplerOptions {
  const { rows, use_flow_sigmas: ownSigmas = false, use_dynamic_shifting: isDynamic = false } = schedulerKeys.safeParse(config).data ?? {};
  const { sigmas, timesteps, mu, eta } = sampling;
  const given = rows ?? timesteps ?? (typeof sigmas === "object" ? sigmas : undefined);
  const count = steps ?? given?.length ?? DEFAULT_STEPS;
  const ruled = sigmas !== "linear" ? sigmas : rows || ownSigmas ? undefined : linspace(1, 1 / count, count);
  return {
    steps: count,
    sigmas: ruled,
    timesteps,
    mu: typeof mu === "object" ? (isDynamic ? shiftOf(mu.rule, tokenCountOf(latent, mu), count, config) : undefined) : mu,
    eta,
    nonlinear: true,
  };
}

function tokenCountOf(latent: readonly number[], { axes, patch }: { readonly axes: readonly number[]; readonly patch: number }): number {
  return axes.reduce((tokens, axis) => {
    const size = latent.at(axis);
    if (size === undefined) throw badJsonField("recipe", "sampling.mu.axes", `has ${axis}, and the latent is [${latent.join(", ")}]`);
    return tokens * Math.floor(size / patch);
  }, 1);
}

/** The scheduler's configuration as JSON. Throws NO_SCHEDULER, FILE_MISSING, FILE_OUTSIDE, BAD_JSON. */
export function schedulerConfig(source: JobSource): unknown {
  const { scheduler } = source.recipe;
  if (typeof scheduler === "object") return scheduler;
  const file = fileOf(source, scheduler ?? join(dirname(source.modelFile), "scheduler_config.json"));
  if (scheduler === undefined && !existsSync(file)) throw noScheduler();
  return readJson(file);
}
