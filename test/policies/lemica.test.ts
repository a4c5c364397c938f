/** LeMiCa against all schedules that there are: the path whose sorted segment errors come first. */
import { describe, expect, it } from "vitest";
import { totalMacs } from "../../ir/cost.js";
import type { ScheduleCell } from "../../schedules/index.js";
import { bestFills, LEXICOGRAPHIC_MAX } from "../../schedules/planning/fills.js";
import { choosePlan } from "../../src/planning/choose.js";
import { planningForJob } from "../../src/planning/planning.js";
import { ReferenceLoop } from "../../src/reference/loop.js";
import { sampleInputs } from "../../src/job/run-inputs.js";
import { runsOf } from "../../src/planning/runs.js";
import { fixtureNamed } from "../support/fixtures.js";
import { FASTEST } from "../../src/runtime/session.js";
import { openFixture, planOf } from "../support/jobs.js";
import { choose, generator, inputOf, rowText, siteOf, summingRuns } from "../support/policy-input.js";
import { rejectedCodeOf } from "../support/thrown.js";

type Edge = (from: number, to: number) => number;

/** Every path from 0 to `last` with so many fills, its edges sorted from the largest down. */
function allPaths(last: number, fills: number, edge: Edge): { path: number[]; edges: number[] }[] {
  const grow = (path: number[]): number[][] => {
    const from = path.at(-1) ?? 0;
    if (path.length === fills) return from === last ? [path] : [];
    return Array.from({ length: last - from }, (_, i) => grow([...path, from + 1 + i])).flat();
  };
  return grow([0])
    .map((path) => ({ path, edges: path.slice(1).map((to, i) => edge(path[i] ?? NaN, to)) }))
    .filter(({ edges }) => edges.every(Number.isFinite))
    .map(({ path, edges }) => ({ path, edges: edges.sort((a, b) => b - a) }));
}

function lexicographic(a: readonly number[], b: readonly number[]): number {
  for (const [i, value] of a.entries()) if (value !== b[i]) return value - (b[i] ?? NaN);
  return 0;
}

const fillsOf = (row: readonly ScheduleCell[] = []): number[] => row.flatMap((cell, step) => (cell === 1 ? [step] : []));

describe("the lexicographic min–max path", () => {
  it("is the least of all paths in random graphs, with ties and missing edges", () => {
    const random = generator(8);
    let found = 0;
    for (let run = 0; run < 300; run++) {
      const steps = 4 + Math.floor(6 * random());
      const fills = 2 + Math.floor((steps - 2) * random());
      const errors = Array.from({ length: steps }, () =>
        Array.from({ length: steps }, () => (random() < 0.15 ? Infinity : Math.floor(6 * random()))),
      );
      const edge: Edge = (from, to) => errors[from]?.[to] ?? 0;
      const [best] = allPaths(steps - 1, fills, edge).sort((a, b) => lexicographic(a.edges, b.edges));
      const request = { steps, fills, forced: new Set([0, steps - 1]), order: LEXICOGRAPHIC_MAX };
      const path = bestFills({ ...request, edge: (_, from, to) => (to === steps ? 0 : edge(from, to)) });
      const edges = path?.slice(1).map((to, i) => edge(path[i] ?? NaN, to));
      expect(edges?.sort((a, b) => b - a)).toEqual(best?.edges);
      if (path) found++;
    }
    expect(found).toBeGreaterThan(100);
  });
});

