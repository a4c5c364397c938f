/** L2P: weights that recover how the values were made, from inner products alone. */
import { describe, expect, it } from "vitest";
import { type PolicyInput, type SiteStatistics, termsOf } from "../../schedules/index.js";
import { forecastsOf, weightsAt } from "../support/forecasts.js";
import { choose, generator, inputOf, rowText, siteOf, statisticsOfValues } from "../support/policy-input.js";

const STEPS = 16;

/** Two samples of a branch of 40 channels, of which each step's value is 1.5 times that of the step before less 0.6 times the one before. */
function recurrent(seed: number): readonly (readonly (readonly number[])[])[] {
  const random = generator(seed);
  return Array.from({ length: 2 }, () => {
    const values: number[][] = [];
    for (let step = 0; step < STEPS; step++)
      values.push(Array.from({ length: 40 }, (_, c) => (step < 2 ? random() - 0.5 : 1.5 * (values[step - 1]?.[c] ?? 0) - 0.6 * (values[step - 2]?.[c] ?? 0)))); // prettier-ignore
    return values;
  });
}

function inputWith(statistics: SiteStatistics, more: readonly SiteStatistics[] = []): PolicyInput {
  const sites = [statistics, ...more].map((measured, i) => siteOf(`attn-${i}`, 1 / (1 + more.length), measured));
  return inputOf(STEPS, sites);
}

const options = { interval: 4, warmup: 2, history: 2, group: "kind" };

describe("l2p", () => {
  it("finds the recurrence that made the values, run on from the last two that were computed", async () => {
    // Values a, b make 1.5 b − 0.6 a, and then 1.5 (1.5 b − 0.6 a) − 0.6 b.
    const samples = recurrent(7);
    const input = inputWith(statisticsOfValues(samples));
    const free = { ...options, ridge: 0 };
    expect(await weightsAt("l2p", free, input, 2)).toEqual([[1, 1.5], [0, -0.6]]); // prettier-ignore
    expect(await weightsAt("l2p", free, input, 3)).toEqual([[1, 1.65], [0, -0.9]]); // prettier-ignore
    expect((await choose("l2p", free, input)).warnings).toEqual([]);
    const channel = samples[0]?.map((values) => values[3] ?? NaN) ?? [];
    const got = await forecastsOf("l2p", free, channel, input);
    got.forEach((value, step) => {
      expect(value).toBeCloseTo(channel[step] ?? NaN, 6);
    });
  });

  it("leaves a residual that is orthogonal to what it reads, at every step and over all branches of a group", async () => {
    const random = generator(3);
    const noise = (): (readonly number[])[][] => [Array.from({ length: STEPS }, () => Array.from({ length: 30 }, () => random() - 0.3))];
    const [a, b] = [noise(), noise()];
    const input = inputWith(statisticsOfValues(a), [statisticsOfValues(b)]);
    const { schedule } = await choose("l2p", { ...options, history: 3, ridge: 0 }, input);
    let checked = 0;
    for (const [step, cell] of (schedule.cells.get("attn") ?? []).entries()) {
      if (cell === 1 || cell === 0) continue;
      const terms = termsOf(cell, NaN);
      for (const { step: against } of terms) {
        let product = 0;
        for (const values of [a[0], b[0]])
          for (let c = 0; c < 30; c++) {
            const forecast = terms.reduce((sum, { step: source, weight }) => sum + weight * (values?.[source]?.[c] ?? NaN), 0);
            product += ((values?.[step]?.[c] ?? NaN) - forecast) * (values?.[against]?.[c] ?? NaN);
          }
        expect(product).toBeCloseTo(0, 9);
        checked++;
      }
    }
    expect(checked).toBeGreaterThan(20);
  });

  it("is held at plain reuse by the ridge, and reuses values that say nothing", async () => {
    const input = inputWith(statisticsOfValues(recurrent(7)));
    const [newest, older] = await weightsAt("l2p", { ...options, ridge: 1e6 }, input, 3);
    expect(newest?.[1]).toBeCloseTo(1, 5);
    expect(older?.[1]).toBeCloseTo(0, 5);
    const zeros = recurrent(7).map((sample) => sample.map((values) => values.map(() => 0)));
    const none = await choose("l2p", options, inputWith(statisticsOfValues(zeros)));
    expect(rowText(none.schedule.cells.get("attn"))).toBe("1100010001000100");
  });

  it("fits every group by itself", async () => {
    const input = inputWith(statisticsOfValues(recurrent(1)), [statisticsOfValues(recurrent(2).map((sample) => [...sample].reverse()))]);
    const { schedule } = await choose("l2p", { ...options, group: "site" }, input);
    expect([...schedule.cells.keys()]).toEqual(["attn-0", "attn-1"]);
    expect(schedule.cells.get("attn-0")).not.toEqual(schedule.cells.get("attn-1"));
  });

  it("reads what the calibration looked back to, and says so", async () => {
    const all = statisticsOfValues(recurrent(7));
    const input = inputWith({ ...all, gram: all.gram.slice(0, 3) });
    const { schedule, warnings } = await choose("l2p", { ...options, history: 2 }, input);
    const read = (step: number): number[] => {
      const cell = schedule.cells.get("attn")?.[step];
      return cell === 1 || cell === undefined || cell === 0 ? [] : termsOf(cell, NaN).map((term) => step - term.step);
    };
    expect([read(2), read(3), read(4)]).toEqual([[1, 2], [2], []]);
    expect(warnings.join()).toContain("does not look back");
  });
});
