/** The known schedulers, and the way from a scheduler's configuration to its table. */
import { z } from "zod";
import { badJsonField, badSamplerTable, degenerateTimes, samplerOption, unknownScheduler, unsupportedScheduler } from "../diagnostics.js";
import { MAX_STEPS } from "../../ir/limits.js";
import { hasMethods, loadFolder } from "../../ir/registry.js";
import { refuseNonlinear } from "../solvers/clipping.js";
import { parseWith } from "../parse-with.js";
import {
  evaluationsThatCount,
  type Row,
  type Sampler,
  type SamplerOptions,
  type SamplerSetting,
  type SamplerTable,
  tableFrom,
  type Term,
} from "../sampler.js";

export function isSampler(candidate: unknown): candidate is Sampler {
  if (!hasMethods(candidate, "table") || !("className" in candidate) || !("takes" in candidate) || !("config" in candidate)) return false;
  return typeof candidate.className === "string" && Array.isArray(candidate.takes) && candidate.config instanceof z.ZodObject;
}

/** By file stem, in alphabetical order. */
export const samplers: ReadonlyMap<string, Sampler> = await loadFolder(import.meta.url, isSampler);

const terms = z.array(z.strictObject({ step: z.int().min(0), weight: z.number() }));
const tableSchema = z.strictObject({
  name: z.string(),
  prediction: z.enum(["epsilon", "v_prediction", "sample", "flow"]),
  initialScale: z.number(),
  corrects: z.literal(true).optional(),
  rows: z
    .array(
      z.strictObject({
        timestep: z.number(),
        level: z.strictObject({ signal: z.number(), noise: z.number() }).optional(),
        sigma: z.number().optional(),
        inputScale: z.number(),
        m: z.strictObject({ x: z.number(), out: z.number(), clip: z.number().positive().optional() }),
        next: z.strictObject({
          x: terms,
          m: terms,
          out: terms.optional(),
          noise: z.number(),
          learned: z.strictObject({ min: z.number(), max: z.number() }).optional(),
        }),
      }),
    )
    .min(1),
});

/**
 * The table of a scheduler: of the class that the configuration names (a diffusers `scheduler_config.json`), or the
 * configuration itself if that is a table. Unknown keys are ignored; `unknownKeys` lists them. `own` are the user's own classes.
 * Throws UNKNOWN_SCHEDULER, UNSUPPORTED_SCHEDULER, BAD_JSON_FIELD, SAMPLER_OPTION, DEGENERATE_TIMES, BAD_SAMPLER_TABLE.
 */
export function samplerTable(config: unknown, options: SamplerOptions, own: readonly Sampler[] = []): SamplerTable {
  if (!Number.isInteger(options.steps) || options.steps < 1 || options.steps > MAX_STEPS)
    throw samplerOption("A sampler", "steps", `takes a whole number of steps from 1 to ${MAX_STEPS}`);
  if (isRecord(config) && "rows" in config) {
    return startedTable("A sampler table", givenTable(parseWith(tableSchema, config, "sampler table"), options), options);
  }
  const sampler = samplerOf(config, own);
  refuseSettings(sampler.className, options, sampler.takes);
  const table = sampler.table(parseWith(sampler.config, config, sampler.className), options);
  if (!options.nonlinear) refuseNonlinear(sampler.className, table);
  return startedTable(sampler.className, checked(sampler.className, table), options);
}

/** The table from the step on at which the run starts; a step may have several rows (diffusers: `t_start * scheduler.order`). */
function startedTable(who: string, table: SamplerTable, { steps, start = 0 }: SamplerOptions): SamplerTable {
  if (!Number.isInteger(start) || start < 0 || start >= steps) throw samplerOption(who, "start", `starts at a step from 0 to ${steps - 1}`);
  const started = tableFrom(table, start * Math.ceil(table.rows.length / steps));
  if (!started) throw samplerOption(who, "start", `has a history: it cannot start at step ${start}`);
  return started;
}

/** The keys of the configuration that its class does not know and that have no effect. Empty for a table. */
export function unknownKeys(config: unknown, own: readonly Sampler[] = []): readonly string[] {
  if (!isRecord(config) || "rows" in config) return [];
  const known = samplerOf(config, own).config.shape;
  return Object.keys(config).filter((key) => !key.startsWith("_") && !Object.hasOwn(known, key));
}

