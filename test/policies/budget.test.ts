/** The budget policy: its parts against second derivations, the whole on a run made of numbers. */
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { type PolicyInput, polynomial, relativeL2, type Runs, type Schedule, type ScheduleCell, termsOf } from "../../schedules/index.js";
import { fillings, leastPath, published, twoGaps } from "../../schedules/budget/candidates.js";
import { closedLoop } from "../../schedules/budget/closed-loop.js";
import { type Entry, Trials } from "../../schedules/budget/selection.js";
import { sensitivity } from "../../schedules/budget/sensitivity.js";
import { choose, generator, inputOf, runsWith, siteOf, statisticsOfValues } from "../support/policy-input.js";
import { rejectedCodeOf } from "../support/thrown.js";
import { toyInput } from "../support/toy-runs.js";

const PREDICTED = z.object({
  candidate: z.string(),
  error: z.number(),
  compared: z.record(z.string(), z.object({ error: z.number(), isPublished: z.boolean() })),
});

it("a polynomial continues a parabola exactly, however uneven the fills", () => {
  const parabola = (x: number): number => 3 - 2 * x + 0.5 * x * x;
  for (const fills of [
    [9, 7, 2],
    [10, 9, 1],
    [5, 1, 0],
  ]) {
    const value = polynomial(2)(12, fills).reduce((sum, { step, weight }) => sum + weight * parabola(step), 0);
    expect(value).toBeCloseTo(parabola(12), 9);
  }
});

describe("the path of least error", () => {
  const STEPS = 9;
  const random = generator(5);
  const values = [0, 1].map(() => Array.from({ length: STEPS }, (_, k) => Array.from({ length: 5 }, (_, i) => Math.sin(0.4 * k + i) + 0.3 * random()))); // prettier-ignore
  const input = inputOf(STEPS, [siteOf("attn-0", 1, statisticsOfValues(values, STEPS))]);
  const at = (sample: number, step: number): readonly number[] => values[sample]?.[step] ?? [];
  const weightAt = (step: number): number => 1 + 0.2 * step;

  /** Vectors of errors, of all samples behind each other, written out. */
  function costOf(fills: readonly number[], power: number): number {
    let total = 0;
    let gap: number[] = [];
    for (let step = 0; step < STEPS; step++) {
      if (fills.includes(step)) {
        gap = [];
        continue;
      }
      const [from = 0, before] = fills.filter((fill) => fill < step).reverse();
      const nodes = before === undefined ? [from] : [from, before, 2 * before - from].filter((node) => node >= 0);
      const weights = nodes.map((node) => nodes.reduce((w, other) => (other === node ? w : (w * (step - other)) / (node - other)), 1));
      const scale = weightAt(step) ** power / Math.hypot(...at(0, step), ...at(1, step));
      const error = [0, 1].flatMap((sample) => at(sample, step).map((value, i) => (nodes.reduce((sum, node, n) => sum + (weights[n] ?? 0) * (at(sample, node)[i] ?? 0), 0) - value) * scale)); // prettier-ignore
      const squared = (vector: readonly number[]): number => vector.reduce((sum, value) => sum + value * value, 0);
      total -= squared(gap);
      gap = error.map((value, i) => value + (gap[i] ?? 0));
      total += squared(gap);
    }
    return total;
  }

  it.each([0.25, 1])("is the best of all: sensitivity^%s", (power) => {
    for (const count of [4, 5, 6]) {
      const path = leastPath(input, count, new Map([["attn", Array.from({ length: STEPS }, (_, step) => weightAt(step))]]), power) ?? [];
      const found = costOf(path.flatMap((computes, step) => (computes ? [step] : [])), power); // prettier-ignore
      let least = Infinity;
      for (let mask = 0; mask < 1 << (STEPS - 1); mask++) {
        const fills = [0, ...Array.from({ length: STEPS - 1 }, (_, i) => i + 1).filter((step) => (mask >> (step - 1)) & 1)];
        const longest = Math.ceil((2.5 * STEPS) / count) + 1;
        if (fills.length !== count || fills.some((fill, i) => (fills[i + 1] ?? STEPS) - fill > longest)) continue;
        least = Math.min(least, costOf(fills, power));
      }
      expect(found).toBeCloseTo(least, 9);
    }
  });
});

