/** Policies against their papers and reference code, written here a second time. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { tensorOf } from "../ir/tensor.js";
import { bind, policies, type PolicyInput, samplerTable, type ScheduleCell } from "../schedules/index.js";
import { toyInput } from "./support/toy-runs.js";
import {
  choose,
  generator,
  inputOf,
  randomBands,
  rowOf,
  rowText,
  single,
  siteOf,
  statisticsWith,
  summingRuns,
} from "./support/policy-input.js";
import { rejectedCodeOf } from "./support/thrown.js";
import { cellsOf, runOfBranches } from "./support/runs.js";

const ones = (row: readonly ScheduleCell[] | undefined): number => (row ?? []).filter((cell) => cell === 1).length;

/** `_scan_nrows_sublists` of Roblox/SmoothCache as its pseudo-code has it; rows[r][i] compares step i with step i + r + 1. */
function scanNRows(rows: readonly (readonly number[])[], alpha: number, steps: number): number[] {
  const schedule = new Array<number | undefined>(steps).fill(undefined);
  let i = 0;
  while (i < steps) {
    let found = false;
    for (let k = rows.length; k >= 1; k--) {
      const row = rows[k - 1] ?? [];
      if (i < row.length && (row[i] ?? NaN) <= alpha) {
        schedule[i] = 1;
        for (let j = i + 1; j <= i + k && j < steps; j++) schedule[j] = 0;
        i += k + 1;
        found = true;
        break;
      }
    }
    if (!found) schedule[i++] = 1;
  }
  schedule[0] = 1;
  schedule[steps - 1] = 1;
  return schedule.map((cell) => cell ?? 1);
}

describe("fora", () => {
  // Compute steps of SmoothCache's <T>-N-<n>-fora.json, and how the rows begin and end.
  it.each([
    [30, 16],
    [50, 26],
    [70, 36],
  ])("has the structure of SmoothCache's file for %d steps", async (steps, computed) => {
    const row = await rowOf("fora", { interval: 2 }, single(steps));
    expect(row).toHaveLength(steps);
    expect(row).toMatch(/^(10)+11$/);
    expect(row.replaceAll("0", "")).toHaveLength(computed);
  });

  it("counts from the end as FORA's own code does", async () => {
    expect(await rowOf("fora", { interval: 2, phase: "fora" }, single(10))).toBe("1101010101");
    expect(await rowOf("fora", { interval: 3, phase: "fora" }, single(10))).toBe("1001001001");
    expect(await rowOf("fora", { interval: 3, phase: "fora" }, single(8))).toBe("11001001");
    expect(await rowOf("fora", { interval: 3 }, single(8))).toBe("10010011");
  });

  it("gives every group the same row and takes numbers as text", async () => {
    const input = inputOf(12, [siteOf("attn-0", 0.3), siteOf("mlp-0", 0.7)]);
    const { schedule, warnings } = await choose("fora", { interval: "4" }, input);
    expect(schedule.cells.get("attn")).toEqual(schedule.cells.get("mlp"));
    expect(schedule.policy).toEqual({ name: "fora", interval: 4, phase: "smoothcache", warmup: 1 });
    expect(schedule.predicted?.["computedShare"]).toBeCloseTo(4 / 12, 12);
    expect(warnings).toEqual([]);
  });
});

describe("full", () => {
  it("computes everything", async () => {
    const { schedule, warnings } = await choose("full", {}, single(5));
    expect(schedule.cells.get("attn")).toEqual([1, 1, 1, 1, 1]);
    expect(schedule.predicted).toEqual({ computedShare: 1 });
    expect(warnings).toEqual([]);
  });
});

