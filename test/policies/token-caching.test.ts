/** Token Caching against its rules, written a second time along values that are made up, and through an artifact. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { SiteTokens } from "../../ir/site-tokens.js";
import { tensorOf } from "../../ir/tensor.js";
import {
  clusters,
  bind,
  computedShare,
  isPartial,
  isPartialCell,
  type PolicyInput,
  type PolicySite,
  type Runs,
  type Schedule,
} from "../../schedules/index.js";
import { spreadTokens } from "../../schedules/planning/fit-tokens.js";
import { openArtifact, writeArtifact } from "../../src/artifact/artifact.js";
import { verify } from "../../src/artifact/verify.js";
import { calibrate } from "../../src/calibration/calibrate.js";
import { compileModel } from "../../src/compile/compile.js";
import { planFor } from "../../src/job/job.js";
import { choosePlan } from "../../src/planning/choose.js";
import { planningForJob } from "../../src/planning/planning.js";
import { runsOf } from "../../src/planning/runs.js";
import { fixtures } from "../support/fixtures.js";
import { openFixture } from "../support/jobs.js";
import { choose, generator, inputOf, rowText, runsWith, siteOf, statisticsOfValues } from "../support/policy-input.js";
import { rejectedCodeOf } from "../support/thrown.js";

const STEPS = 12;
const CHANNELS = 3;
const ROWS = 2;

function tokens(count: number, more: Partial<SiteTokens> = {}): SiteTokens {
  return { count, share: 1, move: 0, ...more };
}

function withTokens(site: string, share: number, of: SiteTokens | undefined): PolicySite {
  return { ...siteOf(site, share), tokens: of };
}

/** Random values [sample][step] of one branch: those of a token wander by their own amount. */
function wandering(count: number, amounts: readonly number[], samples = 2): readonly (readonly (readonly number[])[])[] {
  const random = generator(5);
  return Array.from({ length: samples }, () => {
    let value = Array.from({ length: ROWS * count * CHANNELS }, () => random() - 0.5);
    return Array.from({ length: STEPS }, () => {
      const common = Array.from({ length: CHANNELS }, () => random() - 0.5);
      value = value.map((x, i) => x + (amounts[Math.floor(i / CHANNELS) % count] ?? 0) * (random() - 0.5 + (common[i % CHANNELS] ?? 0)));
      return value.map(Math.fround);
    });
  });
}

function runsOver(values: ReturnType<typeof wandering>, count: number): Runs {
  return runsWith({
    samples: values.map((_, sample) => sample),
    run(sample, _, observe) {
      for (const [step, value] of (values[sample] ?? []).entries())
        observe?.(step, new Map([["mlp-0", tensorOf("float", [ROWS, count, CHANNELS], value)]]));
      return Promise.resolve(new Float32Array());
    },
  });
}

/** One block of which nothing is excluded. */
const oneSite = (count: number): PolicyInput => inputOf(STEPS, [withTokens("mlp-0", 1, tokens(count))]);

/** The tokens that each step computes, once the schedule is bound. */
function freshOf(schedule: Schedule, input: PolicyInput, site: string): readonly (readonly number[] | undefined)[] {
  const of = { structure: "test", sampler: { name: "none", digest: "" }, guidance: { form: "none", scale: 1 } };
  const called = Array.from({ length: input.steps }, () => ["cond", "uncond"] as const);
  const { cells } = bind({ ...schedule, of: undefined }, { of, caches: input.sites, called });
  return (cells.get({ site, half: "cond" }) ?? []).map((cell) => (isPartial(cell) ? cell.fresh.tokens : undefined));
}

const onlyFull = (schedule: Schedule, key: string): string =>
  (schedule.cells.get(key) ?? []).map((cell) => (cell === 1 ? "1" : "p")).join("");