describe("candidates", () => {
  it("have the number of fills that was asked for at most, and what is published among them", async () => {
    const input = await toyInput(20, [0, 1]);
    const effects = await sensitivity(input, input.runs, 0);
    for (let fills = 2; fills < 20; fills++) {
      for (const { computes } of fillings(input, fills, effects)) expect(computes.filter(Boolean).length).toBeLessThanOrEqual(fills);
      const known = published(input, fills);
      for (const row of known.values()) expect(row.filter((cell) => cell === 1).length).toBeLessThanOrEqual(fills);
      expect([...known.keys()]).toContain("fora");
    }
  });

  it("have the longer ones of two gaps first, and no third, for every number of fills", () => {
    for (let steps = 2; steps < 60; steps++) {
      for (let fills = 2; fills <= steps; fills++) {
        const computed = twoGaps(steps, fills).flatMap((computes, step) => (computes ? [step] : []));
        expect([computed.length, computed[0], computed.at(-1)]).toEqual([fills, 0, steps - 1]);
        const gaps = computed.slice(1).map((step, i) => step - (computed[i] ?? NaN));
        expect(gaps).toEqual([...gaps].sort((a, b) => b - a));
        expect((gaps[0] ?? NaN) - (gaps.at(-1) ?? NaN)).toBeLessThanOrEqual(1);
      }
    }
    expect(twoGaps(5, 1)).toEqual([true, false, false, false, false]);
  });
});

describe("closed-loop weights", () => {
  const SAMPLES = [0, 1, 2];

  it("leave latents nearer to those of the run without caching, step by step", async () => {
    const input = await toyInput(16, SAMPLES);
    const row = Array.from({ length: 16 }, (_, k): ScheduleCell => (k % 3 === 0 || k < 3 ? 1 : polynomial(1)(k, [k - (k % 3), k - (k % 3) - 3].map((fill) => Math.max(fill, 0))).map(({ step, weight }) => [step, weight]))); // prettier-ignore
    const { cells } = await closedLoop(input, input.runs, SAMPLES, { row });
    const plain = { steps: 16, cells: new Map([["attn", row], ["mlp", row]]) }; // prettier-ignore
    expect(await errorOf(input, SAMPLES, { steps: 16, cells })).toBeLessThan(0.7 * (await errorOf(input, SAMPLES, plain)));
  });

  it("are what a search finds for the first step that is cached", async () => {
    const input = await toyInput(6, SAMPLES);
    // Far from the best, so that both terms of the objective count.
    const row: ScheduleCell[] = [1, 1, [[1, 1], [0, 0]], 1, 1, 1]; // prettier-ignore
    const { cells } = await closedLoop(input, input.runs, SAMPLES, { row });
    const [attn, mlp] = ["attn", "mlp"].map((key) => cells.get(key)?.[2]);
    const objective = async (a: number, b: number): Promise<number> => {
      const terms = (by: number): readonly { step: number; weight: number }[] => [{ step: 1, weight: 1 + by }, { step: 0, weight: -by }]; // prettier-ignore
      let [sum, held] = [0, 0];
      for (const sample of SAMPLES) {
        const walk = await input.runs.walk(sample, { steps: 6, cells: new Map([["attn", row], ["mlp", row]]) }, 2); // prettier-ignore
        const latentOf = async (x: number, y: number): Promise<Float32Array> =>
          (await walk.attempt(new Map([["attn-0", terms(x)], ["mlp-0", terms(y)]]))).latent; // prettier-ignore
        const target = (await input.runs.latents(sample))[3];
        const [base, other, first, second] = [await latentOf(0, 0), await latentOf(a, b), await latentOf(1, 0), await latentOf(0, 1)];
        sum += other.reduce((total, value, i) => total + (value - (target?.[i] ?? NaN)) ** 2, 0);
        held += first.reduce((total, value, i) => total + (a * (value - (base[i] ?? NaN))) ** 2, 0);
        held += second.reduce((total, value, i) => total + (b * (value - (base[i] ?? NaN))) ** 2, 0);
      }
      return sum + held;
    };
    const [a, b] = [attn, mlp].map((cell) => termWeight(cell) - 1);
    const found = await objective(a ?? NaN, b ?? NaN);
    for (const [da, db] of [
      [0.01, 0],
      [-0.01, 0],
      [0, 0.01],
      [0, -0.01],
    ] as const)
      // prettier-ignore
      expect(await objective((a ?? NaN) + da, (b ?? NaN) + db)).toBeGreaterThan(found);
  });
});

