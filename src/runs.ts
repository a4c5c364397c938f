/** Runs of the model that a policy may ask for: the calibration's samples along schedules that it tries. */
import { ditView } from "../ir/graph.js";
import { bind, type Runs } from "../schedules/index.js";
import type { Job } from "./job.js";
import { ReferenceLoop, startOf } from "./reference.js";
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
  let runs = 0;
  return {
    samples,
    evaluations: () => runs * job.table.rows.length,
    close: () => loop.close(),
    async run(sample, schedule, observe) {
      const plan = schedule && bind(schedule, job.table, ditView(job.model).branches, job.context.guidance);
      runs++;
      return loop.run(await startOf(job, sample, options), plan, observe);
    },
  };
}
