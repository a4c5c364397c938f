/** Runs of the model for policies: the calibration's samples with the schedules that a policy tries. */
import { CompilerError } from "../../ir/diagnostics.js";
import { totalMacs } from "../../ir/cost.js";
import { entryAt } from "../../ir/entries.js";
import {
  CacheMap,
  type CachedBranch,
  type Cell,
  isPartial,
  lastReaders,
  type Plan,
  type Run,
  type Runs,
  type Schedule,
  type Term,
  valueFor,
} from "../../schedules/index.js";
import { guidedStep, type Job, cutFor, planFor, type RunInputs, type SampleOptions } from "../job/index.js";
import {
  type Cells,
  finalOf,
  maskAt,
  nextOf,
  type Observer,
  type StepResult,
  ReferenceLoop,
  startOf,
  type Trajectory,
  type RunUnderWay,
} from "../reference/index.js";
import { FASTEST, type RuntimeOptions, Sessions } from "../runtime/index.js";

export interface ModelRuns extends Runs {
  close(): Promise<void>;
}

export interface RunsOptions extends RuntimeOptions, SampleOptions {
  /** Numbers of the samples that the calibration ran. */
  readonly samples: readonly number[];
  /** Trajectories without caching that are already known, by sample. */
  readonly known?: ReadonlyMap<number, Trajectory> | undefined;
}

export function runsOf(job: Job, options: RunsOptions): ModelRuns {
  const sessions = new Sessions({ ...options, ...FASTEST });
  const { samples } = options;
  const steps = job.run.rows.length;
  const uncached = new Map(options.known);
  let evaluations = 0;
  const starts = new Map<number, Promise<RunInputs>>();
  const startAt = (sample: number): Promise<RunInputs> => {
    const start = starts.get(sample) ?? startOf(job, sample, options);
    starts.set(sample, start);
    return start;
  };
  const networks = new Map<string, Promise<CutNetwork>>();
  /** The network with the cut of a schedule. */
  const networkFor = (schedule: Pick<Schedule, "cut"> = {}): Promise<CutNetwork> => {
    const { cut = job.source.recipe.cut } = schedule;
    const known = networks.get(cut) ?? cutNetworkOf(cutFor(job, schedule, options), options, sessions);
    networks.set(cut, known);
    return known;
  };
  const whole = async (sample: number): Promise<Trajectory> => {
    const { loop } = await networkFor();
    const trajectory = uncached.get(sample) ?? (await loop.trajectory(await startAt(sample)));
    if (!uncached.has(sample)) evaluations += steps;
    uncached.set(sample, trajectory);
    return trajectory;
  };
  return {
    samples,
    evaluations: () => evaluations,
    close: () => sessions.close(),
    async fits(cut) {
      try {
        return (await networkFor({ cut })).cacheable >= (await networkFor()).cacheable - ROUNDING;
      } catch (error) {
        if (error instanceof CompilerError) return false;
        throw error;
      }
    },
    async run(sample, schedule, observe) {
      if (!schedule && !observe) return finalOf(await whole(sample));
      const { loop, job: own, costAt } = await networkFor(schedule);
      const plan = schedule && planFor(own, schedule);
      const known = plan && !observe ? uncached.get(sample) : undefined;
      const begun = plan && known && { trajectory: known, from: firstRead(plan, steps) };
      for (let step = begun?.from ?? 0; step < steps; step++) evaluations += costAt(step, plan);
      const named: Observer | undefined =
        observe &&
        ((step, branches) => {
          observe(step, branches.named());
        });
      return loop.run(await startAt(sample), { plan, observe: named, begun });
    },
    async seconds() {
      const { loop } = await networkFor();
      await loop.open();
      const start = performance.now();
      await loop.run(await startAt(samples[0] ?? 0));
      return (performance.now() - start) / 1000;
    },
    async latents(sample) {
      return (await whole(sample)).latents;
    },
    async walk(sample, schedule, from = 0) {
      const { loop, job: own, costAt } = await networkFor(schedule);
      const plan = planFor(own, schedule);
      const exact = await whole(sample);
      const begun = { trajectory: exact, from };
      const walk = loop.start(await startAt(sample), { plan, begun });
      return {
        async attempt(terms) {
          const { step } = walk;
          evaluations += costAt(step, plan);
          const outcome = await loop.attempt(walk, terms && cellsWith(plan, step, own.run.caches, terms));
          return {
            latent: outcome.latent,
            deviation: () => deviationOf(job.run, step, walk, outcome, exact),
            advance: () => loop.advance(walk, outcome),
          };
        },
      };
    },
  };
}

