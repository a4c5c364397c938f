/** Calibration: its statistics against loops written here, and the ways that must lead to the same trace. */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { readTensor, type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { elementCount } from "../ir/types.js";
import { confidence, errorCurves, type SiteStatistics, squaredNorm, studentQuantile } from "../schedules/index.js";
import { calibrate } from "../src/calibration/calibrate.js";
import { writeNpy } from "../src/files/npy.js";
import { Reductions } from "../src/calibration/reductions.js";
import { type Observer, ReferenceLoop, type Trajectory } from "../src/reference/loop.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { runsOf } from "../src/planning/runs.js";
import { mergeTraces, readTrace, type Trace } from "../src/calibration/trace.js";
import { windowOf } from "../src/calibration/window.js";
import { cli } from "./support/cli.js";
import { fixtureNamed } from "./support/fixtures.js";
import { nullClassOf, openFixture } from "./support/jobs.js";
import { inTwoCalls } from "./support/runs.js";

const STEPS = 12;
const L1_LAGS = 8;
const folder = mkdtempSync(join(tmpdir(), "smoothcc-calibrate-"));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const dit = fixtureNamed("dit/dynamo-20");
const job = await openFixture(dit, "batched", { steps: STEPS });

/** The statistics of one sample, from all of its values, in double precision. */
function derived(
  values: readonly (readonly number[])[],
  width: number,
  lags: number,
): Omit<SiteStatistics, "ratio"> & { readonly ratio: number[][] } {
  const sum = (count: number, termOf: (i: number) => number): number => {
    let total = 0;
    for (let i = 0; i < count; i++) total += termOf(i);
    return total;
  };
  const size = values[0]?.length ?? 0;
  const x = (step: number, i: number): number => values[step]?.[i] ?? NaN;
  const perStep = (from: number, valueOf: (step: number) => number): number[] => values.map((_, step) => (step < from ? 0 : valueOf(step)));
  const norm = perStep(0, (step) => sum(size, (i) => Math.abs(x(step, i))));
  const diff = Array.from({ length: Math.min(L1_LAGS, lags) }, (_, at) =>
    perStep(at + 1, (step) => sum(size, (i) => Math.abs(x(step, i) - x(step - at - 1, i)))),
  );
  const token = (step: number, at: number): number => Math.sqrt(sum(width, (i) => x(step, at * width + i) ** 2));
  return {
    norm,
    diff,
    ratio: diff.map((row) => row.map((value, step) => value / (norm[step] ?? NaN))),
    gram: Array.from({ length: lags + 1 }, (_, lag) => perStep(lag, (step) => sum(size, (i) => x(step, i) * x(step - lag, i)))),
    gain: perStep(1, (step) => sum(size / width, (at) => token(step, at) / token(step - 1, at)) / (size / width)),
  };
}

/** The largest difference of two lists of numbers of one form, relative to the largest number. */
function distance(found: unknown, expected: unknown): number {
  const flat = (value: unknown): number[] => (Array.isArray(value) ? value.flatMap(flat) : [Number(value)]);
  const [a, b] = [flat(found), flat(expected)];
  expect(a.length).toBe(b.length);
  const scale = Math.max(...b.map(Math.abs));
  return Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? NaN)))) / scale;
}

const NAMES = ["norm", "diff", "ratio", "gram", "gain"] as const;

function expectSameTrace(found: Trace, expected: Trace, limit: number): void {
  const { sites: some, ...facts } = found;
  const { sites: others, ...wanted } = expected;
  expect(facts).toEqual(wanted);
  expect(Object.keys(some)).toEqual(Object.keys(others));
  for (const [site, statistics] of Object.entries(others))
    for (const name of NAMES) expect(distance(some[site]?.[name], statistics[name]), `${site} ${name}`).toBeLessThanOrEqual(limit);
}

/** Bytes of each branch's value, and of all. */
const sizes = job.model.graph.marks.map(({ value }) => 4 * elementCount((value.type?.shape ?? []).map(Number)));
const total = sizes.reduce((a, b) => a + b, 0);

const whole = await calibrate(job, { samples: 4, seed: 3, threads: 1 });

