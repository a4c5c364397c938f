/** Keeps cached values within a memory limit: the branches that are most expensive to keep are computed at every step instead. */
import { badOption } from "../../schedules/diagnostics.js";
import { totalMacs } from "../../ir/cost.js";
import { DEFAULT_FORM, formNamed } from "../../passes/index.js";
import { type Cell, cellMacs, isPartial, keysOfSite, lastReaders, type Schedule } from "../../schedules/index.js";
import { guidedStep, type Job, planFor } from "../job/index.js";
import { bytesOf } from "../../ir/bytes.js";
import { attendedTokens } from "../../ir/own-tokens.js";

export interface Limited {
  readonly schedule: Schedule;
  /** Sites that are now computed at every step, in the order in which they were removed from the cache. */
  readonly computed: readonly string[];
}

/** A site with all of its caches: one for each call of the network. */
interface KeptSite {
  readonly site: string;
  /** Bytes of the values that are kept at each step, including those that are read there for the last time. */
  readonly kept: readonly number[];
  /** Bytes × steps of memory per saved MAC. */
  readonly price: number;
}

/** Throws BAD_OPTION for a limit on a form that never frees cached values, and UNKNOWN_NAME. */
export function assertLimitable({
  form = DEFAULT_FORM,
  cacheMemory,
}: {
  readonly form?: string | undefined;
  readonly cacheMemory?: number | undefined;
}): void {
  if (!formNamed(form).frees && cacheMemory !== undefined)
    throw badOption("--cache-memory", `limits unrolled runs; a ${form} keeps what it caches at every step`);
}

/**
 * Removes sites from the cache until no step keeps more than `limit` bytes of cached values. It repeatedly removes the most expensive of
 * the sites that keep a value at the fullest step. Throws BAD_OPTION if nothing is left to be cached.
 */
export function limitCache(job: Job, schedule: Schedule, limit = Infinity): Limited {
  let sites = keptSites(job, schedule);
  const computed: string[] = [];
  for (;;) {
    const used = job.run.rows.map((_, step) => sites.reduce((sum, { kept }) => sum + (kept[step] ?? 0), 0));
    const fullest = used.indexOf(Math.max(...used));
    if ((used[fullest] ?? 0) <= limit) break;
    const [dearest] = sites.filter(({ kept }) => (kept[fullest] ?? 0) > 0).sort((a, b) => b.price - a.price);
    if (!dearest || sites.length === 1) throw badOption("--cache-memory", "is less than any branch takes that the plan caches");
    computed.push(dearest.site);
    sites = sites.filter((site) => site !== dearest);
  }
  const given = new Set(computed.flatMap(keysOfSite));
  const others = <T>(all: ReadonlyMap<string, T>): (readonly [string, T])[] => [...all].filter(([key]) => !given.has(key));
  const rows = computed.map((site) => [site, new Array<1>(schedule.steps).fill(1)] as const);
  const cells = new Map([...others(schedule.cells), ...rows]);
  return { schedule: { ...schedule, cells, adjustments: schedule.adjustments && new Map(others(schedule.adjustments)) }, computed };
}

/** The sites that keep a value at some step, with keys and values of attention where cells keep these. */
function keptSites(job: Job, schedule: Schedule): readonly KeptSite[] {
  const plan = planFor(job, schedule);
  const caches = new Map<string, { readonly saved: number; readonly cells: readonly Cell[] }[]>();
  for (const cache of guidedStep(job).branches) {
    const cells = plan.cells.get(cache) ?? [];
    const cached = cells.filter(({ kind }) => kind === "terms");
    const own = { cells, saved: sum(cached.map((cell) => totalMacs(cache.macs) - totalMacs(cellMacs(cell, cache)))) };
    caches.set(cache.site, [...(caches.get(cache.site) ?? []), own]);
  }
  const counts = new Map(job.run.caches.map(({ site, tokens }) => [site, tokens?.count]));
  const attended = attendedTokens(job.model, (site) => counts.get(site));
  return job.model.graph.marks.flatMap((mark) => {
    const own = caches.get(mark.site) ?? [];
    const spansOf = (wanted: (cell: Cell) => boolean): readonly (readonly [number, number])[] =>
      own.flatMap(({ cells }) => [...lastReaders(cells.map((cell) => (wanted(cell) ? cell : COMPUTED)))]);
    const spans = spansOf(() => true);
    const ofKeys = spansOf((cell) => isPartial(cell) && cell.fresh.keepsKeys);
    if (spans.length === 0) return [];
    const { keys, values } = attended.get(mark) ?? {};
    const bytes = bytesOf(mark.value);
    const keyBytes = keys && values ? bytesOf(keys.value) + bytesOf(values.value) : 0;
    const keptAt = (step: number, all: typeof spans): number => all.filter(([from, to]) => from <= step && step <= to).length;
    const kept = job.run.rows.map((_, step) => bytes * keptAt(step, spans) + keyBytes * keptAt(step, ofKeys));
    const price = sum(kept) / Math.max(1, sum(own.map(({ saved }) => saved)));
    return [{ site: mark.site, kept, price }];
  });
}

const COMPUTED: Cell = { kind: "compute" };

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