describe("full steps", () => {
  it.each([
    ["3,3", 0.5, "1pp1pp1pp1p1"],
    ["4,2", 0.5, "1ppp1p1p1p11"],
    ["2,5", 0.5, "1p1p1pppp1p1"],
    ["4,4", 0, "1ppp1ppp1pp1"],
    ["1,12", 0.25, "111pppppppp1"],
  ])("come at intervals of their phase: %s from %d on", async (intervals, split, wanted) => {
    const { schedule } = await choose("token-caching", { intervals, split, last: 0 }, oneSite(8));
    expect(onlyFull(schedule, "mlp-0")).toBe(wanted);
  });

  it("begin anew at the border of two networks", async () => {
    const { schedule } = await choose("token-caching", { last: 0 }, { ...oneSite(8), borders: [6] });
    expect(onlyFull(schedule, "mlp-0")).toBe("1ppp1p1p1pp1");
  });
});

describe("branches", () => {
  it("of the last blocks are computed, of whatever stream they are", async () => {
    const sites = ["attn-0", "mlp-0", "attn-1", "mlp-1", "attn-0", "mlp-0"].map((name, i) => {
      const site = withTokens(name, 1 / 6, tokens(8));
      return i < 4 ? site : { ...site, site: `late_${name}`, name: `late_${name}`, stream: "late" };
    });
    const keysWith = async (last: number): Promise<readonly string[]> => [
      ...(await choose("token-caching", { last }, inputOf(STEPS, sites))).schedule.cells.keys(),
    ];
    expect(await keysWith(0)).toHaveLength(6);
    expect(await keysWith(1)).toEqual(["attn-0", "mlp-0", "attn-1", "mlp-1"]);
    expect(await keysWith(2)).toEqual(["attn-0", "mlp-0"]);
    expect(await keysWith(9)).toEqual([]);
  });

  it("whose tokens cannot be computed apart are cached whole, and named", async () => {
    const sites = [
      withTokens("attn-0", 0.25, undefined),
      withTokens("attn-1", 0.25, tokens(1)),
      withTokens("attn-2", 0.25, tokens(8, { mixer: "Conv 'c'" })),
      withTokens("mlp-2", 0.25, tokens(8)),
    ];
    const { schedule, warnings } = await choose("token-caching", { last: 0, kv: "cached" }, inputOf(STEPS, sites));
    for (const key of ["attn-0", "attn-1", "attn-2"]) expect(rowText(schedule.cells.get(key))).toBe("100010001001");
    expect(schedule.cells.get("mlp-2")?.[1]).toEqual({ tokens: 0.25, by: "stagger" });
    expect(warnings.join("\n")).toMatch(/known[^\n]*: attn-0, attn-1\.\n.*Conv 'c'\): attn-2\./);
  });

  it("have their tokens chosen in the run where these can be", async () => {
    const choices = [{}, { mixer: "Conv 'c'" }, undefined];
    const sites = choices.map((choice, i) => withTokens(`mlp-${i}`, 1 / 3, tokens(8, { choice })));
    const { schedule, warnings } = await choose("token-caching", { last: 0, by: "change" }, inputOf(STEPS, sites));
    const found = sites.map(({ name }) => schedule.cells.get(name)?.[1]);
    expect(found).toEqual(["change", "stagger", "stagger"].map((by) => ({ tokens: 0.25, by })));
    expect(warnings).toEqual(["Tokens are computed in turn where they cannot be chosen in the run: mlp-1, mlp-2."]);
    expect(await rejectedCodeOf(choose("token-caching", { by: "change", move: "fitted" }, inputOf(STEPS, sites)))).toBe("BAD_OPTION");
  });

  it("keep keys and values where these are found", async () => {
    const sites = [withTokens("attn-0", 0.5, tokens(8, { share: 0.5, shareWithKeys: 1 })), withTokens("attn-1", 0.5, tokens(8))];
    const { schedule, warnings } = await choose("token-caching", { last: 0, kv: "cached" }, inputOf(STEPS, sites));
    expect(schedule.cells.get("attn-0")?.[1]).toEqual({ tokens: 0.25, by: "stagger", kv: "cached" });
    expect(schedule.cells.get("attn-1")?.[1]).toEqual({ tokens: 0.25, by: "stagger" });
    expect(warnings).toEqual([expect.stringContaining("Keys and values are computed of all tokens")]);
  });
});