describe("statistics of a sample", () => {
  /** Smooth in time, as branches are: sums of a few waves. */
  const wave = (shape: readonly number[], step: number): number[] =>
    Array.from({ length: elementCount(shape) }, (_, i) => Math.sin(i * 1.3 + 0.2 * step) + 0.3 * Math.cos(i * 0.7 - 0.5 * step) + 0.1);

  async function reduced(elem: "float" | "float16", shape: readonly number[], rows: number, lags: number): Promise<void> {
    const reductions = new Reductions(STEPS, { rows, lags }, { threads: 1 });
    const steps = Array.from({ length: STEPS }, (_, step) => tensorOf(elem, shape, wave(shape, step)));
    for (const [step, value] of steps.entries()) await reductions.observe(step, new Map([["attn-0", value]]));
    const found = reductions.finish().get("attn-0");
    await reductions.close();
    const expected = derived(steps.map(tensorNumbers), shape.at(-1) ?? 1, lags);
    for (const name of NAMES) expect(distance(name === "ratio" ? found?.ratio[0] : found?.[name], expected[name]), name).toBeLessThan(1e-6);
    // Differences of order 4 leave a 60th of the values: their squares from products of the values in float would be 10 % off.
    for (let step = 4; step < STEPS; step++) {
      const terms = [1, -4, 6, -4, 1].map((weight, lag) => ({ step: step - lag, weight }));
      const [left, exactly] = [found, expected].map((statistics) => squaredNorm({ gram: statistics?.gram ?? [] }, terms));
      expect(left, `what a forecast of step ${step} misses`).toBeGreaterThan(0.99 * (exactly ?? NaN));
      expect(left, `what a forecast of step ${step} misses`).toBeLessThan(1.01 * (exactly ?? NaN));
    }
  }

  it.each([
    { about: "all steps held", shape: [2, 5, 12], rows: STEPS, lags: STEPS - 1 },
    { about: "in several blocks, the last one smaller", shape: [2, 33, 1500], rows: STEPS, lags: STEPS - 1 },
    { about: "new steps one by one", shape: [2, 33, 1500], rows: 9, lags: 8 },
    { about: "new steps by two, none over", shape: [3, 7], rows: 10, lags: 8 },
    { about: "an odd number of elements", shape: [1, 3, 7], rows: 11, lags: 9 },
  ])("are those of a loop: $about", async ({ shape, rows, lags }) => {
    await reduced("float", shape, rows, lags);
  });

  it("are those of a loop for float16", async () => {
    await reduced("float16", [2, 5, 12], 9, 8);
  });

  it("count a token that was 0 as unchanged", async () => {
    const reductions = new Reductions(2, { rows: 2, lags: 1 });
    await reductions.observe(0, new Map([["attn-0", tensorOf("float", [2, 2], [0, 0, 3, 4])]]));
    await reductions.observe(1, new Map([["attn-0", tensorOf("float", [2, 2], [1, 0, 6, 8])]]));
    expect(reductions.finish().get("attn-0")?.gain).toEqual([0, 1.5]);
    await reductions.close();
  });

  it.each([
    ["not finite", NaN],
    ["0 throughout", 0],
  ])("are refused where a step is %s", async (_, value) => {
    const reductions = new Reductions(2, { rows: 2, lags: 1 });
    await reductions.observe(0, new Map([["attn-0", tensorOf("float", [1, 2], [1, 2])]]));
    await expect(reductions.observe(1, new Map([["attn-0", tensorOf("float", [1, 2], [value, value])]]))).rejects.toMatchObject({
      code: "BAD_CURVES",
      where: { site: "attn-0" },
    });
    await reductions.close();
  });
});