describe("learning-to-cache", () => {
  const routers = join(import.meta.dirname, "fixtures", "routers");
  const recorded = z
    .array(z.strictObject({ file: z.string(), options: z.record(z.string(), z.unknown()), rows: z.record(z.string(), z.string()) }))
    .parse(JSON.parse(readFileSync(join(routers, "expected.json"), "utf8")));
  const sites = [0, 1, 2].flatMap((block) => [
    siteOf(`attn-${block}`, 0.1),
    siteOf(`cross_attn-${block}`, 0.1),
    siteOf(`mlp-${block}`, 0.1),
  ]);

  it.each(recorded)("computes what the authors' loop computes: $file, $options", async ({ file, options, rows }) => {
    const { schedule } = await choose("learning-to-cache", { router: join(routers, file), ...options }, inputOf(6, sites));
    expect(Object.fromEntries([...schedule.cells].map(([key, row]) => [key, rowText(row)]))).toEqual(rows);
  });

  it("computes everything at every other step, and all where no score is too low", async () => {
    const all = await choose("learning-to-cache", { router: join(routers, "dit.pt"), threshold: 0 }, inputOf(6, sites));
    expect([...all.schedule.cells.values()].flat()).not.toContain(0);
    const least = await choose("learning-to-cache", { router: join(routers, "dit.pt"), threshold: 1 }, inputOf(6, sites));
    expect(new Set([...least.schedule.cells.values()].map((row) => rowText(row)))).toEqual(new Set(["101010"]));
  });
});

describe("smoothcache, rule of the paper", () => {
  /** Errors of lags 1, 2, 3 at every step. */
  const constant = (steps: number, ...errors: number[]): number[][] => errors.map((error) => new Array<number>(steps).fill(error));

  it("reuses below alpha, up to distance k, and computes both ends", async () => {
    const input = single(12, constant(12, 0.1, 0.2, 0.3));
    expect(await rowOf("smoothcache", { alpha: 0.31 }, input)).toBe("100010001001");
    expect(await rowOf("smoothcache", { alpha: 0.25 }, input)).toBe("100100100101");
    expect(await rowOf("smoothcache", { alpha: 0.31, k: 1 }, input)).toBe("101010101011");
  });

  it("reuses only strictly below alpha", async () => {
    const input = single(12, constant(12, 0.1, 0.2, 0.3));
    expect(await rowOf("smoothcache", { alpha: 0.1 }, input)).toBe("111111111111");
    expect(await rowOf("smoothcache", { alpha: 0.1, rule: "code" }, input)).toBe("101010101011");
  });

  it("tests every step of a gap against the last fill, where the code tests the farthest only", async () => {
    const bands = constant(10, 0.5, 0.1, 0.1);
    expect(await rowOf("smoothcache", { alpha: 0.2 }, single(10, bands))).toBe("1111111111");
    expect(await rowOf("smoothcache", { alpha: 0.2, rule: "code" }, single(10, bands))).toBe("1000100011");
  });

  it("reads the error of step against step − lag, at step", async () => {
    const bands = constant(10, 0.5, 0.5, 0.5).map((row, lag) =>
      row.map((error, step) => (lag === 0 && step === 4 ? 0.05 : lag === 1 && step === 5 ? 0.05 : error)),
    );
    expect(await rowOf("smoothcache", { alpha: 0.1 }, single(10, bands))).toBe("1111001111");
  });

  it("uses the mean of ratios, and the code's rule the pooled ratio", async () => {
    const input = inputOf(10, [siteOf("attn-0", 1, statisticsWith(10, constant(10, 0.1), constant(10, 0.9)))]);
    expect(await rowOf("smoothcache", { alpha: 0.5, k: 1 }, input)).toBe("1010101011");
    expect(await rowOf("smoothcache", { alpha: 0.5, k: 1, rule: "code" }, input)).toBe("1111111111");
  });

  it("follows a second writing of the rule on random curves", async () => {
    const random = generator(3);
    for (let run = 0; run < 2000; run++) {
      const steps = 10 + Math.floor(40 * random());
      const k = 1 + Math.floor(4 * random());
      const alpha = 0.01 + 0.4 * random();
      const bands = randomBands(steps, k, random);
      let fill = 0;
      let want = "1";
      for (let step = 1; step < steps; step++) {
        const lag = step - fill;
        const reuses = lag <= k && (bands[lag - 1]?.[step] ?? NaN) < alpha && step !== steps - 1;
        want += reuses ? "0" : "1";
        if (!reuses) fill = step;
      }
      expect(await rowOf("smoothcache", { alpha, k }, single(steps, bands))).toBe(want);
    }
  });
});

