/** Formats of plan files, against what the programs that they come from say and do. */
import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { MAX_ROWS } from "../ir/limits.js";
import { type BranchName, formatNamed, formats, parseSchedule, rowsOf, type Schedule } from "../schedules/index.js";
import { rowText, siteOf } from "./support/policy-input.js";
import { thrownBy } from "./support/thrown.js";

const branches = [0, 1, 2].flatMap((block) => [
  siteOf(`attn-${block}`, 0.1),
  siteOf(`cross_attn-${block}`, 0.1),
  siteOf(`mlp-${block}`, 0.1),
]);
const rowsIn = (json: unknown, among: readonly BranchName[] = branches): Record<string, string> => {
  const schedule = parseSchedule(json, "file.json");
  return Object.fromEntries([...rowsOf(schedule, schedule.steps, among)].map(([site, row]) => [site, rowText(row)]));
};
const scheduleOf = (cells: Readonly<Record<string, string>>): Schedule => {
  const rows = Object.entries(cells).map(([key, row]): [string, (0 | 1)[]] => [key, Array.from(row, (cell) => (cell === "1" ? 1 : 0))]);
  return { steps: rows[0]?.[1].length ?? 0, cells: new Map(rows) };
};
const written = (
  format: string,
  cells: Readonly<Record<string, string>>,
  among: readonly BranchName[] = branches,
): Readonly<Record<string, unknown>> => formatNamed(format).write(scheduleOf(cells), among);

describe("every format", () => {
  it("is one file of the folder", () => {
    const stems = readdirSync(new URL("../schedules/formats/", import.meta.url)).map((file) => file.replace(/\.ts$/, ""));
    expect([...formats.keys()]).toEqual(stems.filter((stem) => stem !== "index").sort());
  });

  it.each([
    ["smoothcc", { attn: "1001", "mlp-1": "1010", "*": "1101" }],
    ["smoothcache", { attn: "1001", "mlp-1": "1010" }],
    ["ditfastattn", { attn: "1010", "attn-2": "1001" }],
    ["cache-dit", { "*": "1001" }],
  ])("%s is read back as it was written, by itself alone", (name, cells) => {
    const json: unknown = JSON.parse(JSON.stringify(written(name, cells)));
    expect([...formats.values()].find((format) => format.recognises(json))?.name).toBe(name);
    const schedule = scheduleOf(cells);
    expect(rowsIn(json)).toEqual(Object.fromEntries([...rowsOf(schedule, 4, branches)].map(([site, row]) => [site, rowText(row)])));
  });
});

describe("smoothcache", () => {
  /** How `SmoothCacheHelper.is_skip_step` finds the row of a module. */
  const found = (rows: Readonly<Record<string, unknown>>, module: string): unknown => {
    const [block = "", component = ""] = module.split(".").slice(-2);
    return rows[`${component}-${block}`] ?? rows[component];
  };

  it("is found by modules of facebook's DiT and of diffusers", () => {
    const rows = written("smoothcache", { attn: "1001", "mlp-1": "1010" });
    expect(found(rows, "blocks.2.attn")).toEqual([1, 0, 0, 1]);
    expect(found(rows, "transformer_blocks.2.attn1")).toEqual([1, 0, 0, 1]);
    expect(found(rows, "transformer_blocks.1.attn2")).toEqual([1, 1, 1, 1]);
    expect(["blocks.0.mlp", "blocks.1.mlp", "transformer_blocks.1.ff"].map((module) => found(rows, module))).toEqual([
      [1, 1, 1, 1],
      [1, 0, 1, 0],
      [1, 0, 1, 0],
    ]);
  });

  it("has a row for a kind where its blocks agree, and for every block where they do not", () => {
    expect(Object.keys(written("smoothcache", { attn: "1001", "mlp-1": "1010" }))).toEqual([
      "attn",
      "attn1",
      "cross_attn",
      "attn2",
      ...[0, 1, 2].map((block) => `mlp-${block}`),
      ...[0, 1, 2].map((block) => `ff-${block}`),
    ]);
  });

  it("cannot tell streams from one another", () => {
    const streams = ["spatial", "temporal"].map((stream) => ({
      ...siteOf("attn-0", 0.5),
      site: `${stream}_attn-0`,
      name: `${stream}_attn-0`,
      stream,
    }));
    expect(written("smoothcache", { attn: "1010" }, streams)).toEqual({ attn: [1, 0, 1, 0], attn1: [1, 0, 1, 0] });
    expect(() => written("smoothcache", { spatial_attn: "1010" }, streams)).toThrow("'spatial_attn-0' and 'temporal_attn-0', which differ");
  });

  it("has no kind for what it does not wrap, and holds no adjustments", () => {
    expect(() =>
      written("smoothcache", { "*": "10" }, [{ ...siteOf("attn-0", 1), site: "single-0", name: "single-0", kind: "single" }]),
    ).toThrow("'single'");
    const adjustments = new Map([["attn", new Map([[1, { shift: Float32Array.of(1) }]])]]);
    expect(() => formatNamed("smoothcache").write({ ...scheduleOf({ attn: "10" }), adjustments }, branches)).toThrow("scales or shifts");
  });
});