describe("selection", () => {
  const entry = (name: string, error: number, isPublished = false): Entry => ({ name, isPublished, schedule: { steps: 1, cells: new Map([["error", [[[0, error]]]]]) } }); // prettier-ignore
  const runs: Runs = {
    ...runsWith({ samples: [0, 1, 2, 3], run: () => Promise.resolve(new Float32Array()) }),
    latents: () => Promise.resolve([Float32Array.of(1)]),
    run: (sample, schedule) => {
      const cell = schedule?.cells.get("error")?.[0];
      return Promise.resolve(Float32Array.of(1 + termWeight(cell) * (1 + 0.1 * sample)));
    },
  };

  it("goes on with the better half on twice as many samples", async () => {
    const trials = new Trials(runs);
    const entries = [entry("a", 0.5), entry("b", 0.1), entry("c", 0.2), entry("d", 0.3), entry("e", 0.4)];
    expect((await trials.best(entries, runs.samples)).name).toBe("b");
    const counts = trials.measured(runs.samples).map(([{ name }, errors]) => `${name}${errors.length}`);
    expect(counts).toEqual(["b4", "c4", "d2", "a1", "e1"]);
  });

  it("does not let one sample decide", async () => {
    // Of four samples, the second plan is better on three by a half, and worse on one by as much as all others.
    const errors = { a: [1, 1, 1, 4], b: [0.5, 0.5, 0.5, 6] };
    const own = { ...runs, run: (sample: number, schedule?: Schedule) => Promise.resolve(Float32Array.of(1 + (errors[schedule?.cells.has("a") === true ? "a" : "b"][sample] ?? NaN))) }; // prettier-ignore
    const [a, b] = ["a", "b"].map((name): Entry => ({ name, isPublished: false, schedule: { steps: 1, cells: new Map([[name, []]]) } })); // prettier-ignore
    if (!a || !b) throw new Error("two plans");
    expect((await new Trials(own).ranked([a, b], own.samples)).map(({ name }) => name)).toEqual(["b", "a"]);
  });
});

describe("the rule of one standard error", () => {
  /** Plans whose errors on the samples are these. */
  const simplest = async (...errors: readonly (readonly number[])[]): Promise<string> => {
    const entries = errors.map((_, i): Entry => ({ name: `${i}`, isPublished: false, schedule: { steps: 1, cells: new Map([["plan", [[[0, i]]]]]) } })); // prettier-ignore
    const own: Runs = {
      ...runsWith({ samples: errors[0]?.map((_, sample) => sample) ?? [], run: () => Promise.resolve(new Float32Array()) }),
      latents: () => Promise.resolve([Float32Array.of(1)]),
      run: (sample, schedule) =>
        Promise.resolve(Float32Array.of(1 + (errors[termWeight(schedule?.cells.get("plan")?.[0])]?.[sample] ?? NaN))),
    };
    return (await new Trials(own).simplest(entries, own.samples)).name;
  };

  it("keeps the earlier plan where the later one may be better by luck", async () => {
    // Logarithms of the ratio: ln 2, ln 2, −ln 1.6, −ln 1.6: mean 0.11, standard error 0.34.
    expect(await simplest([2, 2, 1, 1], [1, 1, 1.6, 1.6])).toBe("0");
  });

  it("takes the later one where it is better throughout", async () => {
    expect(await simplest([2, 4, 1, 3], [1.5, 3.1, 0.8, 2])).toBe("1");
  });

  it("goes by the error alone where there is one sample", async () => {
    expect(await simplest([2], [1.9])).toBe("1");
  });
});