describe("tokens", () => {
  it.each([
    [10, 0.25],
    [7, 0.5],
    [64, 0.2],
    [9, 0.1],
  ])("in turn are computed at least every R steps: %d, %d of them a time", async (count, ratio) => {
    const input = inputOf(40, [withTokens("mlp-0", 1, tokens(count))]);
    const { schedule } = await choose("token-caching", { ratio, intervals: "9,13", last: 0 }, input);
    const rows = freshOf(schedule, input, "mlp-0");
    const wait = Math.ceil(count / Math.max(1, Math.round(ratio * count)));
    for (let token = 0; token < count; token++) {
      let since = 0;
      for (const fresh of rows) {
        since = fresh === undefined || fresh.includes(token) ? 0 : since + 1;
        expect(since).toBeLessThanOrEqual(wait);
      }
    }
    expect(rows.filter((fresh) => fresh !== undefined).length).toBeGreaterThan(30);
  });

  it("by a mask are those that have missed most by then, given those that were computed before", async () => {
    const amounts = [0.1, 0.5, 1, 0.2, 0.9, 0.4, 0.8, 0.3];
    const values = wandering(8, amounts);
    const input = { ...oneSite(8), runs: runsOver(values, 8) };
    const { schedule } = await choose("token-caching", { by: "mask", ratios: "even", spread: 0, last: 0 }, input);
    // A second writing: what a token has is what it was when it was last computed.
    const since = new Array<number>(8).fill(0);
    for (const [step, fresh] of freshOf(schedule, input, "mlp-0").entries()) {
      if (!fresh) {
        since.fill(step);
        continue;
      }
      const miss = since.map((from, token) => {
        let sum = 0;
        for (const sample of values)
          for (const [i, value] of (sample[step] ?? []).entries())
            if (Math.floor(i / CHANNELS) % 8 === token) sum += (value - (sample[from]?.[i] ?? NaN)) ** 2;
        return sum;
      });
      const largest = [...miss.keys()].sort((a, b) => (miss[b] ?? NaN) - (miss[a] ?? NaN)).slice(0, 2);
      expect(fresh).toEqual(largest.sort((a, b) => a - b));
      for (const token of fresh) since[token] = step;
    }
  });

  it("are spread by the misses of neighbours", () => {
    expect(spreadTokens([1, 2, 9, 8, 3, 5], 3, 0)).toEqual([2, 3, 5]);
    expect(spreadTokens([1, 2, 9, 8, 3, 5], 3, 0.5)).toEqual([2, 3, 5]);
    expect(spreadTokens([1, 2, 9, 8, 3, 5], 3, 0.9)).toEqual([0, 2, 5]);
    expect(spreadTokens([1, 2, 9, 8, 3, 5], 4, 0.9)).toEqual([0, 2, 3, 5]);
    expect(spreadTokens([0, 0, 0, 0], 4, 1)).toEqual([0, 1, 2, 3]);
  });
});

describe("clusters", () => {
  it("are rectangles of a picture, as square as their number allows, and runs of a sequence", () => {
    expect(clusters(4, { count: 16, columns: 4 })).toEqual([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]); // prettier-ignore
    expect(clusters(2, { count: 8, columns: 4 })).toEqual([[0, 1, 4, 5], [2, 3, 6, 7]]); // prettier-ignore
    expect(clusters(4, { count: 8 })).toEqual([[0, 1], [2, 3], [4, 5], [6, 7]]); // prettier-ignore
    // No rectangles: 11 is no product, and 11 columns are not there.
    expect(clusters(11, { count: 16, columns: 4 }).map(({ length }) => length)).toEqual([1, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]);
  });

  it("hold each token once", () => {
    for (const [count, columns] of [
      [16, 4],
      [64, 8],
      [24, 6],
      [24, undefined],
      [35, 7],
    ] as const)
      // prettier-ignore
      for (let size = 1; size <= count; size++) {
        const all = clusters(size, { count, columns });
        expect(all).toHaveLength(size);
        expect(all.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, token) => token));
      }
  });

  it("have neighbours in two directions, which masks leave out", () => {
    // The one below the largest counts half, that beside it too; in a sequence only the latter.
    expect(spreadTokens([9, 5, 1, 6, 1, 1, 1, 4, 1], 2, 0.5, 3)).toEqual([0, 7]);
    expect(spreadTokens([9, 5, 1, 6, 1, 1, 1, 4, 1], 2, 0.5)).toEqual([0, 3]);
  });
});

