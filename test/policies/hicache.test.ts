/** HiCache against Hermite polynomials written out, and the coefficients of its code (`models/hicache_fast_impl.py` of yiming-l21/CFGCache). */
import { describe, expect, it } from "vitest";
import { rounded, weightsAt } from "../support/forecasts.js";
import { single } from "../support/policy-input.js";

/** The physicists' Hermite polynomials (Abramowitz and Stegun, table 22.12). */
const HERMITE = [
  () => 1,
  (x: number) => 2 * x,
  (x: number) => 4 * x ** 2 - 2,
  (x: number) => 8 * x ** 3 - 12 * x,
  (x: number) => 16 * x ** 4 - 48 * x ** 2 + 12,
];
const FACTORIAL = [1, 1, 2, 6, 24];
const BINOMIAL = [[1], [1, 1], [1, 2, 1], [1, 3, 3, 1], [1, 4, 6, 4, 1]];

describe("hicache", () => {
  it("is H̃_1 = x/2, H̃_2 = (x² − 2)/4 on the differences, at σ = ½", async () => {
    // Interval 4, x = 3: Δ¹ = (F0 − F1)/4, Δ² = (F0 − 2 F1 + F2)/16.
    const [first, second] = [3 / 2 / 4, (9 - 2) / 4 / 2 / 16];
    const want = rounded([
      [20, 1 + first + second],
      [16, -first - 2 * second],
      [12, second],
    ]);
    expect(await weightsAt("hicache", { interval: 4, order: 2, warmup: 1 }, single(40), 23)).toEqual(want);
  });

  it.each([
    [5, 4, 4, 0.75],
    [3, 2, 3, 0.5],
    [6, 1, 4, 0.3],
  ])("interval %d, x = %d, order %d, σ = %d: σ^k H_k(σx) / k! on the k-th difference", async (interval, x, order, sigma) => {
    const want = new Array<number>(order + 1).fill(0);
    for (let k = 0; k <= order; k++) {
      const alpha = (sigma ** k * (HERMITE[k]?.(sigma * x) ?? NaN)) / (FACTORIAL[k] ?? NaN) / interval ** k;
      for (const [i, binomial] of (BINOMIAL[k] ?? []).entries()) want[i] = (want[i] ?? 0) + (i % 2 === 0 ? alpha : -alpha) * binomial;
    }
    const weights = await weightsAt("hicache", { interval, order, sigma, warmup: 1 }, single(60), 6 * interval + x);
    expect(weights).toEqual(rounded(want.map((weight, i) => [(6 - i) * interval, weight])));
  });
});