describe("lemica", () => {
  const one = (steps: number) => inputOf(steps, [siteOf("attn-0", 1)]);

  it("takes the best of all schedules by what its segments do to the final latent", async () => {
    const random = generator(9);
    for (let run = 0; run < 20; run++) {
      const steps = 10;
      const values = Array.from({ length: steps }, () => random());
      const fills = 4 + (run % 4);
      // A reused step adds the value of the segment's first in place of its own.
      const edge: Edge = (from, to) => Math.abs(values.slice(from + 1, to).reduce((sum, value) => sum + value - (values[from] ?? NaN), 0));
      const { schedule } = await choose("lemica", { fills, k: 8 }, { ...one(steps), runs: summingRuns(values) });
      const [best] = allPaths(steps - 1, fills, edge).sort((a, b) => lexicographic(a.edges, b.edges));
      expect(fillsOf(schedule.cells.get("attn"))).toEqual(best?.path);
      expect(schedule.predicted?.["worstSegment"]).toBeCloseTo(best?.edges[0] ?? NaN, 5);
    }
  });

  it("tries every segment once for each sample, and tells how far it is", async () => {
    const runs = summingRuns([1, 2, 3, 4, 5, 6, 7, 8], [3, 5, 9]);
    const asked: number[] = [];
    const told: [number, number][] = [];
    const input = {
      ...one(8),
      runs: { ...runs, run: (...given: Parameters<typeof runs.run>) => (asked.push(given[0]), runs.run(...given)) },
      progress: (done: number, total: number) => void told.push([done, total]),
    };
    await choose("lemica", { share: 0.5, k: 2, trials: 2 }, input);
    // From 0, …, 4 by one step and by two, from 5 by one step; and an uncached run for each sample.
    expect(asked).toEqual([3, 5].flatMap((sample) => new Array<number>(12).fill(sample)));
    expect(told.at(-1)).toEqual([22, 22]);
  });

  it("reuses no farther than k, and computes more where the share would need it", async () => {
    const runs = summingRuns([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    const { schedule, warnings } = await choose("lemica", { share: 0.1, k: 2 }, { ...one(12), runs });
    expect(rowText(schedule.cells.get("attn"))).toMatch(/^1(0{0,2}1){4}$/);
    expect(warnings.at(-1)).toContain("0.417");
  });

  it("finds the schedule of a network whose worst segment is the least, with less than whole runs", async () => {
    const job = await openFixture(fixtureNamed("dit/torchscript-17"), "none", { steps: 8 });
    const runs = runsOf(job, { samples: [0], seed: 3, threads: 1 });
    const loop = new ReferenceLoop(job.run, { threads: 1, ...FASTEST });
    try {
      const { schedule } = await choosePlan({ ...planningForJob(job), runs }, "lemica", { fills: 5, k: 6 });
      const inputs = sampleInputs(job, 0, { seed: 3 });
      const exact = await loop.run(inputs);
      const errors = new Map<string, number>();
      for (let from = 0; from < 7; from++) {
        for (let to = from + 1; to < 8; to++) {
          const row = Array.from({ length: 8 }, (_, step): ScheduleCell => (from < step && step < to ? 0 : 1));
          const cached = await loop.run(inputs, { plan: planOf(job, new Map([["*", row]])).plan });
          errors.set([from, to].join(), exact.reduce((sum, value, i) => sum + Math.abs(value - (cached[i] ?? NaN)), 0) / exact.length);
        }
      }
      const paths = allPaths(7, 5, (from, to) => errors.get([from, to].join()) ?? NaN);
      const [best] = paths.sort((a, b) => lexicographic(a.edges, b.edges));
      expect(fillsOf([...schedule.cells.values()][0])).toEqual(best?.path);
      expect(schedule.predicted?.["worstSegment"]).toBe(best?.edges[0]);
      // Uncached once; then 21 segments, each from its first step on: 6 from step 0, 5 from 1, …; inside of them nothing but the rest is computed.
      const { macs, sites } = planningForJob(job);
      const rest = 1 - sites.reduce((sum, site) => sum + totalMacs(site.macs), 0) / totalMacs(macs);
      let cost = 8;
      for (let from = 0; from < 7; from++) for (let cached = 1; from + cached < 7; cached++) cost += 8 - from - cached + cached * rest;
      expect(runs.evaluations()).toBeCloseTo(cost, 9);
    } finally {
      await runs.close();
      await loop.close();
    }
  });

  it("needs a model", async () => {
    expect(await rejectedCodeOf(choose("lemica", { share: 0.5 }, one(12)))).toBe("POLICY_NEEDS_MODEL");
  });
});
