/** Keeps what a plan caches within a limit: the branches that are dearest to keep are computed at every step instead. */
import { badOption } from "../../schedules/diagnostics.js";
import { totalMacs } from "../../ir/cost.js";
import { ditView } from "../../ir/graph.js";
import { cacheOf, callsOf, type Schedule, siteOf } from "../../schedules/index.js";
import type { Form } from "./compile.js";
import { guidedStep, type Job, planFor } from "../job/index.js";
import { bytesOf } from "../../ir/bytes.js";
import { keptSteps } from "./memory.js";

export interface Limited {
  readonly schedule: Schedule;
  /** Sites that are now computed at every step, in the order in which they were given up. */
  readonly computed: readonly string[];
}

/** A site with all of its caches: two calls of the network have one each. */
interface KeptSite {
  readonly site: string;
  readonly bytes: number;
  /** Values that are kept at each step, those that are read last at it among them. */
  readonly kept: readonly number[];
  /** Bytes × steps for each MAC that keeping them saves. */
  readonly price: number;
}

/** Throws BAD_OPTION for a limit on a form that keeps its cached values all the time. */
export function assertLimitable({
  form,
  cacheMemory,
}: {
  readonly form?: Form | undefined;
  readonly cacheMemory?: number | undefined;
}): void {
  if (form === "loop" && cacheMemory !== undefined)
    throw badOption("--cache-memory", "limits unrolled runs; a loop keeps what it caches at every step");
}

/**
 * The schedule with as few sites given up as it takes for the cached values of no step to be more than `limit` bytes: each time the
 * dearest of those that hold anything at the fullest step. Throws BAD_OPTION if nothing is left to be cached.
 */
export function limitCache(job: Job, schedule: Schedule, limit = Infinity): Limited {
  let sites = keptSites(job, schedule);
  const computed: string[] = [];
  for (;;) {
    const used = job.table.rows.map((_, step) => sites.reduce((sum, { bytes, kept }) => sum + bytes * (kept[step] ?? 0), 0));
    const fullest = used.indexOf(Math.max(...used));
    if ((used[fullest] ?? 0) <= limit) break;
    const [dearest] = sites.filter(({ kept }) => (kept[fullest] ?? 0) > 0).sort((a, b) => b.price - a.price);
    if (!dearest || sites.length === 1) throw badOption("--cache-memory", "is less than any branch takes that the plan caches");
    computed.push(dearest.site);
    sites = sites.filter((site) => site !== dearest);
  }
  const given = new Set(computed);
  const others = <T>(all: ReadonlyMap<string, T>): (readonly [string, T])[] => [...all].filter(([key]) => !given.has(siteOf(key)));
  const rows = computed.map((site) => [site, new Array<1>(schedule.steps).fill(1)] as const);
  const cells = new Map([...others(schedule.cells), ...rows]);
  return { schedule: { ...schedule, cells, adjustments: schedule.adjustments && new Map(others(schedule.adjustments)) }, computed };
}

/** The sites that keep anything. */
function keptSites(job: Job, schedule: Schedule): readonly KeptSite[] {
  const { branches } = ditView(job.model);
  const plan = planFor(job, schedule);
  const marked = new Map(job.model.graph.marks.map(({ site, value }) => [site, value]));
  const macs = new Map(guidedStep(job).branches.map((branch) => [branch.site, totalMacs(branch.macs)]));
  return branches.flatMap(({ site }) => {
    const value = marked.get(site);
    const caches = callsOf(job.context.guidance).flatMap((halves) => {
      const name = cacheOf(site, halves);
      const cells = plan.cells.get(name);
      return cells ? [{ name, cells }] : [];
    });
    const spans = caches.flatMap(({ cells }) => keptSteps(cells));
    if (!value || spans.length === 0) return [];
    const kept = job.table.rows.map((_, step) => spans.filter(({ from, to }) => from <= step && step <= to).length);
    const saved = caches.map(({ name, cells }) => (macs.get(name) ?? 0) * cells.filter(({ kind }) => kind === "terms").length);
    const bytes = bytesOf(value);
    const price = (bytes * sum(kept)) / Math.max(1, sum(saved));
    return [{ site, bytes, kept, price }];
  });
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
