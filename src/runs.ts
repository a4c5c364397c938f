/** Runs of the model that a policy may ask for: the calibration's samples along schedules that it tries. */
import { ditView } from "../ir/graph.js";
import { bind, type Plan, type Runs } from "../schedules/index.js";
import type { Job } from "./job.js";
import { finalOf, ReferenceLoop, startOf, type Trajectory } from "./reference.js";
import type { SampleOptions } from "./run-inputs.js";
import type { RuntimeOptions } from "./runtime.js";

export interface ModelRuns extends Runs {
  /** Evaluations of the network so far, whole or in part. */
  readonly evaluations: () => number;
  close(): Promise<void>;
}

export interface RunsOptions extends RuntimeOptions, SampleOptions {
  /** Numbers of the samples that the calibration ran. */
  readonly samples: readonly number[];
}

export function runsOf(job: Job, options: RunsOptions): ModelRuns {
  const loop = new ReferenceLoop(job, options);
  const { samples } = options;
  const steps = job.table.rows.length;
  let evaluations = 0;
  // Policies try one sample after the other: the last one that was run without caching is kept.
  let uncached: { readonly sample: number; readonly trajectory: Trajectory } | undefined;
  return {
    samples,
    evaluations: () => evaluations,
    close: () => loop.close(),
    async run(sample, schedule, observe) {
      const plan = schedule && bind(schedule, job.table, ditView(job.model).branches, job.context.guidance);
      const known = plan && !observe && uncached?.sample === sample ? uncached.trajectory : undefined;
      const begun = plan && known && { trajectory: known, from: firstRead(plan) };
      const trajectory = await loop.trajectory(await startOf(job, sample, options), { plan, observe, begun });
      evaluations += steps - (begun?.from ?? 0);
      if (!plan) uncached = { sample, trajectory };
      return finalOf(trajectory);
    },
  };
}

/** The first step of which a later one reads a branch: up to it a run does as without caching. The last step if there is none. */
function firstRead({ table, cells }: Plan): number {
  const read = [...cells.values()].flatMap((row) =>
    row.flatMap((cell) => (cell.kind === "terms" ? cell.terms.map(({ step }) => step) : [])),
  );
  return read.reduce((least, step) => Math.min(least, step), table.rows.length - 1);
}