/** The network with one cut. */
interface CutNetwork {
  readonly job: Job;
  readonly loop: ReferenceLoop;
  /** The share of a step's MACs that its branches take. */
  readonly cacheable: number;
  readonly costAt: (step: number, plan?: Plan) => number;
}

/** The rounding error of sums of shares. */
const ROUNDING = 1e-9;

async function cutNetworkOf(opening: Promise<Job>, options: RunsOptions, sessions: Sessions): Promise<CutNetwork> {
  const job = await opening;
  const shares = sharesOf(job);
  return {
    job,
    loop: new ReferenceLoop(job.run, options, sessions),
    cacheable: [...shares].reduce((sum, [, share]) => sum + share, 0),
    costAt: (step, plan) => costOf(shares, step, plan),
  };
}

/** The share of a step's MACs that each branch takes. */
function sharesOf(job: Job): CacheMap<number> {
  const { total, branches } = guidedStep(job);
  return new CacheMap(branches.map((cache) => [cache, totalMacs(cache.macs) / totalMacs(total)]));
}

/** The cost of a step under a plan, as a share of the MACs of a full step. A branch of which some tokens are computed is computed whole here. */
function costOf(shares: CacheMap<number>, step: number, plan?: Plan): number {
  const isLeft = (cell: Cell | undefined): boolean => cell?.kind !== "compute" && !(cell && isPartial(cell));
  const left = [...(plan?.cells ?? [])].filter(([, cells]) => isLeft(cells[step]));
  return left.reduce((cost, [cache]) => cost - (shares.get(cache) ?? 0), 1);
}

/** The cells for terms by plan key, for the branches that the plan caches at the step. */
function cellsWith({ cells }: Plan, step: number, caches: readonly CachedBranch[], terms: ReadonlyMap<string, readonly Term[]>): Cells {
  const changed: Cells = new CacheMap();
  for (const cache of caches) {
    const sum = valueFor(terms, cache);
    if (sum && cells.get(cache)?.[step]?.kind === "terms") changed.set(cache, { kind: "terms", terms: sum });
  }
  return changed;
}

/**
 * The deviation of an attempt at a step (`Attempt.deviation`). The sampler's sums are linear, so they are applied to the differences from
 * the exact run, up to the last row that reads the output of this step. Outputs of later steps have no difference.
 */
function deviationOf(run: Run, step: number, walk: RunUnderWay, attempt: StepResult, exact: Trajectory): Float64Array {
  const { rows } = run.table;
  const size = attempt.latent.length;
  const minus = (a: ArrayLike<number> = [], b: ArrayLike<number> = []): Float64Array =>
    Float64Array.from(a, (value, i) => value - (b[i] ?? NaN));
  const ahead = [minus(attempt.latent, exact.latents[step + 1])];
  const given =
    (past: readonly Float64Array[], now: Float64Array, exactly: readonly Float64Array[]) =>
    (at: number): Float64Array =>
      at > step ? new Float64Array(size) : minus(at === step ? now : past[at], exactly[at]);
  const summands = {
    x: (at: number) => (at > step ? ahead[at - step - 1] : minus(walk.latents[at], exact.latents[at])),
    m: given(walk.values, attempt.value, exact.values),
    out: given(walk.outs, attempt.out, exact.outs),
  };
  const last = rows.findLastIndex(({ next }) => [...next.m, ...(next.out ?? [])].some((term) => term.step === step));
  for (let k = step + 1; k <= last; k++) {
    // What a mask keeps of an original does not differ.
    const mask = maskAt(run, k, walk.inputs);
    ahead.push(nextOf(entryAt(rows, k), size, summands).map((value, i) => value * (mask?.[i] ?? 1)));
  }
  return ahead.at(-1) ?? new Float64Array();
}

/**
 * The first step whose branches a later step reads, or the last step if there is none. Up to there a run equals the one without caching.
 */
function firstRead({ cells }: Plan, steps: number): number {
  const read = [...cells].flatMap(([, row]) => [...lastReaders(row).keys()]);
  return read.reduce((least, step) => Math.min(least, step), steps - 1);
}