describe("a trace", () => {
  it("sums up what the loop's branches are, sample by sample", async () => {
    const loop = new ReferenceLoop(job.run, { threads: 1 });
    const samples: Map<string, TensorData[]>[] = [];
    for (const sample of whole.samples) {
      const values = new Map<string, TensorData[]>();
      const observe: Observer = (_, branches) => {
        for (const [name, value] of branches.named()) values.set(name, [...(values.get(name) ?? []), value]);
      };
      await loop.run(sampleInputs(job, sample, { seed: 3 }), { observe });
      samples.push(values);
    }
    await loop.close();
    expect(Object.keys(whole.sites)).toHaveLength(6);
    for (const [site, found] of Object.entries(whole.sites)) {
      const all = samples.map((values) => {
        const data = values.get(site) ?? [];
        return derived(data.map(tensorNumbers), data[0]?.shape.at(-1) ?? 1, STEPS - 1);
      });
      const total = (name: "norm" | "gain"): number[] =>
        whole.sampler.timesteps.map((_, s) => all.reduce((sum, one) => sum + (one[name][s] ?? NaN), 0));
      expect(distance(found.norm, total("norm"))).toBeLessThan(1e-6);
      expect(distance(found.gain, total("gain"))).toBeLessThan(1e-6);
      expect(
        distance(
          found.ratio,
          all.map(({ ratio }) => ratio),
        ),
      ).toBeLessThan(1e-6);
      const bands = (name: "diff" | "gram"): number[][] =>
        (all[0]?.[name] ?? []).map((row, lag) => row.map((_, s) => all.reduce((sum, one) => sum + (one[name][lag]?.[s] ?? NaN), 0)));
      expect(distance(found.diff, bands("diff"))).toBeLessThan(1e-6);
      expect(distance(found.gram, bands("gram"))).toBeLessThan(1e-6);
    }
  });

  it("says which run was measured", () => {
    expect(whole).toMatchObject({
      samples: [0, 1, 2, 3],
      seed: 3,
      steps: STEPS,
      lags: STEPS - 1,
      guidance: { form: "batched", scale: 1.5 },
    });
    expect(whole.sampler.timesteps).toEqual(job.run.table.rows.map(({ timestep }) => timestep));
  });
});

describe("the runs that were made", () => {
  it("are kept, so that planning does not make them again", async () => {
    const known = new Map<number, Trajectory>();
    // Memory for a few branches at a time: the first of the runs of a sample is as good as any.
    const memory = 4 * total;
    await calibrate(job, { samples: 2, seed: 5, threads: 1, memory, keep: (sample, trajectory) => known.set(sample, trajectory) });
    const [runs, others] = [known, undefined].map((known) => runsOf(job, { samples: [0, 1], seed: 5, threads: 1, known }));
    for (const sample of [0, 1]) {
      const [kept, made] = [await runs?.latents(sample), await others?.latents(sample)];
      expect(kept).toHaveLength(STEPS + 1);
      expect(distance(kept?.map((latent) => [...latent]), made?.map((latent) => [...latent]))).toBeLessThan(1e-5); // prettier-ignore
    }
    expect([runs?.evaluations(), others?.evaluations()]).toEqual([0, 2 * STEPS]);
    await runs?.close();
    await others?.close();
  });
});

describe("memory", () => {
  /** The trace that looks back less far. */
  const cut = (trace: Trace, lags: number): Trace => ({
    ...trace,
    lags,
    sites: Object.fromEntries(Object.entries(trace.sites).map(([site, one]) => [site, { ...one, gram: one.gram.slice(0, lags + 1) }])),
  });

  it.each([
    { about: "all steps", memory: 14 * total, window: { rows: 12, lags: 11 }, groups: 1 },
    { about: "fewer steps", memory: 12 * total, window: { rows: 10, lags: 8 }, groups: 1 },
    { about: "fewer steps of some branches at a time", memory: 6 * total, window: { rows: 10, lags: 8 }, groups: 2 },
    { about: "as few as there can be", memory: 11 * Math.max(...sizes), window: { rows: 9, lags: 8 }, groups: 6 },
  ])("holds $about, with the same result", async ({ memory, window, groups }) => {
    const found = windowOf(job, memory);
    expect(found).toMatchObject(window);
    expect(found.groups).toHaveLength(groups);
    const trace = await calibrate(job, { samples: 4, seed: 3, threads: 1, memory });
    expectSameTrace(trace, cut(whole, window.lags), 1e-6);
  });

  it("measures both halves together that are called one after the other", () => {
    const two = inTwoCalls(job);
    expect(windowOf(two, 28 * total).groups).toHaveLength(1);
    expect(windowOf(two, 14 * total)).toMatchObject({ groups: { length: 2 } });
  });
});

