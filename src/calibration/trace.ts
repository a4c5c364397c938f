/** The trace: the statistics of every branch from calibration, their file format, and how traces of different samples are merged. */
import { z } from "zod";
import { badTrace, traceMismatch, traceOverlap } from "../words/index.js";
import { BRANCH_KINDS } from "../../ir/dit.js";
import { TRACE_BYTES } from "../../ir/limits.js";
import type { SiteTokens } from "../../ir/site-tokens.js";
import { cutSchema, differenceOf, type ErrorBands, parseWith, type SiteStatistics, type RunIdentity } from "../../schedules/index.js";
import { readJson } from "../files/index.js";

const row = z.array(z.number()).readonly();
const bands = z.array(row).readonly();
const macsSchema = z.strictObject({ linear: z.number().min(0), attention: z.number().min(0) });
/** A step without linear MACs cannot become cheaper, so it is refused. */
const stepMacsSchema = macsSchema.extend({ linear: z.number().positive() });

/** `SiteTokens`. */
const tokensSchema = z.strictObject({
  count: z.int().min(1),
  columns: z.int().min(1).optional(),
  share: z.number().min(0),
  shareWithKeys: z.number().min(0).optional(),
  move: z.number().min(0),
  choice: z.strictObject({ mixer: z.string().optional() }).optional(),
  mixer: z.string().optional(),
}) satisfies z.ZodType<SiteTokens>;

/** The statistics are those of `SiteStatistics`. */
const siteSchema = z.strictObject({
  kind: z.enum(BRANCH_KINDS),
  block: z.int(),
  stream: z.string(),
  macs: macsSchema,
  /** Not in traces of before 2026-12, nor of branches without an axis of tokens. */
  tokens: tokensSchema.optional(),
  norm: row,
  diff: bands,
  ratio: z.array(bands).readonly(),
  gram: bands,
  gain: row,
}) satisfies z.ZodType<SiteStatistics>;

export const traceSchema = z.strictObject({
  format: z.literal("smoothcc-trace/1"),
  /** Digest of the one-step graph, weights apart. */
  structure: z.string(),
  /** The first row that calls each network but the first, if there are several. */
  borders: z.array(z.int().min(0)).optional(),
  /** Where the network was cut. */
  cut: cutSchema.optional(),
  /** Steps that the sampler was set up with. */
  samplingSteps: z.int().min(1).optional(),
  /** Name of the sampler, digest of its table, and the time of each of its rows. */
  sampler: z.strictObject({ name: z.string(), digest: z.string(), timesteps: row }),
  /** Rows of the table: evaluations of the network. */
  steps: z.int().min(1),
  guidance: z.strictObject({ form: z.string(), scale: z.union([z.number(), z.array(z.number())]) }),
  seed: z.int(),
  /** Values that all samples got, by input: element type, shape, and bytes or their digest. Other inputs follow the recipe. */
  conditions: z.record(z.string(), z.string()).default({}),
  /** MACs of one whole step at the calibration's batch. */
  macs: stepMacsSchema,
  /** Numbers of the samples (seed + number is the noise's seed), rising. */
  samples: z.array(z.int().min(0)).min(1),
  /** How many steps the inner products look back. */
  lags: z.int().min(0),
  sites: z.record(z.string(), siteSchema),
});

export type Trace = z.infer<typeof traceSchema>;

/** The fields that describe the measured run. A plan for another run needs another trace. */
export type TracedRun = Pick<Trace, "structure" | "borders" | "cut" | "samplingSteps" | "steps" | "sampler" | "guidance">;

/** The identity of the measured run, as plans made from the trace contain it. */
export function runTraced({ structure, borders, cut, samplingSteps, sampler: { name, digest }, guidance }: TracedRun): RunIdentity {
  return { structure, borders, cut, steps: samplingSteps, sampler: { name, digest }, guidance };
}

/** What is known before anything is measured. */
export type Calibration = TracedRun &
  Pick<Trace, "seed" | "conditions" | "macs"> & {
    readonly sites: Readonly<Record<string, Omit<Trace["sites"][string], keyof SiteStatistics>>>;
  };

/** The number of lags for which L1 differences are kept: the largest reuse distance that a threshold rule can use. */
export const L1_LAGS = 8;

