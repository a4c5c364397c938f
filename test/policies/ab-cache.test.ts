/** AB-Cache against the weights that are quoted of its code, and a polynomial, which it continues exactly by one step. */
import { describe, expect, it } from "vitest";
import { forecastsOf, rounded, weightsAt } from "../support/forecasts.js";
import { rowOf, single } from "../support/policy-input.js";

describe("ab-cache", () => {
  // Orders 2 and 5 are quoted of aSleepyTree/AB-Cache, `flux_our.py`.
  it.each([
    [1, [1]],
    [2, [2, -1]],
    [3, [3, -3, 1]],
    [5, [5, -10, 10, -5, 1]],
  ])("order %d right after the warm-up", async (order, want) => {
    const weights = await weightsAt("ab-cache", { order, warmup: 5 }, single(12), 5);
    expect(weights).toEqual(want.map((weight, i) => [4 - i, weight]));
  });

  it("continues a polynomial of degree k − 1 exactly, and one of degree k by its k-th difference", async () => {
    const cubic = Array.from({ length: 8 }, (_, k) => (k - 3) ** 3 - 2 * k ** 2 + 5);
    expect((await forecastsOf("ab-cache", { order: 4, warmup: 4, interval: 7 }, cubic))[4]).toBeCloseTo(cubic[4] ?? NaN, 9);
    expect((await forecastsOf("ab-cache", { order: 3, warmup: 4, interval: 7 }, cubic))[4]).toBeCloseTo((cubic[4] ?? NaN) - 6, 9);
  });

  it("reads computed steps alone, and fewer values than asked while there are no more", async () => {
    const read = (step: number): ReturnType<typeof weightsAt> =>
      weightsAt("ab-cache", { order: 3, warmup: 1, interval: 4 }, single(20), step);
    expect(await read(15)).toEqual(rounded([[12, 3], [8, -3], [4, 1]])); // prettier-ignore
    expect(await read(6)).toEqual(rounded([[4, 2], [0, -1]])); // prettier-ignore
    expect(await read(3)).toEqual([[0, 1]]);
  });

  it("computes five steps and then those that the interval divides, by default", async () => {
    const row = await rowOf("ab-cache", { order: 1 }, single(20));
    expect(row).toBe("11111010000010000010");
  });
});
