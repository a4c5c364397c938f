/** Plans: the JSON forms, which key speaks of which branch, and what `bind` lets through. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Branch, BranchKind } from "../ir/dit.js";
import { type TensorData, tensorOf } from "../ir/tensor.js";
import { bind, type Cell, parseSchedule, type Plan, samplerTable, savesNothing, scheduleJson } from "../schedules/index.js";
import { thrownBy } from "./support/thrown.js";
import { runOfBranches } from "./support/runs.js";

const table = (steps: number) => samplerTable({ _class_name: "DDIMScheduler", clip_sample: false }, { steps });

function branch(site: string, kind: BranchKind, block: number, stream = "image"): Branch {
  return { site, kind, block, stream, gated: true };
}

/** Two blocks with attention and feed-forward network. */
const dit = [0, 1].flatMap((block) => [branch(`attn-${block}`, "attn", block), branch(`mlp-${block}`, "mlp", block)]);
/** Open-Sora's: spatial and temporal blocks in turn. */
const video = ["spatial", "temporal"].flatMap((stream) =>
  [0, 1].flatMap((block) =>
    (["attn", "cross_attn", "mlp"] as const).map((kind) => branch(`${stream}_${kind}-${block}`, kind, block, stream)),
  ),
);

const plan = (json: unknown, branches: readonly Branch[] = dit, steps = 4): Plan =>
  bind(parseSchedule(json, "plan.json"), runOfBranches(table(steps), branches));

/** A row as text: `1` computes, a digit list names the steps that are read. */
function text(cells: readonly Cell[] | undefined): string {
  return (cells ?? [])
    .map((cell) => (cell.kind !== "terms" ? { compute: "1", idle: "-" }[cell.kind] : `<${cell.terms.map(({ step }) => step).join()}`))
    .join(" ");
}

describe("cells", () => {
  it("computes, reuses the latest computed value, and weighs earlier ones", () => {
    const { cells } = plan({
      attn: [1, 0, 1, 0],
      mlp: [
        1,
        1,
        [
          [1, 2],
          [0, -1],
        ],
        [[1, 1]],
      ],
    });
    expect(text(cells.named().get("attn-0"))).toBe("1 <0 1 <2");
    expect(cells.named().get("mlp-1")).toEqual([
      { kind: "compute" },
      { kind: "compute" },
      {
        kind: "terms",
        terms: [
          { step: 1, weight: 2 },
          { step: 0, weight: -1 },
        ],
      },
      { kind: "terms", terms: [{ step: 1, weight: 1 }] },
    ]);
  });

  it("has a row for every branch, in their order; a key left out computes always", () => {
    const { cells } = plan({ attn: [1, 0, 0, 1] });
    expect([...cells].map(([{ site }]) => site)).toEqual(dit.map(({ site }) => site));
    expect(text(cells.named().get("mlp-0"))).toBe("1 1 1 1");
  });

  it("carries what it is of", () => {
    const run = runOfBranches(table(2), dit);
    expect(bind(parseSchedule({ attn: [1, 0] }, "p"), run).of).toBe(run.of);
  });
});

describe("keys", () => {
  it("prefers block to kind", () => {
    const { cells } = plan({ attn: [1, 0, 0, 0], "attn-1": [1, 1, 0, 1] });
    expect(text(cells.named().get("attn-0"))).toBe("1 <0 <0 <0");
    expect(text(cells.named().get("attn-1"))).toBe("1 1 <1 1");
  });

  it("prefers site to block to stream to kind", () => {
    const { cells } = plan(
      { "temporal_attn-1": [1, 0, 0, 1], "attn-1": [1, 0, 1, 0], temporal_attn: [1, 1, 0, 0], attn: [1, 0, 0, 0] },
      video,
    );
    expect(text(cells.named().get("temporal_attn-1"))).toBe("1 <0 <0 1");
    expect(text(cells.named().get("spatial_attn-1"))).toBe("1 <0 1 <2");
    expect(text(cells.named().get("temporal_attn-0"))).toBe("1 1 <1 <1");
    expect(text(cells.named().get("spatial_attn-0"))).toBe("1 <0 <0 <0");
    expect(text(cells.named().get("spatial_cross_attn-0"))).toBe("1 1 1 1");
  });

  it("knows the module names in SmoothCache's files", () => {
    const { cells } = plan({ attn1: [1, 0, 0, 0], "attn2-1": [1, 0, 1, 1], ff: [1, 1, 0, 1] }, video);
    expect(text(cells.named().get("spatial_attn-1"))).toBe("1 <0 <0 <0");
    expect(text(cells.named().get("temporal_cross_attn-1"))).toBe("1 <0 1 1");
    expect(text(cells.named().get("spatial_cross_attn-0"))).toBe("1 1 1 1");
    expect(text(cells.named().get("temporal_mlp-0"))).toBe("1 1 <1 1");
  });
});