describe("moves", () => {
  it("are the regression of the others' surprise on that of the computed ones, along what earlier cells made", async () => {
    const count = 6;
    const values = wandering(count, [1, 0.9, 1.1, 0.7, 1, 0.8]);
    const input = { ...oneSite(count), runs: runsOver(values, count) };
    const { schedule } = await choose("token-caching", { move: "fitted", ratios: "even", ratio: 0.34, last: 0 }, input);
    const rows = freshOf(schedule, input, "mlp-0");
    let held: number[][] = values.map(() => []);
    for (const [step, fresh] of rows.entries()) {
      const now = values.map((sample) => [...(sample[step] ?? [])]);
      if (!fresh) {
        held = now;
        continue;
      }
      const [p = NaN, q = NaN] = fresh;
      /** Σ over samples, rows and channels of the surprises of two tokens. */
      const dot = (a: number, b: number): number => {
        let sum = 0;
        for (const [sample, own] of now.entries())
          for (let row = 0; row < ROWS; row++)
            for (let c = 0; c < CHANNELS; c++) {
              const at = (token: number): number => (row * count + token) * CHANNELS + c;
              const surprise = (token: number): number => (own[at(token)] ?? NaN) - (held[sample]?.[at(token)] ?? NaN);
              sum += surprise(a) * surprise(b);
            }
        return sum;
      };
      const ridge = (0.01 * (dot(p, p) + dot(q, q))) / 2;
      const [a, b, d] = [dot(p, p) + ridge, dot(p, q), dot(q, q) + ridge];
      const weights = Array.from({ length: count }, (_, n) =>
        [d * dot(p, n) - b * dot(q, n), a * dot(q, n) - b * dot(p, n)].map((sum) => sum / (a * d - b * b)),
      );
      const move = schedule.adjustments?.get("mlp-0")?.get(step)?.move ?? new Float32Array();
      for (const [n, pair] of weights.entries()) for (const [i, weight] of pair.entries()) expect(move[2 * n + i]).toBeCloseTo(weight, 4);
      held = now.map((own, sample) =>
        own.map((value, i) => {
          const token = Math.floor(i / CHANNELS) % count;
          const before = held[sample] ?? [];
          const surpriseOf = (from: number): number => {
            const at = i + (from - token) * CHANNELS;
            return (own[at] ?? NaN) - (before[at] ?? NaN);
          };
          if (fresh.includes(token)) return value;
          return (before[i] ?? NaN) + fresh.reduce((sum, from, place) => sum + (weights[token]?.[place] ?? NaN) * surpriseOf(from), 0);
        }),
      );
    }
    expect(rows.filter((fresh) => fresh).length).toBe(8);
  });

  it("are equal in a cluster, and none beyond it", async () => {
    const input = oneSite(8);
    const { schedule } = await choose("token-caching", { by: "cluster", propagate: 0.4, last: 0 }, input);
    const { tokens: chosen, move } = schedule.adjustments?.get("mlp-0")?.get(2) ?? {};
    expect(chosen).toEqual(freshOf(schedule, input, "mlp-0")[2]);
    expect(Array.from(move ?? [])).toEqual(
      [0, 1, 2, 3, 4, 5, 6, 7].flatMap((n) => (n < 4 ? [Math.fround(0.4), 0] : [0, Math.fround(0.4)])),
    );
    expect(schedule.cells.get("mlp-0")?.[2]).toEqual({ tokens: 0.25, by: "mask", move: true });
    const unmoved = await choose("token-caching", { by: "cluster", last: 0 }, input);
    expect(freshOf(unmoved.schedule, input, "mlp-0")).toEqual(freshOf(schedule, input, "mlp-0"));
    expect(await rejectedCodeOf(choose("token-caching", { by: "stagger", propagate: 0.4 }, input))).toBe("BAD_OPTION");
  });
});

describe("series", () => {
  it("go on from the latest value, as the polynomial through full steps does from there", async () => {
    const { schedule } = await choose("token-caching", { order: 1, intervals: "4,4", last: 0 }, oneSite(8));
    const row = schedule.cells.get("mlp-0") ?? [];
    // Before there are two full steps there is no slope.
    expect(row[2]).toEqual({ tokens: 0.25, by: "stagger" });
    expect(row[5]).toEqual({ tokens: 0.25, by: "stagger", terms: [[4, 1.25], [0, -0.25]] }); // prettier-ignore
    expect(row[6]).toEqual({ tokens: 0.25, by: "stagger", terms: [[5, 1], [4, 0.25], [0, -0.25]] }); // prettier-ignore
  });
});

