/** Calibration: uncached trajectories over the original step, and the statistics of their branches. */
import { badOption } from "../../schedules/diagnostics.js";
import { constantKey } from "../../ir/digest.js";
import type { SiteStatistics } from "../../schedules/index.js";
import { conditionsOf, DEFAULT_SEED, guidedStep, type Job, type SampleOptions } from "../job/index.js";
import type { Progress } from "../words/index.js";
import { Reductions } from "./reductions.js";
import { type BranchValues, ReferenceLoop, startOf, type Trajectory } from "../reference/index.js";
import { FASTEST, type RuntimeOptions, Sessions } from "../runtime/index.js";
import { assertSameCalibration, type Calibration, mergeTraces, type Trace, type TracedRun } from "./trace.js";
import { windowOf } from "./window.js";

/** The default number of calibration samples. */
export const DEFAULT_SAMPLES = 10;

/** The part `index` (from 1) of `count` parts: the samples whose number modulo `count` is `index − 1`. */
export interface Shard {
  readonly index: number;
  readonly count: number;
}

export interface CalibrateOptions extends RuntimeOptions, Omit<SampleOptions, "noise"> {
  /** Samples of the whole calibration. Default: `DEFAULT_SAMPLES`. */
  readonly samples?: number | undefined;
  /** The part of them that is run. Default: all. */
  readonly shard?: Shard | undefined;
  /** Bytes for the values of branches. */
  readonly memory?: number | undefined;
  /** An earlier trace and its file: its samples are not run again. */
  readonly found?: { readonly trace: Trace; readonly file: string } | undefined;
  /** Called with the trajectory of every sample that was run, once if it is repeated for other branches. */
  readonly keep?: ((sample: number, trajectory: Trajectory) => void) | undefined;
  /** Called after every sample with the trace so far. */
  readonly checkpoint?: ((trace: Trace) => Promise<void>) | undefined;
  readonly progress?: Progress | undefined;
}

/**
 * Runs trajectories without caching and adds up the statistics of their branches. Each sample runs once, or once for each group of
 * branches if memory cannot hold all of them. The statistics do not depend on the groups.
 * Throws BAD_OPTION, TRACE_MISMATCH if what was found is of another calibration, and what running the network throws.
 */
export async function calibrate(job: Job, options: CalibrateOptions = {}): Promise<Trace> {
  const { memory, found, keep, checkpoint, progress } = options;
  const window = windowOf(job, memory);
  const calibration = calibrationOf(job, options);
  const { steps } = calibration;
  if (found) assertSameCalibration(found.file, found.trace, calibration);
  let trace = found?.trace;
  const missing = sampleNumbers(options).filter((sample) => !found?.trace.samples.includes(sample));
  const evaluations = missing.length * window.groups.length * steps;
  let done = 0;
  // One open session at a time, as each has its own copy of the weights.
  const loop = new ReferenceLoop(job.run, options, new Sessions({ ...options, ...FASTEST }, 0));
  const reductions = new Reductions(steps, window, options);
  try {
    for (const sample of missing) {
      const start = await startOf(job, sample, { ...options, noise: undefined });
      const measured = new Map<string, SiteStatistics>();
      for (const [i, group] of window.groups.entries()) {
        const observe = async (step: number, branches: BranchValues): Promise<void> => {
          await reductions.observe(step, branches.named());
          progress?.("calibrate", ++done, evaluations);
        };
        const trajectory = await loop.trajectory(start, { observe, only: group });
        if (i === 0) keep?.(sample, trajectory);
        for (const [site, statistics] of reductions.finish()) measured.set(site, statistics);
      }
      const own = sampleTrace(calibration, sample, window.lags, measured);
      trace = trace ? mergeTraces(trace, own) : own;
      await checkpoint?.(trace);
    }
  } finally {
    await loop.close();
    await reductions.close();
  }
  if (!trace) throw new Error("internal: a calibration without samples");
  return trace;
}

/** The numbers of the samples that are run. Throws BAD_OPTION for a shard that has none. */
function sampleNumbers({
  samples = DEFAULT_SAMPLES,
  shard: { index, count } = { index: 1, count: 1 },
}: CalibrateOptions): readonly number[] {
  const own = Array.from({ length: samples }, (_, sample) => sample).filter((sample) => sample % count === index - 1);
  if (own.length === 0) throw badOption("--shard", `part ${index} of ${count} has none of ${samples} samples`);
  return own;
}

/** The fields of a trace that describe the job's run. */
export function tracedRun({ run: { of, table } }: Job): TracedRun {
  const { structure, borders, cut, steps, sampler, guidance } = of;
  const { form, scale } = guidance;
  return {
    structure,
    ...(borders && { borders: [...borders] }),
    cut,
    samplingSteps: steps,
    sampler: { ...sampler, timesteps: table.rows.map(({ timestep }) => timestep) },
    steps: table.rows.length,
    guidance: { form, scale: typeof scale === "number" ? scale : [...scale] },
  };
}

function calibrationOf(job: Job, { seed = DEFAULT_SEED, inputs = new Map() }: SampleOptions): Calibration {
  const { total, branches } = guidedStep(job);
  const given = [...conditionsOf(job, 0, inputs)].filter(([name]) => inputs.has(name));
  return {
    ...tracedRun(job),
    seed,
    conditions: Object.fromEntries(given.map(([name, data]) => [name, constantKey(data)])),
    macs: { ...total },
    sites: Object.fromEntries(
      branches.map(({ name, kind, block, stream, macs, tokens }) => [
        name,
        { kind, block, stream, macs: { ...macs }, ...(tokens && { tokens }) },
      ]),
    ),
  };
}

/** The trace of one sample. */
function sampleTrace(calibration: Calibration, sample: number, lags: number, measured: ReadonlyMap<string, SiteStatistics>): Trace {
  const { sites: branches, ...run } = calibration;
  const sites: Trace["sites"] = {};
  for (const [site, facts] of Object.entries(branches)) {
    const statistics = measured.get(site);
    if (!statistics) throw new Error(`internal: the branch ${site} has not been measured`);
    sites[site] = { ...facts, ...statistics };
  }
  return { format: "smoothcc-trace/1", ...run, samples: [sample], lags, sites };
}