describe("ditfastattn", () => {
  it("shares the latest output that was computed", () => {
    const methods = { step0: "FULL_ATTN", step1: "OUTPUT_SHARE", step2: "FULL_ATTN" };
    const full = { step0: "FULL_ATTN", step1: "FULL_ATTN", step2: "FULL_ATTN" };
    expect(rowsIn({ block0: full, block1: methods })).toMatchObject({ "attn-0": "111", "attn-1": "101", "attn-2": "111", "mlp-1": "111" });
  });

  it("writes blocks and steps in their order: xDiT reads by position", () => {
    const json = written("ditfastattn", { "attn-1": "10" });
    expect(Object.entries(json).map(([block, methods]) => [block, Object.entries(methods ?? {})])).toEqual([
      [
        "block0",
        [
          ["step0", "FULL_ATTN"],
          ["step1", "FULL_ATTN"],
        ],
      ],
      [
        "block1",
        [
          ["step0", "FULL_ATTN"],
          ["step1", "OUTPUT_SHARE"],
        ],
      ],
      [
        "block2",
        [
          ["step0", "FULL_ATTN"],
          ["step1", "FULL_ATTN"],
        ],
      ],
    ]);
  });

  it.each(["RESIDUAL_WINDOW_ATTN", "RESIDUAL_WINDOW_ATTN_CFG_SHARE", "FULL_ATTN_CFG_SHARE"])("refuses %s", (method) => {
    expect(() => rowsIn({ block0: { step0: method } })).toThrow(`block0 is to use ${method} at step0`);
  });
});

describe("cache-dit", () => {
  // The comment on its preset `slow` (28 steps; the last step is then computed): 11111111 0 111 00 111 00 11 00 1 000 1.
  const slow = { compute_bins: [8, 3, 3, 2, 1, 1], cache_bins: [1, 2, 2, 2, 3] };
  const mask = "1111111101110011100110010001";

  it("reads bins as steps_mask does", () => {
    expect(new Set(Object.values(rowsIn(slow)))).toEqual(new Set([mask]));
    expect(rowsIn({ ...slow, total_steps: 12 })["mlp-2"]).toBe(mask.slice(0, 12));
    expect(rowsIn({ compute_bins: [2], cache_bins: [1, 2] })["mlp-2"]).toBe("11000");
  });

  it("reads masks, alone and in a configuration with other settings", () => {
    const list = Array.from(mask, Number);
    for (const json of [list, { steps_computation_mask: list }, { cache_config: { steps_computation_mask: list, Fn_compute_blocks: 1 } }])
      expect(rowsIn(json)["attn-0"]).toBe(mask);
  });

  it.each([
    ["one bin of 2³² steps", { compute_bins: [2 ** 32], cache_bins: [] }],
    ["bins that are long together", { compute_bins: new Array(5).fill(MAX_ROWS), cache_bins: [1] }],
    ["many bins", { compute_bins: new Array(MAX_ROWS + 1).fill(1), cache_bins: [] }],
    ["a long mask", new Array(MAX_ROWS + 1).fill(1)],
  ])("refuses %s", (_, json) => {
    expect(thrownBy(() => parseSchedule(json, "file.json"))?.code).toMatch(/^BAD_(PLAN|JSON_FIELD)$/);
  });

  it("refuses the name of a preset, whose steps only cache-dit knows", () => {
    expect(() => rowsIn({ cache_config: { steps_computation_mask: "fast" } })).toThrow("expected array");
  });
});

describe("settings of other methods", () => {
  // The keys of diffusers' and cache-dit's configurations, and of the authors' own code.
  it.each([
    ["TaylorSeer", { cache_interval: 5, disable_cache_before_step: 3, disable_cache_after_step: null, max_order: 1 }],
    ["TaylorSeer", { fresh_threshold: 6, max_order: 2, first_enhance: 3 }],
    ["TaylorSeer", { calibrator_config: { taylorseer_order: 1 } }],
    ["TeaCache", { coefficients: [1, 0, 1, 1] }],
    ["TeaCache", { rel_l1_thresh: 0.4, num_steps: 28, coefficients: [498.65, -283.78, 55.86, -3.82, 0.26] }],
    ["MagCache", { mag_ratios: [1, 1, 1, 1] }],
    ["DBCache", { cache_config: { Fn_compute_blocks: 8, Bn_compute_blocks: 0, residual_diff_threshold: 0.08 } }],
    ["Pyramid Attention Broadcast", { spatial_attention_block_skip_range: 2, spatial_attention_timestep_skip_range: [100, 800] }],
    ["FORA", { cache_interval: 3 }],
  ])("of %s are refused by its name: %j", (name, json) => {
    const problem = thrownBy(() => parseSchedule(json, "file.json"));
    expect(problem).toMatchObject({ code: "BAD_PLAN" });
    expect(problem?.message).toContain(`settings of ${name}`);
    expect(problem?.hint).toContain("smoothcc plan");
  });

  it("are in no plan, whatever its branches are called", () => {
    for (const json of [{ attn: [1, 0] }, { "image_attn1-3@cond": [1, 0] }, { fc: [1, 0] }])
      expect(parseSchedule(json, "file.json").steps).toBe(2);
    expect(thrownBy(() => parseSchedule({ attn: [1, 0], alpha: 0.1 }, "file.json"))?.message).toContain("none of the known forms");
  });
});