describe("smoothcache, rule of the code", () => {
  // Rows of Roblox/SmoothCache's files, all of which it made with gaps of up to three.
  it.each([
    ["30-N-3-threshold-0.35", `100${"10".repeat(12)}111`],
    ["50-N-3-threshold-0.08", `10010101${"1".repeat(42)}`],
    ["50-N-3-threshold-0.18", `1000100100${"10".repeat(18)}1011`],
    ["70-N-3-threshold-0.08", `1000100100${"10".repeat(28)}1011`],
  ])("gives the row of %s for curves that are low just where its gaps end", async (_, row) => {
    // At shorter distances they are high: the code does not look there, where the paper does.
    const bands = [1, 2, 3].map((lag) =>
      Array.from(row, (_, step) => (row.slice(step - lag, step + 2) === `1${"0".repeat(lag)}1` ? 0.05 : 0.5)),
    );
    expect(await rowOf("smoothcache", { alpha: 0.1, rule: "code" }, single(row.length, bands))).toBe(row);
    const longest = row.indexOf("100");
    const byPaper = await rowOf("smoothcache", { alpha: 0.1 }, single(row.length, bands));
    expect(byPaper.slice(longest, longest + 2)).toBe("11");
  });

  it("equals _scan_nrows_sublists on 20,000 random curves", async () => {
    const random = generator(1);
    let reused = 0;
    for (let run = 0; run < 20_000; run++) {
      const steps = 4 + Math.floor(60 * random());
      const k = 1 + Math.floor(Math.min(5, steps - 1) * random());
      const bands = randomBands(steps, k, random);
      const rows = bands.map((band, r) => band.slice(r + 1));
      // Every other threshold is one of the errors, so that ≤ and < part.
      const among = rows[0] ?? [];
      const alpha = run % 2 === 0 ? 0.4 * random() + 0.001 : (among[Math.floor(among.length * random())] ?? 0.1);
      const want = scanNRows(rows, alpha, steps).join("");
      if ((await rowOf("smoothcache", { alpha, k, rule: "code" }, single(steps, bands))) !== want)
        expect.fail(`${steps} steps, k ${k}, alpha ${alpha}: ${want}`);
      if (want.includes("0")) reused++;
    }
    expect(reused).toBeGreaterThan(10_000);
  });
});

describe("smoothcache, by share", () => {
  const random = generator(5);
  const input = inputOf(50, [
    siteOf("attn-0", 0.4, statisticsWith(50, randomBands(50, 5, random))),
    siteOf("mlp-0", 0.6, statisticsWith(50, randomBands(50, 5, random))),
  ]);

  it.each([1, 0.8, 0.6, 0.5, 0.4, 0.3])("finds a threshold that computes about %d", async (share) => {
    for (const rule of ["paper", "code"]) {
      const { schedule, warnings } = await choose("smoothcache", { share, rule }, input);
      const computed = (0.4 * ones(schedule.cells.get("attn")) + 0.6 * ones(schedule.cells.get("mlp"))) / 50;
      expect(Math.abs(computed - share)).toBeLessThan(0.05);
      expect(schedule.predicted?.["computedShare"]).toBeCloseTo(computed, 12);
      expect(warnings).toEqual([]);
      // The threshold that it reports gives the same rows.
      const again = await choose("smoothcache", { alpha: schedule.predicted?.["alpha"], rule }, input);
      expect(again.schedule.cells).toEqual(schedule.cells);
    }
  });

  it("is half of the compute where nothing is asked for", async () => {
    expect((await choose("smoothcache", {}, input)).schedule.cells).toEqual((await choose("smoothcache", { share: 0.5 }, input)).schedule.cells); // prettier-ignore
  });

  it("takes the nearest and warns where k allows no less", async () => {
    const { schedule, warnings } = await choose("smoothcache", { share: 0.1, k: 3 }, input);
    expect([ones(schedule.cells.get("attn")), ones(schedule.cells.get("mlp"))]).toEqual([14, 14]);
    expect(schedule.predicted?.["computedShare"]).toBeCloseTo(14 / 50, 12);
    expect(warnings.join()).toContain("0.280");
  });
});