describe("adjustments", () => {
  const wide = dit.map((one) => ({ ...one, channels: 2 }));
  const cells = { attn: [1, 0, [[0, 2]], 0], "mlp-0": [1, 0, 1, 1] };
  const withArrays = (arrays: Readonly<Record<string, TensorData>>, branches: readonly Branch[] = wide): Plan => {
    const json = { format: "smoothcc-plan/1", steps: 4, cells, tensors: "plan.npz" };
    return bind(
      parseSchedule(json, "plan.json", () => new Map(Object.entries(arrays))),
      runOfBranches(table(4), branches),
    );
  };
  const vector = (...values: number[]): TensorData => tensorOf("float", [values.length], values);

  it("scale and shift what is cached, the most specific key alone", () => {
    const found = withArrays({
      "attn/1/scale": vector(2, 3),
      "attn/2/scale": tensorOf("double", [2], [4, 5]),
      "attn/2/shift": tensorOf("float16", [2], [6, 7]),
      "attn-1/3/shift": vector(8, 9),
    }).cells;
    const scale = (...values: number[]) => ({ scale: Float32Array.from(values) });
    const shift = (...values: number[]) => ({ shift: Float32Array.from(values) });
    const read = (weight: number) => ({ kind: "terms", terms: [{ step: 0, weight }] });
    const compute = { kind: "compute" };
    expect(found.named().get("attn-0")).toEqual([
      compute,
      { ...read(1), ...scale(2, 3) },
      { ...read(2), ...scale(4, 5), ...shift(6, 7) },
      read(1),
    ]);
    expect(found.named().get("attn-1")).toEqual([compute, read(1), read(2), { ...read(1), ...shift(8, 9) }]);
    expect(found.named().get("mlp-0")).toEqual([compute, read(1), compute, compute]);
  });

  it.each([
    ["of a step that computes", { "mlp-0/2/scale": vector(1, 1) }, "BAD_ADJUSTMENT"],
    ["of a branch that computes always", { "mlp-1/1/scale": vector(1, 1) }, "BAD_ADJUSTMENT"],
    ["of a kind, one branch of which computes", { "mlp/1/shift": vector(1, 1) }, "BAD_ADJUSTMENT"],
    ["of a step that is not there", { "attn/4/scale": vector(1, 1) }, "BAD_ADJUSTMENT"],
    ["with too few numbers", { "attn/1/scale": vector(1) }, "BAD_ADJUSTMENT"],
    ["with too many numbers", { "attn/1/shift": vector(1, 1, 1) }, "BAD_ADJUSTMENT"],
    ["with no numbers", { "attn/1/shift": vector() }, "BAD_ADJUSTMENT"],
    ["with NaN", { "attn/1/scale": vector(1, NaN) }, "BAD_ADJUSTMENT"],
    ["with Infinity", { "attn/1/shift": vector(-Infinity, 1) }, "BAD_ADJUSTMENT"],
    ["beyond float32", { "attn/1/shift": tensorOf("double", [2], [1e39, 1]) }, "BAD_ADJUSTMENT"],
    ["of no branch", { "atn/1/scale": vector(1, 1) }, "UNKNOWN_NAME"],
    ["by another name", { "attn/1/bias": vector(1, 1) }, "BAD_PLAN"],
    ["without a key", { "/1/scale": vector(1, 1) }, "BAD_PLAN"],
    ["without a step", { "attn/scale": vector(1, 1) }, "BAD_PLAN"],
    ["of half a step", { "attn/1.5/scale": vector(1, 1) }, "BAD_PLAN"],
    ["of a step with a leading 0", { "attn/01/scale": vector(1, 1) }, "BAD_PLAN"],
    ["as a matrix", { "attn/1/scale": tensorOf("float", [1, 2], [1, 1]) }, "BAD_PLAN"],
    ["as one number", { "attn/1/scale": tensorOf("float", [], [1]) }, "BAD_PLAN"],
  ])("are refused %s", (_, arrays, code) => {
    const error = thrownBy(() => withArrays(arrays));
    expect(error?.code).toBe(code);
    expect(error?.exitCode).toBe(2);
  });

  it("are refused without the file that holds them", () => {
    expect(thrownBy(() => plan({ format: "smoothcc-plan/1", steps: 4, cells, tensors: "a.npz" }))?.message).toContain("a.npz");
  });
});