describe("shards", () => {
  it("add up to the whole, in any order", async () => {
    const shards: Trace[] = [];
    for (const index of [2, 3, 1]) shards.push(await calibrate(job, { samples: 4, seed: 3, threads: 1, shard: { index, count: 3 } }));
    expect(shards.map(({ samples }) => samples)).toEqual([[1], [2], [0, 3]]);
    const [first, ...rest] = shards;
    if (first)
      expectSameTrace(
        rest.reduce((sum, shard) => mergeTraces(sum, shard), first),
        whole,
        1e-12,
      );
  });

  it("that looked back differently far add up to what both have", async () => {
    const near = await calibrate(job, { samples: 4, seed: 3, threads: 1, shard: { index: 1, count: 2 }, memory: 12 * total });
    const far = await calibrate(job, { samples: 4, seed: 3, threads: 1, shard: { index: 2, count: 2 } });
    expect([near.lags, far.lags]).toEqual([8, 11]);
    expect(mergeTraces(far, near).lags).toBe(8);
    expect(mergeTraces(near, far).sites["attn-0"]?.gram).toHaveLength(9);
  });
});

describe("the command", () => {
  const line = (output: string, ...more: readonly string[]): string[] =>
    ["calibrate", dit.model, "--scheduler", dit.scheduler, "--steps", "10", "--input", "class_labels=1", "--threads", "1", "-o", join(folder, output), ...more]; // prettier-ignore

  it("goes on where it was cancelled, with the same result", async () => {
    const abort = new AbortController();
    const partial = join(folder, "resumed.json.partial");
    const stop = (): void => {
      if (existsSync(partial)) abort.abort();
    };
    const stopped = await cli(line("resumed.json", "--samples", "3"), { onProgress: stop, signal: abort.signal });
    expect(stopped.exit).toBe(130);
    expect(existsSync(join(folder, "resumed.json"))).toBe(false);
    const before = readTrace(partial).samples;
    expect(before[0]).toBe(0);
    expect(before.length).toBeLessThan(3);
    // What is there is not lost by chance.
    expect((await cli(line("resumed.json", "--samples", "3"))).stderr).toContain("FILE_EXISTS");

    const resumed = await cli(line("resumed.json", "--samples", "3", "--resume", "--json"));
    expect(JSON.parse(resumed.stdout)).toMatchObject({ samples: 3, numbers: [0, 1, 2], lags: 9, passes: 1 });
    expect(resumed.stderr).toContain(`/${(3 - before.length) * 10}\n`);
    expect(existsSync(partial)).toBe(false);
    await cli(line("straight.json", "--samples", "3"));
    expect(readFileSync(join(folder, "resumed.json"), "utf8")).toBe(readFileSync(join(folder, "straight.json"), "utf8"));
    // Nothing is left to do.
    const again = await cli(line("resumed.json", "--samples", "3", "--resume"));
    expect(again.stderr).not.toContain("calibrate:");
    expect(readFileSync(join(folder, "resumed.json"), "utf8")).toBe(readFileSync(join(folder, "straight.json"), "utf8"));
    // What is given counts, not how it is written; other conditions do not add up.
    for (const label of [1, 2]) {
      const file = join(folder, `${label}.npy`);
      await writeNpy(file, tensorOf("int64", [2], [label, label]));
      const other = await cli(line("resumed.json", "--samples", "3", "--resume", "--input", `class_labels=${file}`));
      expect(other.exit).toBe(label === 1 ? 0 : 2);
      expect(other.stderr.includes("another set of conditions: class_labels=int64[2]:0100000000000000")).toBe(label === 2);
    }
  });

  it("runs parts that merge adds up", async () => {
    for (const part of ["1/2", "2/2"]) await cli(line(`part-${part[0]}.json`, "--samples", "3", "--shard", part));
    const parts = ["part-1.json", "part-2.json"].map((name) => join(folder, name));
    const { stdout } = await cli(["merge", ...parts, "-o", join(folder, "merged.json")]);
    expect(stdout).toContain("samples 0, 1, 2 × 10 steps, 6 branches");
    expectSameTrace(readTrace(join(folder, "merged.json")), readTrace(join(folder, "straight.json")), 1e-12);
    expect(readdirSync(folder).filter((name) => name.endsWith(".partial"))).toEqual([]);
  });

  it("warns of short runs, and says what memory made of it", async () => {
    const few = await cli(line("few.json", "--steps", "9", "--samples", "1", "--quiet"));
    expect(few.stderr).toContain("9 steps leaves little to reuse");
    // 11 steps of one branch fit, those of two do not; then all 12 of one do.
    const small = await cli(line("small.json", "--steps", "12", "--samples", "1", "--memory", `${(3 * total) / 1e6}MB`, "--quiet"));
    expect(small.stderr).toBe("");
    expect(small.stdout).toContain("in 6 passes each to fit the memory");
  });
});