function samplerOf(config: unknown, own: readonly Sampler[]): Sampler {
  if (!isRecord(config)) throw badJsonField("scheduler configuration", "(the whole)", "is not an object");
  const className = config["_class_name"];
  const all = [...samplers.values(), ...own];
  if (typeof className !== "string") return samplerByKeys(Object.keys(config), all);
  const found = all.find((sampler) => sampler.className === className || sampler.aliases?.includes(className));
  if (found) return found;
  throw unknownScheduler(
    className,
    all.map((sampler) => sampler.className),
  );
}

/** The only class that knows all keys, for configurations without a class name, as scheduler objects print them. */
function samplerByKeys(keys: readonly string[], all: readonly Sampler[]): Sampler {
  const plain = keys.filter((key) => !key.startsWith("_"));
  const fitting = all.filter(({ config }) => plain.every((key) => Object.hasOwn(config.shape, key)));
  const [only] = fitting;
  if (only && fitting.length === 1) return only;
  const names = (fitting.length > 0 ? fitting : all).map((sampler) => sampler.className).join(", ");
  throw badJsonField("scheduler configuration", "_class_name", `is missing; it is one of ${names}`);
}

function givenTable(table: SamplerTable, options: SamplerOptions): SamplerTable {
  refuseSettings("A sampler table", options, []);
  if (!options.nonlinear) refuseNonlinear("A sampler table", table);
  const { rows } = table;
  if (options.steps !== rows.length) throw samplerOption("A sampler table", "steps", `of ${rows.length} rows has as many steps`);
  for (const [k, { next }] of rows.entries()) {
    const ahead = [...next.x, ...next.m, ...(next.out ?? [])].find(({ step }) => step > k);
    if (ahead) throw badSamplerTable(k, `reads step ${ahead.step}, which comes later`);
  }
  return table;
}

function refuseSettings(who: string, { sigmas, timesteps, mu, eta }: SamplerOptions, takes: readonly SamplerSetting[]): void {
  const given = { sigmas, timesteps, mu, eta: eta === 0 ? undefined : eta };
  for (const setting of ["sigmas", "timesteps", "mu", "eta"] as const) {
    if (given[setting] !== undefined && !takes.includes(setting)) throw samplerOption(who, setting, "does not take this setting");
  }
  if (sigmas?.some((sigma, k) => !(sigma >= 0 && sigma <= (sigmas[k - 1] ?? Infinity))))
    throw samplerOption(who, "sigmas", "takes noise levels from 0 up that never rise");
}

/**
 * The table without terms of weight 0. Throws UNSUPPORTED_SCHEDULER if a number of it is not finite, DEGENERATE_TIMES if the
 * network has no effect at any step: the grid does not move.
 */
function checked(className: string, table: SamplerTable): SamplerTable {
  const numbers = ({ timestep, level = { signal: 1, noise: 0 }, sigma = 0, inputScale, m, next }: Row): readonly number[] => [
    ...[
      table.initialScale,
      timestep,
      sigma,
      level.signal,
      level.noise,
      inputScale,
      m.x,
      m.out,
      m.clip ?? 0,
      next.noise,
      next.learned?.min ?? 0,
      next.learned?.max ?? 0,
    ],
    ...[...next.x, ...next.m, ...(next.out ?? [])].map(({ weight }) => weight),
  ];
  // The run computes in floats.
  const k = table.rows.findIndex((row) => !numbers(row).every((number) => Number.isFinite(Math.fround(number))));
  if (k >= 0) {
    const hint = "It divides by zero there: change final_sigmas_type, solver_type, prediction_type or the number of steps.";
    throw unsupportedScheduler(className, "these settings", `the coefficients of step ${k} are not finite`, hint);
  }
  const counts = ({ weight }: Term): boolean => weight !== 0;
  const rows = table.rows.map((row) => {
    const { out = [], ...next } = row.next;
    const kept = out.filter(counts);
    return { ...row, next: { ...next, x: next.x.filter(counts), m: next.m.filter(counts), ...(kept.length > 0 && { out: kept }) } };
  });
  const sound = { ...table, rows };
  if (rows.length > 1 && evaluationsThatCount(sound).size === 0)
    throw degenerateTimes(rows.length, `no step from time ${rows[0]?.timestep ?? 0} to ${rows.at(-1)?.timestep ?? 0} moves`);
  return sound;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