describe("the policy", () => {
  it("takes nothing that is worse than what is published, beyond what its samples can tell", async () => {
    const input = await toyInput(24, [0, 1, 2, 3]);
    // Of the smallest, more steps lie between computed ones than L1 curves look back.
    for (const share of [0.1, 0.25, 0.4, 0.6]) {
      const { schedule } = await choose("budget", { share }, input);
      const { candidate, error, compared } = PREDICTED.parse(schedule.predicted);
      expect(compared[candidate]?.error).toBe(error);
      for (const name of ["fora", "taylorseer, order 1", "taylorseer, order 2"])
        if (compared[name]) expect(error).toBeLessThanOrEqual(compared[name].error);
      for (const [name, { isPublished }] of Object.entries(compared))
        expect(isPublished, name).toBe(/^(fora|smoothcache|taylorseer, order \d)$/.test(name));
      expect(await errorOf(input, [2, 3], schedule)).toBeCloseTo(error, 9);
      expect(schedule.predicted?.["computedShare"]).toBeLessThanOrEqual(share);
    }
  });

  it("computes more for a smaller error, and stays within it", async () => {
    const input = await toyInput(24, [0, 1, 2, 3]);
    const shares: number[] = [];
    for (const maxError of [0.1, 0.01]) {
      const { schedule } = await choose("budget", { maxError }, input);
      expect(await errorOf(input, [2, 3], schedule)).toBeLessThanOrEqual(maxError);
      shares.push(Number(schedule.predicted?.["computedShare"]));
    }
    expect(shares[1]).toBeGreaterThan(shares[0] ?? NaN);
  });

  it("takes a speed-up or a time for what it leaves of the compute", async () => {
    const input = { ...(await toyInput(24, [0, 1])), cacheable: 0.9 };
    for (const given of [{ speedup: 2 }, { latency: "500ms" }]) {
      const { schedule } = await choose("budget", given, input);
      // 1 / 2 = 0.1 + 0.9 · share.
      expect(schedule.predicted?.["computedShare"]).toBeLessThanOrEqual(0.4 / 0.9);
      expect(schedule.predicted?.["computedShare"]).toBeGreaterThan(0.4 / 0.9 - 1 / 24);
    }
    expect(await rejectedCodeOf(choose("budget", { share: 0.5, speedup: 2 }, input))).toBe("BAD_OPTION");
    expect(await rejectedCodeOf(choose("budget", { latency: "soon" }, input))).toBe("BAD_OPTION");
  });

  it("says so where there are no steps to spare", async () => {
    const { schedule, warnings } = await choose("budget", { share: 0.3 }, await toyInput(8, [0, 1]));
    expect(warnings.join()).toContain("none to spare");
    for (const row of schedule.cells.values()) expect(row.filter((cell) => cell !== 1)).toHaveLength(1);
  });
});

async function errorOf(
  input: PolicyInput & { readonly runs: Runs },
  samples: readonly number[],
  schedule: Parameters<Runs["run"]>[1],
): Promise<number> {
  const errors = await Promise.all(
    samples.map(async (sample) => relativeL2(await input.runs.run(sample, schedule), (await input.runs.latents(sample)).at(-1) ?? [])),
  );
  return errors.reduce((sum, error) => sum + error, 0) / errors.length;
}

/** Of the newest value that a cell reads. */
function termWeight(cell: ScheduleCell | undefined): number {
  return cell === 1 || cell === 0 || cell === undefined ? NaN : (termsOf(cell, NaN)[0]?.weight ?? NaN);
}