describe("conditions", () => {
  it("of several inputs are read from arrays, sample by sample", async () => {
    const pixart = await openFixture(fixtureNamed("pixart/dynamo-20"), "none", { steps: 3 });
    const trace = await calibrate(pixart, { samples: 2, seed: 0, threads: 1 });
    expect(trace.samples).toEqual([0, 1]);
    expect(Object.values(trace.sites).map(({ kind }) => kind)).toContain("cross_attn");
  });

  it("that are those of the unconditional half make both halves the same, as in the paper's runs of DiT", async () => {
    const loop = new ReferenceLoop(job.run, { threads: 1 });
    const inputs = new Map([["class_labels", nullClassOf(dit) ?? NaN]]);
    const observe: Observer = (_, branches) => {
      for (const [, value] of branches) {
        const bytes = readTensor(value);
        expect(bytes.subarray(0, bytes.length / 2)).toEqual(bytes.subarray(bytes.length / 2));
      }
    };
    await loop.run(sampleInputs(job, 0, { seed: 0, inputs }), { observe });
    await loop.close();
  });
});

describe("curves", () => {
  const site = (norm: readonly number[], diff: readonly number[], ratios: readonly (readonly number[])[]): SiteStatistics =>
    ({ norm, diff: [diff], ratio: ratios.map((ratio) => [ratio]), gram: [norm, norm], gain: norm }); // prettier-ignore
  const sites = [site([4, 10], [0, 2], [[0, 0.1], [0, 0.3]]), site([4, 5], [0, 4], [[0, 0.5], [0, 0.9]])]; // prettier-ignore

  it("are means over depth and samples, and of the pooled sums", () => {
    const { mean, pooled } = errorCurves(sites);
    expect(mean[0]?.[1]).toBeCloseTo((0.1 + 0.3 + 0.5 + 0.9) / 4, 12);
    expect(pooled[0]?.[1]).toBeCloseTo((2 / 10 + 4 / 5) / 2, 12);
  });

  it("have intervals over samples by Student's t", () => {
    // Means over depth: 0.3 and 0.6; of two samples the interval is 12.706 standard errors, which are 0.15, wide on each side.
    expect(confidence(sites)?.[0]?.[1]).toBeCloseTo(12.7062047 * 0.15, 6);
    expect(confidence(sites.map((one) => ({ ...one, ratio: one.ratio.slice(0, 1) })))).toBeUndefined();
    // From the usual tables, for 95 % on both sides.
    const table = new Map([[1, 12.706], [2, 4.303], [3, 3.182], [4, 2.776], [9, 2.262], [10, 2.228], [30, 2.042], [120, 1.98]]); // prettier-ignore
    for (const [freedom, t] of table) expect(studentQuantile(freedom)).toBeCloseTo(t, 3);
  });
});

it("the trace in a file is what was measured", () => {
  const text = readFileSync(join(folder, "straight.json"), "utf8");
  expect(z.looseObject({ format: z.string() }).parse(JSON.parse(text)).format).toBe("smoothcc-trace/1");
});
