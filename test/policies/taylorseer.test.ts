/** TaylorSeer against the weights in closed form, and against its code's recursion run on numbers. */
import { describe, expect, it } from "vitest";
import { choose, generator, rowOf, single } from "../support/policy-input.js";
import { forecastsOf, rounded, weightsAt } from "../support/forecasts.js";

/** `cal_type`, `derivative_approximation` and `taylor_formula` of Shenyi-Z/TaylorSeer for one branch, whose values are numbers. */
function taylorSeerRun(values: readonly number[], interval: number, firstEnhance: number, maxOrder: number): number[] {
  let counter = 0;
  let factors: number[] = [];
  const activated = [0];
  return values.map((value, step) => {
    if (step < firstEnhance || counter === interval - 1) {
      counter = 0;
      activated.push(step);
      const distance = step - (activated.at(-2) ?? NaN);
      const updated = [value];
      for (let i = 0; i < maxOrder; i++) {
        const old = factors[i];
        if (old === undefined || !(step > firstEnhance - 2)) break;
        updated.push(((updated[i] ?? NaN) - old) / distance);
      }
      factors = updated;
      return value;
    }
    counter++;
    const x = step - (activated.at(-1) ?? NaN);
    let factorial = 1;
    return factors.reduce((sum, factor, i) => sum + (factor * x ** i) / (factorial *= i || 1), 0);
  });
}

describe("taylorseer", () => {
  // Weights of the newest fill and those before it, u = x / N: 1 + u + u²/2, −u − u², u²/2.
  it.each([
    [4, 3, 2, [65 / 32, -21 / 16, 9 / 32]],
    [3, 2, 2, [17 / 9, -10 / 9, 2 / 9]],
    [5, 2, 1, [7 / 5, -2 / 5]],
    [2, 1, 3, [1 + 1 / 2 + 1 / 8 + 1 / 48, -1 / 2 - 1 / 4 - 1 / 16, 1 / 8 + 1 / 16, -1 / 48]],
    [3, 1, 0, [1]],
  ])("interval %d, %d steps after a fill, order %d", async (interval, x, order, want) => {
    const weights = await weightsAt("taylorseer", { interval, order, warmup: 1 }, single(40), 6 * interval + x);
    expect(weights).toEqual(rounded(want.map((weight, i) => [(6 - i) * interval, weight])));
  });

  it("does what its code does on any numbers, while orders count up and where fills are uneven", async () => {
    const random = generator(11);
    for (let run = 0; run < 100; run++) {
      const [steps, interval, warmup, order] = [60, 6, 6, 5].map((limit) => Math.floor(limit * random()));
      const values = Array.from({ length: 3 + (steps ?? 0) }, () => random() - 0.5);
      const options = { interval: 1 + (interval ?? 0), warmup: 1 + (warmup ?? 0), order: order ?? 0 };
      const want = taylorSeerRun(values, options.interval, options.warmup, options.order);
      const got = await forecastsOf("taylorseer", options, values);
      got.forEach((value, step) => {
        expect(value).toBeCloseTo(want[step] ?? NaN, 9);
      });
    }
  });

  it("computes the warm-up and every n-th step from its last, and does not force the last of the run", async () => {
    const { schedule } = await choose("taylorseer", { interval: 4, warmup: 3 }, single(13));
    const fills = (schedule.cells.get("attn") ?? []).flatMap((cell, step) => (cell === 1 ? [step] : []));
    expect(fills).toEqual([0, 1, 2, 6, 10]);
  });

  it("of order 0 is plain reuse", async () => {
    expect(await rowOf("taylorseer", { interval: 3, order: 0, warmup: 1 }, single(8))).toBe("10010010");
  });
});
