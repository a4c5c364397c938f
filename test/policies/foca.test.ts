/** FoCa against equations 7 and 8 of its paper (see the policy for where they are from), run on numbers instead of weights. */
import { describe, expect, it } from "vitest";
import { forecastsOf, rounded, weightsAt } from "../support/forecasts.js";
import { generator, single } from "../support/policy-input.js";

/** The run of one branch whose values are numbers; slopes are kept as the paper's F⁽¹⁾, step by step. */
function foCaRun(values: readonly number[], computes: (step: number) => boolean): number[] {
  const run: number[] = [];
  let anchor = { step: 0, value: NaN, slope: NaN };
  let slope = NaN;
  for (const [step, value] of values.entries()) {
    const now = run[step - 1] ?? NaN;
    if (computes(step)) {
      slope = (value - anchor.value) / (step - anchor.step);
      anchor = { step, value, slope };
      run.push(value);
    } else if (Number.isNaN(anchor.slope)) {
      run.push(now);
    } else {
      const predicted = (4 * now - (run[step - 2] ?? NaN) + 2 * slope) / 3;
      slope = predicted - now;
      run.push(now + (anchor.slope + slope) / 2);
    }
  }
  return run;
}

describe("foca", () => {
  it("runs as the equations do, over its own forecasts", async () => {
    const random = generator(5);
    for (const [interval, warmup] of [
      [2, 2],
      [5, 2],
      [4, 3],
      [6, 1],
      [3, 1],
    ] as const) {
      // prettier-ignore
      const values = Array.from({ length: 40 }, () => random() - 0.5);
      const want = foCaRun(values, (step) => step < warmup || (step - warmup + 1) % interval === 0);
      const got = await forecastsOf("foca", { interval, warmup }, values);
      got.forEach((value, step) => {
        expect(value).toBeCloseTo(want[step] ?? NaN, 9);
      });
    }
  });

  it("continues a straight line exactly", async () => {
    const line = Array.from({ length: 20 }, (_, step) => 1 + 2 * step);
    const got = await forecastsOf("foca", { interval: 6, warmup: 2 }, line);
    got.forEach((value, step) => {
      expect(value).toBeCloseTo(1 + 2 * step, 9);
    });
  });

  it("gives the weights of its first forecast after two even fills", async () => {
    // Fills 0 and 3 with a forecast at 2 that is F0: predicted 4/3 F3 − 1/3 F0 + 2/9 (F3 − F0), then the mean of the slopes.
    const slopes = 1 / 3 + 1 / 3 + 2 / 9;
    const want = rounded([[3, 1 + slopes / 2], [0, -slopes / 2]]); // prettier-ignore
    expect(await weightsAt("foca", { interval: 3, warmup: 1 }, single(20), 4)).toEqual(want);
  });
});
