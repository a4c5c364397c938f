/** DPCache against all schedules that there are, with errors of the forecasts from the values themselves. */
import { describe, expect, it } from "vitest";
import { type Schedule, type ScheduleCell, termsOf } from "../../schedules/index.js";
import { choose, generator, inputOf, siteOf, statisticsOfValues } from "../support/policy-input.js";
import { rejectedCodeOf } from "../support/thrown.js";

type Values = readonly (readonly number[])[];

/** Walks that turn slowly, with a jolt here and there. */
function wander(steps: number, random: () => number): Values {
  const value = Array.from({ length: 6 }, () => random() - 0.5);
  const pace = value.map(() => random() - 0.5);
  return Array.from({ length: steps }, () => {
    const jolt = random() < 0.2 ? 2 : 0.3;
    pace.forEach((speed, i) => (pace[i] = speed + jolt * (random() - 0.5)));
    return value.map((x, i) => (value[i] = x + 0.3 * (pace[i] ?? 0)));
  });
}

const norm = (x: readonly number[]): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));

/** Σ over the steps that do not compute of the relative error of the line through the last two that did, mean over branches. */
function costOf(fills: readonly number[], branches: readonly Values[], steps: number): number {
  let cost = 0;
  for (let step = 0; step < steps; step++) {
    if (fills.includes(step)) continue;
    const from = Math.max(...fills.filter((fill) => fill < step));
    const before = Math.max(...fills.filter((fill) => fill < from));
    for (const values of branches) {
      const [now = [], newest = [], older = []] = [values[step], values[from], values[before]];
      const forecast = newest.map((x, i) => x + ((step - from) / (from - before)) * (x - (older[i] ?? NaN)));
      cost += norm(now.map((x, i) => x - (forecast[i] ?? NaN))) / norm(now) / branches.length;
    }
  }
  return cost;
}

/** All ways to choose `count` of the steps from `start` on. */
function choices(start: number, steps: number, count: number): number[][] {
  if (count === 0) return [[]];
  const all: number[][] = [];
  for (let first = start; first <= steps - count; first++)
    for (const rest of choices(first + 1, steps, count - 1)) all.push([first, ...rest]);
  return all;
}

const fillsOf = (row: readonly ScheduleCell[] = []): number[] => row.flatMap((cell, step) => (cell === 1 ? [step] : []));
const attn = (schedule: Schedule): readonly ScheduleCell[] => schedule.cells.get("attn") ?? [];

describe("dpcache", () => {
  it("finds the best of all schedules", async () => {
    const random = generator(21);
    for (let run = 0; run < 25; run++) {
      const steps = 8 + Math.floor(5 * random());
      const fills = 3 + Math.floor((steps - 3) * random());
      const first = 2 + (run % 2);
      const branches = [wander(steps, random), wander(steps, random)];
      const sites = branches.map((values, i) => siteOf(["attn-0", "mlp-0"][i] ?? "", 0.5, statisticsOfValues([values])));
      const { schedule } = await choose("dpcache", { fills, warmup: first }, inputOf(steps, sites));
      const found = fillsOf(attn(schedule));
      const start = Array.from({ length: first }, (_, k) => k);
      const all = choices(first, steps, fills - first).map((rest) => [...start, ...rest]);
      const least = Math.min(...all.map((candidate) => costOf(candidate, branches, steps)));
      expect(found).toHaveLength(fills);
      expect(found.slice(0, first)).toEqual(start);
      expect(costOf(found, branches, steps)).toBeCloseTo(least, 9);
    }
  });

  it("forecasts along the line through the last two computed values", async () => {
    const line = Array.from({ length: 10 }, (_, step) => [1 + step, 3 - 2 * step]);
    const { schedule } = await choose("dpcache", { fills: 3, warmup: 3 }, inputOf(10, [siteOf("attn-0", 1, statisticsOfValues([line]))]));
    expect(attn(schedule)[5]).toEqual([
      [2, 4],
      [1, -3],
    ]);
    for (const [step, cell] of attn(schedule).entries()) {
      if (cell === 1 || cell === 0) continue;
      const value = [0, 1].map((i) =>
        termsOf(cell, NaN).reduce((sum, { step: source, weight }) => sum + weight * (line[source]?.[i] ?? NaN), 0),
      );
      expect(value).toEqual([expect.closeTo(1 + step, 12), expect.closeTo(3 - 2 * step, 12)]);
    }
  });

  it("computes as much as was asked for, or says that it cannot", async () => {
    const input = inputOf(20, [siteOf("attn-0", 1, statisticsOfValues([wander(20, generator(3))]))]);
    const half = await choose("dpcache", { share: 0.5 }, input);
    expect([half.schedule.predicted?.["computedShare"], half.warnings]).toEqual([0.5, []]);
    const least = await choose("dpcache", { share: 0.05, warmup: 4 }, input);
    expect(least.schedule.predicted?.["computedShare"]).toBe(0.2);
    expect(least.warnings.join()).toContain("0.200");
  });

  it("keeps to forecasts that the calibration looked back far enough for", async () => {
    const statistics = statisticsOfValues([wander(20, generator(5))]);
    const input = inputOf(20, [siteOf("attn-0", 1, { ...statistics, gram: statistics.gram.slice(0, 5) })]);
    const { schedule } = await choose("dpcache", { share: 0.5 }, input);
    for (const [step, cell] of attn(schedule).entries())
      if (cell !== 1 && cell !== 0) expect(step - Math.min(...termsOf(cell, step).map((term) => term.step))).toBeLessThanOrEqual(4);
    expect(await rejectedCodeOf(choose("dpcache", { fills: 3 }, input))).toBe("BAD_CURVES");
  });

  it.each([{}, { fills: 5, share: 0.5 }, { fills: 2 }, { fills: 99 }, { share: 2 }])("refuses %o", async (options) => {
    const input = inputOf(20, [siteOf("attn-0", 1, statisticsOfValues([wander(20, generator(5))]))]);
    expect(await rejectedCodeOf(choose("dpcache", options, input))).toBe("BAD_OPTION");
  });
});
