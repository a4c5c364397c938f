/** Sampling runs for tests, with as little around them as may be. */
import type { Branch } from "../../ir/dit.js";
import type { Model } from "../../ir/graph.js";
import type { PassContext } from "../../passes/pass.js";
import {
  cacheNamed,
  cachesOf,
  type Cell,
  type Condition,
  type Guidance,
  NETWORKS,
  NO_GUIDANCE,
  type Plan,
  type Run,
  type RunFacts,
  runOf,
  sampledBy,
  type SamplerTable,
  withNetworks,
} from "../../schedules/index.js";
import type { Job } from "../../src/job/job.js";
import { evaluator } from "../../src/runtime/evaluator.js";

/** A table of no rows. */
export const NO_ROWS: SamplerTable = { name: "none", prediction: "epsilon", initialScale: 1, rows: [] };

/** The run of a network that sees one latent and no guidance. */
export function runOver(model: Model | undefined, table: SamplerTable, facts: Partial<RunFacts> = {}): Run {
  return runOf({
    networks: new Map(model ? [[NETWORKS.one, model]] : []),
    batch: 1,
    conditions: new Map((model?.dit?.conditions ?? []).map((name) => [name, freeInput(model, name)])),
    guidance: NO_GUIDANCE,
    prediction: { channelAxis: 1, sign: 1 },
    table,
    structure: "test",
    ...facts,
  });
}

function freeInput(model: Model | undefined, name: string): Condition {
  const source = { kind: "input", name } as const;
  const type = model?.graph.inputs.find((input) => input.name === name)?.type;
  return { type, isBatched: false, halves: { cond: source, uncond: source } };
}

/** A run of these branches, of which only the plan matters. */
export function runOfBranches(table: SamplerTable, branches: readonly Branch[], guidance: Guidance = NO_GUIDANCE): Run {
  const run = runOver(undefined, table, { guidance });
  const calls = run.calls.map(({ halves }) => halves);
  return { ...run, caches: cachesOf(branches, calls) };
}

/** The job with its halves called one after the other. */
export function inTwoCalls(job: Job): Job {
  const run = withNetworks(job.run, new Map([[NETWORKS.one, job.model]]));
  return { ...job, run: sampledBy(run, run.table, { ...run.guidance, form: "two-calls" }) };
}

/** The cells of the cache that a file calls so. */
export function cellsOf({ cells }: Plan, name: string): readonly Cell[] {
  return cells.get(cacheNamed(name)) ?? [];
}

/** What passes are told that ask of the run as little as may be. */
export const BARE: PassContext = { evaluator: evaluator({ threads: 1 }), run: runOver(undefined, NO_ROWS) };