describe("what is refused", () => {
  const ok = [1, 0, 0, 1];
  it.each([
    ["a key that speaks of no branch", { attn: ok, "mlp-2": ok }, "UNKNOWN_NAME"],
    ["a kind that this network lacks", { cross_attn: ok }, "UNKNOWN_NAME"],
    ["a row that is too short for the run", { attn: [1, 0, 1] }, "PLAN_LENGTH"],
    ["rows of different lengths", { attn: ok, mlp: [1, 0, 1] }, "PLAN_LENGTH"],
    ["a format with another number of steps", { format: "smoothcc-plan/1", steps: 3, cells: { attn: ok } }, "PLAN_LENGTH"],
    ["a first step that reuses", { attn: [0, 1, 1, 1] }, "PLAN_FIRST_STEP"],
    ["a first step of terms", { attn: [[[0, 1]], 1, 1, 1] }, "PLAN_FIRST_STEP"],
    ["a term from the future", { attn: [1, [[2, 1]], 1, 1] }, "BAD_TERM"],
    ["a term from its own step", { attn: [1, [[1, 1]], 1, 1] }, "BAD_TERM"],
    ["a term from a step that is not there", { attn: [1, [[-1, 1]], 1, 1] }, "BAD_TERM"],
    ["a term from half a step", { attn: [1, 1, [[0.5, 1]], 1] }, "BAD_TERM"],
    ["a term from a step that does not compute", { attn: [1, 0, [[1, 1]], 1] }, "BAD_TERM"],
    [
      "one bad term among good ones",
      {
        attn: [
          1,
          0,
          1,
          [
            [2, 1],
            [1, 1],
          ],
        ],
      },
      "BAD_TERM",
    ],
    ["a weight that leaves nothing of a float", { attn: [1, [[0, 1e308]], 1, 1] }, "BAD_CELL"],
    ["a weight that is not finite", { attn: [1, [[0, Infinity]], 1, 1] }, "BAD_CELL"],
    ["no terms", { attn: [1, [], 1, 1] }, "BAD_CELL"],
    ["the cell 2", { attn: [1, 2, 1, 1] }, "BAD_CELL"],
    ["the cell -1", { attn: [1, -1, 1, 1] }, "BAD_CELL"],
    ["a cell of text", { attn: [1, "0", 1, 1] }, "BAD_CELL"],
    ["a cell that is missing", { attn: [1, null, 1, 1] }, "BAD_CELL"],
    ["a cell that is true", { attn: [1, true, 1, 1] }, "BAD_CELL"],
    ["a term of three numbers", { attn: [1, [[0, 1, 1]], 1, 1] }, "BAD_CELL"],
    ["a row that is no list", { attn: 1 }, "BAD_PLAN"],
    ["an unknown field", { format: "smoothcc-plan/1", steps: 4, cell: {}, cells: {} }, "BAD_JSON_FIELD"],
    ["an unknown format", { format: "smoothcc-plan/9", steps: 4, cells: {} }, "BAD_JSON_FIELD"],
    ["tensors", { format: "smoothcc-plan/1", steps: 4, cells: {}, tensors: "plan.npz" }, "BAD_PLAN"],
    ["nothing", {}, "BAD_PLAN"],
    ["empty rows", { attn: [] }, "BAD_PLAN"],
    ["an empty list", [], "BAD_JSON_FIELD"],
    ["a mask with a cell of text", [1, "0", 1, 1], "BAD_CELL"],
    ["null", null, "BAD_PLAN"],
  ])("%s", (_, json, code) => {
    const error = thrownBy(() => plan(json));
    expect(error?.code).toBe(code);
    expect(error?.exitCode).toBe(2);
  });

  it("checks schedules that were not parsed, too", () => {
    const bound = (row: readonly (readonly [number, number])[]) =>
      thrownBy(() => bind({ steps: 2, cells: new Map([["attn", [1, row]]]) }, runOfBranches(table(2), dit)))?.code;
    expect(bound([])).toBe("BAD_CELL");
    expect(bound([[0, NaN]])).toBe("BAD_CELL");
    expect(bound([[1, 1]])).toBe("BAD_TERM");
    expect(bound([[0, 1]])).toBeUndefined();
  });

  it("says which key is near and which are known", () => {
    const error = thrownBy(() => plan({ atn: [1, 0, 0, 1] }));
    expect(error?.hint).toContain("'attn'");
    expect(error?.hint).toContain("mlp");
    const field = thrownBy(() => plan({ format: "smoothcc-plan/1", steps: 4, cell: {}, cells: {} }));
    expect(field?.hint).toContain("'cells'");
  });

  it("names the place", () => {
    expect(thrownBy(() => plan({ attn: [1, 0, [[1, 1]], 1] }))?.where).toMatchObject({ site: "attn-0", step: 2 });
  });
});

