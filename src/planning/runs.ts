/** Runs of the model that a policy may ask for: the calibration's samples along schedules that it tries. */
import { CompilerError } from "../../ir/diagnostics.js";
import { totalMacs } from "../../ir/cost.js";
import { ditView } from "../../ir/graph.js";
import {
  type CachedBranch,
  cachedBranches,
  type Cell,
  type Plan,
  type Row,
  type Runs,
  type Schedule,
  type Term,
  valueFor,
} from "../../schedules/index.js";
import { guidedStep, type Job, jobFor, planFor, type SampleOptions } from "../job/index.js";
import { type Cells, finalOf, nextOf, type Outcome, ReferenceLoop, startOf, type Trajectory, type Walk } from "../reference/index.js";
import { type RuntimeOptions, Sessions } from "../runtime/index.js";

export interface ModelRuns extends Runs {
  close(): Promise<void>;
}

export interface RunsOptions extends RuntimeOptions, SampleOptions {
  /** Numbers of the samples that the calibration ran. */
  readonly samples: readonly number[];
  /** Runs without caching that have been made already, by sample. */
  readonly known?: ReadonlyMap<number, Trajectory> | undefined;
}

export function runsOf(job: Job, options: RunsOptions): ModelRuns {
  const sessions = new Sessions(options);
  const { samples } = options;
  const steps = job.table.rows.length;
  const uncached = new Map(options.known);
  let evaluations = 0;
  const networks = new Map<string, Promise<Network>>();
  /** The network as a schedule wants it cut. */
  const networkFor = (schedule: Pick<Schedule, "cut"> = {}): Promise<Network> => {
    const { cut = job.source.recipe.cut } = schedule;
    const known = networks.get(cut) ?? networkOf(jobFor(job, schedule, options), options, sessions);
    networks.set(cut, known);
    return known;
  };
  const whole = async (sample: number): Promise<Trajectory> => {
    const { loop } = await networkFor();
    const trajectory = uncached.get(sample) ?? (await loop.trajectory(await startOf(job, sample, options)));
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
      const begun = plan && known && { trajectory: known, from: firstRead(plan) };
      for (let step = begun?.from ?? 0; step < steps; step++) evaluations += costAt(step, plan);
      return loop.run(await startOf(job, sample, options), { plan, observe, begun });
    },
    async seconds() {
      const { loop } = await networkFor();
      await loop.open();
      const start = performance.now();
      await loop.run(await startOf(job, samples[0] ?? 0, options));
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
      const walk = loop.start(await startOf(job, sample, options), { plan, begun });
      const cached = cachedBranches(ditView(own.model).branches, own.context.guidance);
      return {
        async attempt(terms) {
          const { step } = walk;
          evaluations += costAt(step, plan);
          const outcome = await loop.attempt(walk, terms && cellsWith(plan, step, cached, terms));
          return {
            latent: outcome.latent,
            deviation: () => deviationOf(job.table.rows, step, walk, outcome, exact),
            advance: () => loop.advance(walk, outcome),
          };
        },
      };
    },
  };
}

/** The network, cut in one way. */
interface Network {
  readonly job: Job;
  readonly loop: ReferenceLoop;
  /** Of the MACs of a step, what its branches take. */
  readonly cacheable: number;
  readonly costAt: (step: number, plan?: Plan) => number;
}

/** Of sums of shares. */
const ROUNDING = 1e-9;

async function networkOf(opening: Promise<Job>, options: RunsOptions, sessions: Sessions): Promise<Network> {
  const job = await opening;
  const shares = sharesOf(job);
  return {
    job,
    loop: new ReferenceLoop(job, options, sessions),
    cacheable: [...shares.values()].reduce((sum, share) => sum + share, 0),
    costAt: (step, plan) => costOf(shares, step, plan),
  };
}

/** What the branches take of the MACs of a step, by site. */
function sharesOf(job: Job): ReadonlyMap<string, number> {
  const { total, branches } = guidedStep(job);
  return new Map(branches.map(({ site, macs }) => [site, totalMacs(macs) / totalMacs(total)]));
}

/** What a step costs under a plan, as a share of the MACs of one that computes everything. */
function costOf(shares: ReadonlyMap<string, number>, step: number, plan?: Plan): number {
  const left = [...(plan?.cells ?? [])].filter(([, cells]) => cells[step]?.kind !== "compute");
  return left.reduce((cost, [site]) => cost - (shares.get(site) ?? 0), 1);
}

/** The terms, by keys of a plan, as cells of the branches that the plan caches at the step. */
function cellsWith({ cells }: Plan, step: number, branches: readonly CachedBranch[], terms: ReadonlyMap<string, readonly Term[]>): Cells {
  const changed = new Map<string, Cell>();
  for (const branch of branches) {
    const sum = valueFor(terms, branch);
    if (sum && cells.get(branch.site)?.[step]?.kind === "terms") changed.set(branch.site, { kind: "terms", terms: sum });
  }
  return changed;
}

/**
 * The deviation of an attempt at a step: differences to the exact run go through the sampler's sums as what differs does, up to the
 * last row that reads what the step gives; what later steps give differs by nothing.
 */
function deviationOf(rows: readonly Row[], step: number, walk: Walk, attempt: Outcome, exact: Trajectory): Float64Array {
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
  for (const row of rows.slice(step + 1, last + 1)) ahead.push(nextOf(row, size, summands));
  return ahead.at(-1) ?? new Float64Array();
}

/** The first step of which a later one reads a branch: up to it a run does as without caching. The last step if there is none. */
function firstRead({ table, cells }: Plan): number {
  const read = [...cells.values()].flatMap((row) =>
    row.flatMap((cell) => (cell.kind === "terms" ? cell.terms.map(({ step }) => step) : [])),
  );
  return read.reduce((least, step) => Math.min(least, step), table.rows.length - 1);
}