describe("budgets", () => {
  it("are shared out by what branches miss, for the same compute", async () => {
    const random = generator(3);
    const measured = (amount: number): readonly (readonly (readonly number[])[])[] => {
      let value = Array.from({ length: 20 }, () => random());
      return [Array.from({ length: STEPS }, () => (value = value.map((x) => x + amount * (random() - 0.5))))];
    };
    const sites = [0.05, 0.1, 0.2, 2].map((amount, i) => ({
      ...withTokens(`mlp-${i}`, [0.1, 0.2, 0.3, 0.4][i] ?? NaN, tokens(1000, { share: 0.5 + i / 10 })),
      statistics: statisticsOfValues(measured(amount), STEPS),
    }));
    const input = inputOf(STEPS, sites);
    const made = async (ratios: string): Promise<{ readonly share: number; readonly ratio: readonly number[] }> => {
      const { schedule } = await choose("token-caching", { ratios, ratio: 0.3, last: 0 }, input);
      const ratio = sites.map(({ name }) => schedule.cells.get(name)?.[1]).flatMap((cell) => (isPartialCell(cell) ? [cell.tokens] : []));
      return { share: computedShare(input, schedule.cells), ratio };
    };
    const [even, shared] = [await made("even"), await made("measured")];
    expect(even.ratio).toEqual([0.3, 0.3, 0.3, 0.3]);
    expect(shared.ratio).toEqual([...shared.ratio].sort((a, b) => a - b));
    expect((shared.ratio[1] ?? NaN) / (shared.ratio[0] ?? NaN)).toBeGreaterThan(1.3);
    expect(Math.abs(shared.share - even.share)).toBeLessThan(1e-3);
  });

  it("need a trace where they are measured, and runs where something is fitted to these", async () => {
    const codeOf = (options: object): Promise<string | undefined> => rejectedCodeOf(choose("token-caching", options, oneSite(8)));
    expect(await codeOf({ ratios: "measured" })).toBe("POLICY_NEEDS_TRACE");
    expect(await codeOf({ by: "mask" })).toBe("POLICY_NEEDS_TRACE");
    expect(await codeOf({ by: "mask", ratios: "even" })).toBe("POLICY_NEEDS_MODEL");
    expect(await codeOf({ by: "cluster", move: "fitted", ratios: "even" })).toBe("POLICY_NEEDS_MODEL");
  });
});

describe("an artifact", () => {
  it.each([[{ by: "mask", move: "fitted", kv: "cached" }], [{ by: "change" }], [{ by: "cluster", propagate: "0.5", order: "1" }]])(
    "of its plan verifies: %j",
    async (given) => {
      const fixture = fixtures.find(({ name }) => name === "dit/dynamo-20");
      if (!fixture) throw new Error("no fixture");
      const folder = mkdtempSync(join(tmpdir(), "smoothcc-token-caching-"));
      const job = await openFixture(fixture, "batched", { steps: 8 });
      const runtime = { threads: 1 };
      const trace = await calibrate(job, { ...runtime, samples: 1 });
      const runs = runsOf(job, { ...runtime, samples: trace.samples });
      try {
        const options = { ...given, intervals: "3,4" };
        const { schedule, warnings } = await choosePlan({ ...planningForJob(job, trace), runs }, "token-caching", options);
        expect(warnings).toEqual([expect.stringContaining("8 steps")]);
        const compiled = await compileModel(job, planFor(job, schedule));
        expect(compiled.macs.bound).toBeGreaterThan(1.2);
        const target = join(folder, "artifact");
        await writeArtifact(target, { job, schedule, compiled }, false);
        const { checks } = await verify(await openArtifact(target, runtime), { ...runtime, seed: 3, samples: 1 });
        expect(checks.map(({ ok }) => ok)).not.toContain(false);
      } finally {
        await runs.close();
        rmSync(folder, { recursive: true, force: true });
      }
    },
  );
});