describe("a plan that saves nothing", () => {
  it("is told from one that does", () => {
    expect(savesNothing(plan({ attn: [1, 1, 1, 1] }))).toBe(true);
    expect(savesNothing(plan({ attn: [1, 1, 1, 1], "mlp-1": [1, 1, 0, 1] }))).toBe(false);
    expect(savesNothing(plan({ format: "smoothcc-plan/1", steps: 4, cells: {} }))).toBe(true);
  });
});

describe("JSON", () => {
  it("comes back, with what the policy said", () => {
    const json = {
      format: "smoothcc-plan/2",
      steps: 3,
      policy: { name: "fora", interval: 2 },
      predicted: { computedShare: 0.5 },
      cells: { attn: [1, 0, [[0, 0.1]]] },
    };
    expect(scheduleJson(parseSchedule(json, "p"))).toEqual(json);
    expect(JSON.parse(JSON.stringify(scheduleJson(parseSchedule(json, "p"))))).toEqual(json);
  });

  it("holds what the plan was compared with, where one of them diverged", () => {
    const tried = { share: 0.5, samples: 2, isPublished: true };
    const predicted = { candidate: "uniform", error: 0.1, interval: 0.01, compared: { fora: { ...tried, error: NaN } }, found: [1] };
    const json = { format: "smoothcc-plan/2", steps: 2, predicted, cells: { attn: [1, 0] } };
    expect(parseSchedule(JSON.parse(JSON.stringify(json)), "p").predicted).toEqual(predicted);
    const wrong = { ...json, predicted: { ...predicted, error: "small" } };
    expect(thrownBy(() => parseSchedule(wrong, "p"))?.message).toContain("predicted.error");
  });

  it("of any legal plan comes back and binds to the same cells", () => {
    const cell = fc.oneof(
      fc.constant(1 as const),
      fc.constant(0 as const),
      fc.array(fc.tuple(fc.constant(0), fc.double({ min: -1e6, max: 1e6, noNaN: true })), { minLength: 1, maxLength: 3 }),
    );
    const row = fc.array(cell, { minLength: 5, maxLength: 5 }).map((rest) => [1, ...rest]);
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom("attn", "mlp", "attn-0", "mlp-1"), row, { minKeys: 1 }), (json) => {
        const first = plan(json, dit, 6);
        const again = plan(JSON.parse(JSON.stringify(scheduleJson(parseSchedule(json, "p")), (_, value: unknown) => value)), dit, 6);
        expect([...again.cells].map(([site, cells]) => [site, text(cells)])).toEqual(
          [...first.cells].map(([site, cells]) => [site, text(cells)]),
        );
        for (const [, cells] of first.cells) {
          for (const [step, bound] of cells.entries()) {
            if (bound.kind !== "terms") continue;
            for (const term of bound.terms) {
              expect(term.step).toBeLessThan(step);
              expect(cells[term.step]?.kind).toBe("compute");
            }
          }
        }
      }),
      { numRuns: 300, seed: 1 },
    );
  });
});