describe("bad input", () => {
  const good = randomBands(20, 3, generator(2));
  const damaged = (change: (bands: number[][]) => unknown): PolicyInput => {
    const bands = good.map((row) => [...row]);
    change(bands);
    return single(20, bands);
  };
  const set = (lag: number, step: number, value: number) => (bands: number[][]) => bands[lag - 1]?.splice(step, 1, value);

  it.each([
    ["NaN in use", damaged(set(2, 7, NaN)), { alpha: 0.1 }, "BAD_CURVES"],
    ["an infinite error", damaged(set(1, 19, Infinity)), { alpha: 0.1 }, "BAD_CURVES"],
    ["a negative error", damaged(set(1, 1, -0.1)), { alpha: 0.1 }, "BAD_CURVES"],
    [
      "only zeros",
      single(
        20,
        good.map((row) => row.map(() => 0)),
      ),
      { alpha: 0.1 },
      "BAD_CURVES",
    ],
    ["fewer lags than k", single(20, good), { alpha: 0.1, k: 4 }, "BAD_CURVES"],
    ["short rows", damaged((bands) => bands[0]?.pop()), { alpha: 0.1 }, "BAD_CURVES"],
    ["no curves", single(20), { alpha: 0.1 }, "POLICY_NEEDS_TRACE"],
    ["alpha 0", single(20, good), { alpha: 0 }, "BAD_OPTION"],
    ["alpha that is no number", single(20, good), { alpha: "much" }, "BAD_OPTION"],
    ["an infinite alpha", single(20, good), { alpha: "Infinity" }, "BAD_OPTION"],
    ["share 0", single(20, good), { share: 0 }, "BAD_OPTION"],
    ["share above 1", single(20, good), { share: 1.1 }, "BAD_OPTION"],
    ["alpha and share", single(20, good), { alpha: 0.1, share: 0.5 }, "BAD_OPTION"],
    ["k 0", single(20, good), { alpha: 0.1, k: 0 }, "BAD_OPTION"],
    ["an unknown rule", single(20, good), { alpha: 0.1, rule: "mine" }, "BAD_OPTION"],
    ["an unknown option", single(20, good), { alfa: 0.1 }, "BAD_OPTION"],
  ])("%s is refused", async (_, input, options, code) => {
    expect(await rejectedCodeOf(choose("smoothcache", options, input))).toBe(code);
  });

  it("ignores what stands before a lag's first step, and lags that are not asked for", async () => {
    expect(await rowOf("smoothcache", { alpha: 0.1, k: 2 }, damaged(set(3, 9, NaN)))).toBe(
      await rowOf("smoothcache", { alpha: 0.1, k: 2 }, single(20, good)),
    );
  });

  it("warns of few steps, if anything is reused", async () => {
    expect((await choose("fora", {}, single(9))).warnings).toHaveLength(1);
    expect((await choose("fora", {}, single(10))).warnings).toHaveLength(0);
    expect((await choose("fora", { interval: 1 }, single(9))).warnings).toHaveLength(0);
  });
});

describe("every policy", () => {
  /** Options that a policy needs beside its defaults. */
  const needed: Readonly<Record<string, unknown>> = {
    dpcache: { share: 0.5 },
    "learning-to-cache": { router: "router.pt" },
    lemica: { share: 0.5 },
  };

  it("is one file of the folder, and describes its options", () => {
    const stems = readdirSync(new URL("../schedules/policies/", import.meta.url)).map((file) => file.replace(/\.ts$/, ""));
    expect([...policies.keys()]).toEqual(stems.filter((stem) => stem !== "index").sort());
    for (const { options, summary } of policies.values()) {
      expect(summary).not.toBe("");
      for (const option of Object.values(z.toJSONSchema(options, { io: "input" }).properties ?? {}))
        expect(option).toHaveProperty("description");
    }
  });

  it.each([...policies.keys()])("%s makes plans that bind, for any number of steps", async (name) => {
    for (const steps of [1, 2, 3, 4, 10, 51]) {
      const bands = steps > 1 ? randomBands(steps, Math.min(3, steps - 1), generator(steps)) : [];
      const routers = new Map(Array.from({ length: steps }, (_, step) => [`${step}.prob`, tensorOf("float", [2], [9, 9])]));
      const runs = summingRuns(bands[0]?.map((value) => value || 0) ?? [1]);
      const made = { ...single(steps, bands), runs, readTensors: () => routers };
      const input = name === "budget" ? await toyInput(steps, [0, 1]) : made;
      const { schedule } = await choose(name, needed[name] ?? {}, input);
      const table = samplerTable({ _class_name: "DDIMScheduler", clip_sample: false }, { steps });
      const branches = input.sites.map(({ site, kind, block, stream }) => ({ site, kind, block, stream, gated: true }));
      const row = cellsOf(bind(schedule, runOfBranches(table, branches)), "attn-0");
      expect(row).toHaveLength(steps);
      expect(row[0]?.kind).toBe("compute");
    }
  });
});