/** Reads a trace. Throws FILE_MISSING, NOT_A_FILE, FILE_TOO_LARGE, BAD_JSON, BAD_JSON_FIELD, BAD_TRACE. */
export function readTrace(file: string): Trace {
  const trace = parseWith(traceSchema, readJson(file, TRACE_BYTES), file);
  const { steps, lags, samples, sampler, sites } = trace;
  const refuse = (problem: string): never => {
    throw badTrace(file, problem);
  };
  if (Object.keys(sites).length === 0) refuse("it has no branches");
  if (sampler.timesteps.length !== steps) refuse(`its sampler has ${sampler.timesteps.length} timesteps for ${steps} steps`);
  if (samples.some((sample, i) => sample <= (samples[i - 1] ?? -1))) refuse("its samples do not rise");
  for (const [site, { norm, diff, ratio, gram, gain }] of Object.entries(sites)) {
    if ([norm, gain, ...diff, ...ratio.flat(), ...gram].some((values) => values.length !== steps))
      refuse(`the rows of ${site} do not have ${steps} entries`);
    if (ratio.length !== samples.length) refuse(`${site} has ratios of ${ratio.length} samples, not of ${samples.length}`);
    const l1 = Math.min(L1_LAGS, lags);
    if (gram.length !== lags + 1 || [diff, ...ratio].some((rows) => rows.length !== l1)) refuse(`${site} does not have ${lags} lags`);
  }
  return trace;
}

/** Throws TRACE_MISMATCH, with the first difference, unless the trace of `file` describes this run. */
export function assertSameRun(file: string | undefined, trace: TracedRun, run: TracedRun): void {
  const rowsOf = (traced: TracedRun): RunIdentity => ({ ...runTraced(traced), steps: traced.steps });
  const difference = differenceOf(rowsOf(trace), rowsOf(run));
  if (difference) throw traceMismatch(file, difference.what, difference.own, difference.other);
}

/**
 * The trace of the samples of both: it adds the sums, concatenates the ratios, and looks back as far as both do. `file` is the file of
 * `added`. Throws TRACE_MISMATCH, and TRACE_OVERLAP if a sample is in both.
 */
export function mergeTraces(trace: Trace, added: Trace, file?: string): Trace {
  assertSameCalibration(file, added, trace);
  const twice = added.samples.find((sample) => trace.samples.includes(sample));
  if (twice !== undefined) throw traceOverlap(file, twice);
  const order = [...trace.samples, ...added.samples].map((sample, from) => ({ sample, from })).sort((a, b) => a.sample - b.sample);
  const lags = Math.min(trace.lags, added.lags);
  const sites: Trace["sites"] = {};
  for (const [name, site] of Object.entries(trace.sites)) {
    const other = added.sites[name];
    if (!other) throw new Error(`internal: the branch ${name} has gone`);
    const ratios = [...site.ratio, ...other.ratio];
    sites[name] = {
      ...site,
      norm: sum(site.norm, other.norm),
      diff: sums(site.diff, other.diff),
      ratio: order.flatMap(({ from }) => ratios.slice(from, from + 1)),
      gram: sums(site.gram, other.gram).slice(0, lags + 1),
      gain: sum(site.gain, other.gain),
    };
  }
  return { ...trace, samples: order.map(({ sample }) => sample), lags, sites };
}

/** Throws TRACE_MISMATCH unless the trace of `file` is of this calibration: the same run, branches, batch, seed and conditions. */
export function assertSameCalibration(file: string | undefined, trace: Calibration, calibration: Calibration): void {
  assertSameRun(file, trace, calibration);
  const namesOf = ({ sites }: Calibration): string => Object.keys(sites).sort().join(" ");
  if (namesOf(trace) !== namesOf(calibration)) throw traceMismatch(file, "set of branches", namesOf(trace), namesOf(calibration));
  if (trace.macs.linear !== calibration.macs.linear)
    throw traceMismatch(file, "batch or size (in MACs of a step)", trace.macs.linear, calibration.macs.linear);
  if (trace.seed !== calibration.seed) throw traceMismatch(file, "seed", trace.seed, calibration.seed);
  const [given, wanted] = [conditionsText(trace), conditionsText(calibration)];
  if (given !== wanted) throw traceMismatch(file, "set of conditions", given, wanted);
}

function conditionsText({ conditions }: Calibration): string {
  return Object.entries(conditions).map(([name, value]) => `${name}=${value}`).join(" ") || "the recipe's"; // prettier-ignore
}

function sums(a: ErrorBands, b: ErrorBands): number[][] {
  return a.slice(0, b.length).map((values, i) => sum(values, b[i] ?? []));
}

function sum(a: readonly number[], b: readonly number[]): number[] {
  return a.map((value, i) => value + (b[i] ?? NaN));
}
