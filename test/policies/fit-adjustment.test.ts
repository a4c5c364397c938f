/** The fit of scale and shift against a second derivation: the normal equations of one channel after the other. */
import { describe, expect, it } from "vitest";
import type { PolicyInput, Runs, ScheduleCell } from "../../schedules/index.js";
import { fitAdjustments } from "../../schedules/planning/fit-adjustment.js";
import { tensorOf } from "../../ir/tensor.js";
import { choose, generator, inputOf, randomBands, runsWith, single, siteOf, statisticsWith } from "../support/policy-input.js";
import { rejectedCodeOf } from "../support/thrown.js";

const STEPS = 6;
const SHAPE = [2, 5, 3];
const CHANNELS = 3;

/** Runs of a model whose branches return `valuesOf(sample, site, step)`. */
function observedRuns(
  samples: readonly number[],
  sites: readonly string[],
  valuesOf: (sample: number, site: string, step: number) => number[],
): Runs {
  return runsWith({
    samples,
    run(sample, _schedule, observe) {
      for (let step = 0; step < STEPS; step++)
        observe?.(step, new Map(sites.map((site) => [site, tensorOf("float", SHAPE, valuesOf(sample, site, step))])));
      return Promise.resolve(new Float32Array());
    },
  });
}

/** Solves [Σx², Σx; Σx, n] · [scale, shift] = [Σxy, Σy] by Cramer's rule. */
function line(pairs: readonly (readonly [number, number])[]): readonly [scale: number, shift: number] {
  const sum = (of: (x: number, y: number) => number): number => pairs.reduce((total, [x, y]) => total + of(x, y), 0);
  const [n, x, y, xx, xy] = [pairs.length, sum((x) => x), sum((_, y) => y), sum((x) => x * x), sum((x, y) => x * y)];
  const determinant = xx * n - x * x;
  return [(xy * n - x * y) / determinant, (xx * y - x * xy) / determinant];
}

describe("fitAdjustments", () => {
  const random = generator(6);
  const sites = ["attn-0", "mlp-0"];
  const samples = [2, 7];
  const table = new Map<string, number[]>();
  for (const sample of samples)
    for (const site of sites)
      for (let step = 0; step < STEPS; step++)
        table.set(
          [sample, site, step].join(),
          Array.from({ length: 30 }, () => Math.fround(random() - 0.3)),
        );
  const valuesOf = (sample: number, site: string, step: number): number[] => table.get([sample, site, step].join()) ?? [];
  const input: PolicyInput = inputOf(
    STEPS,
    sites.map((site) => siteOf(site, 0.5)),
  );

  it("solves the normal equations of every channel, over the tokens of all samples", async () => {
    const rows: readonly (readonly [string, ScheduleCell[]])[] = [
      ["attn-0", [1, 0, 0, 1, 1, 0]],
      ["mlp-0", [1, 1, 1, 0, 1, 1]],
    ];
    const fitted = await fitAdjustments(input, observedRuns(samples, sites, valuesOf), new Map(rows));
    const cached: readonly (readonly [string, number, number])[] = [["attn-0", 1, 0], ["attn-0", 2, 0], ["attn-0", 5, 4], ["mlp-0", 3, 2]]; // prettier-ignore
    expect([...fitted].flatMap(([site, ofSite]) => [...ofSite.keys()].map((step) => `${site} ${step}`))).toEqual(
      cached.map(([site, step]) => `${site} ${step}`),
    );
    for (const [site, step, source] of cached) {
      for (let channel = 0; channel < CHANNELS; channel++) {
        const pairs = samples.flatMap((sample) => {
          const [x, y] = [valuesOf(sample, site, source), valuesOf(sample, site, step)];
          return x.flatMap((value, i) => (i % CHANNELS === channel ? [[value, y[i] ?? NaN] as const] : []));
        });
        const [scale, shift] = line(pairs);
        expect(fitted.get(site)?.get(step)?.scale?.[channel]).toBeCloseTo(scale, 5);
        expect(fitted.get(site)?.get(step)?.shift?.[channel]).toBeCloseTo(shift, 5);
      }
    }
  });

  it("only shifts a channel that is the same everywhere", async () => {
    const flat = observedRuns([0], ["attn-0"], (_, __, step) =>
      Array.from({ length: 30 }, (_, i) => (i % CHANNELS === 1 ? 0.1 + step : i + step * i)),
    );
    const fitted = await fitAdjustments(inputOf(STEPS, [siteOf("attn-0", 1)]), flat, new Map([["attn", [1, 0, 1, 1, 1, 1]]]));
    const { scale, shift } = fitted.get("attn-0")?.get(1) ?? {};
    for (const [channel, [factor, offset]] of [[2, 0] as const, [1, 1] as const, [2, 0] as const].entries()) {
      expect(scale?.[channel]).toBeCloseTo(factor, 5);
      expect(shift?.[channel]).toBeCloseTo(offset, 5);
    }
  });

  it("is block-caching's, where asked for and where there is a model", async () => {
    const bands = randomBands(STEPS, 1, generator(3));
    const traced = {
      ...inputOf(
        STEPS,
        sites.map((site) => siteOf(site, 0.5, statisticsWith(STEPS, bands))),
      ),
    };
    const runs = observedRuns(samples, sites, valuesOf);
    const { schedule } = await choose("block-caching", { delta: 0.2, adjust: "scale-shift" }, { ...traced, runs });
    for (const [site, row] of schedule.cells) {
      const cached = row.flatMap((cell, step) => (cell === 0 ? [step] : []));
      expect(cached.length).toBeGreaterThan(0);
      expect([...(schedule.adjustments?.get(site)?.keys() ?? [])]).toEqual(cached);
    }
    expect((await choose("block-caching", { delta: 0.2 }, { ...traced, runs })).schedule.adjustments).toBeUndefined();
    expect(await rejectedCodeOf(choose("block-caching", { delta: 0.2, adjust: "scale-shift" }, single(STEPS, bands)))).toBe(
      "POLICY_NEEDS_MODEL",
    );
  });
});
