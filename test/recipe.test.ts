/** What the recipe's keys of time and sampling make of a scheduler's table. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { inputValue } from "../ir/graph.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { samplerTable, type SamplerTable } from "../schedules/index.js";
import { gridPoints } from "../src/job/grid.js";
import { writeNpy } from "../src/files/npy.js";
import { type RecipeFacts, recipeSchema } from "../src/job/recipe.js";
import { samplingOf } from "../src/job/sampling.js";
import { sampleTensor, tensorFor } from "../src/job/values.js";
import { codeOf, thrownBy } from "./support/thrown.js";

const LATENT = [1, 4, 8, 8];
const ddim = { _class_name: "DDIMScheduler", clip_sample: false };
const dpm = { _class_name: "DPMSolverMultistepScheduler" };
const flow = { ...dpm, prediction_type: "flow_prediction", use_flow_sigmas: true };
const dynamic = { ...flow, use_dynamic_shifting: true };

function tableWith(facts: Partial<RecipeFacts>): SamplerTable {
  return samplingOf({ recipe: recipeSchema.parse({ model: "model.onnx", ...facts }), folder: "/", modelFile: "/model.onnx" }, LATENT).table;
}

function times({ rows }: SamplerTable): number[] {
  return rows.map(({ timestep }) => timestep);
}

/** The greatest difference between what the rows take of the latent. */
function distance(a: SamplerTable, b: SamplerTable): number {
  const weights = ({ rows }: SamplerTable): number[] => rows.map(({ next }) => next.x[0]?.weight ?? 0);
  const others = weights(b);
  return Math.max(...weights(a).map((weight, k) => Math.abs(weight - (others[k] ?? NaN))));
}

describe("time", () => {
  it("is told to the network on its own scale, and nothing else changes", () => {
    const plain = tableWith({ scheduler: ddim, steps: 5 });
    const turned = tableWith({ scheduler: ddim, steps: 5, time: { scale: -1 / 1000, offset: 1 } });
    expect(times(plain)).toEqual([800, 600, 400, 200, 0]);
    expect(times(turned).map((time) => Number(time.toFixed(12)))).toEqual([0.2, 0.4, 0.6, 0.8, 1]);
    expect(turned.rows.map(({ m, next }) => ({ m, next }))).toEqual(plain.rows.map(({ m, next }) => ({ m, next })));
  });
});

describe("sampling", () => {
  it("takes times, and as many steps", () => {
    expect(times(tableWith({ scheduler: dpm, sampling: { timesteps: [900, 500, 100] } }))).toEqual([900, 500, 100]);
  });

  it("takes mu as a number, or by a rule from the latent's tokens", () => {
    const byNumber = (mu: number): SamplerTable => tableWith({ scheduler: dynamic, steps: 6, sampling: { mu } });
    const byRule = (patch: number): SamplerTable =>
      tableWith({ scheduler: dynamic, steps: 6, sampling: { mu: { rule: "linear", axes: [2, -1], patch } } });
    // calculate_shift(64) and calculate_shift(16) of diffusers 0.42.1.
    expect(distance(byRule(1), byNumber(0.4675))).toBeLessThan(1e-12);
    expect(distance(byRule(2), byNumber(0.459375))).toBeLessThan(1e-12);
    expect(distance(byRule(2), byRule(1))).toBeGreaterThan(1e-4);
  });

  it("leaves what goes by rule to schedulers that make use of it", () => {
    const ruled: RecipeFacts["sampling"] = { sigmas: "linear", mu: { rule: "linear", axes: [1] } };
    expect(tableWith({ scheduler: flow, steps: 6, sampling: ruled })).toEqual(tableWith({ scheduler: flow, steps: 6 }));
    const table = samplerTable(ddim, { steps: 3 });
    expect(tableWith({ scheduler: { ...table }, sampling: ruled })).toEqual(table);
  });

  it("refuses axes that the latent does not have, and settings that the scheduler does not take", () => {
    expect(codeOf(() => tableWith({ scheduler: dynamic, sampling: { mu: { rule: "linear", axes: [4] } } }))).toBe("BAD_JSON_FIELD");
    expect(codeOf(() => tableWith({ scheduler: ddim, sampling: { sigmas: "linear" } }))).toBe("SAMPLER_OPTION");
  });
});

describe("the points of a grid", () => {
  it("run along the last axis first, the same for every row of the batch", () => {
    const points = [0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 1, 0, 0, 1, 1, 0, 1, 2];
    expect(gridPoints("ids", [6, 3], [1, 2, 3])).toEqual(points);
    expect(gridPoints("ids", [2, 6, 3], [1, null, 3])).toEqual([...points, ...points]);
  });

  it("are refused where the sizes do not fit", () => {
    expect(codeOf(() => gridPoints("ids", [6, 3], [1, null, null]))).toBe("BAD_GRID");
    expect(codeOf(() => gridPoints("ids", [4, 2], [1, null, null]))).toBe("BAD_GRID");
  });
});

describe("an array for an input [2, 3, 4]", () => {
  const folder = mkdtempSync(join(tmpdir(), "smoothcc-values-"));
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const find = (name: string): string => join(folder, name);
  const shape = [2, 3, 4];
  const value = inputValue("words", { elem: "float", shape });
  const upTo = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);

  async function of(found: readonly number[]): Promise<{ readonly whole: () => number[]; readonly samples: () => number[][] }> {
    const count = found.reduce((product, size) => product * size, 1);
    await writeNpy(join(folder, "words.npy"), tensorOf("float", found, upTo(count)));
    return {
      whole: () => tensorNumbers(tensorFor(value, shape, "words.npy", find)),
      samples: () => [0, 1].map((sample) => tensorNumbers(sampleTensor(value, shape, "words.npy", sample, find))),
    };
  }

  it("is all of it, or one row for the whole batch", async () => {
    expect((await of([2, 3, 4])).whole()).toEqual(upTo(24));
    for (const row of [
      [3, 4],
      [1, 3, 4],
    ])
      expect((await of(row)).whole()).toEqual([...upTo(12), ...upTo(12)]);
  });

  it("has samples along axis 0: all of it, or one row each", async () => {
    expect((await of([2, 2, 3, 4])).samples()).toEqual([upTo(24), upTo(24, 24)]);
    for (const rows of [
      [3, 3, 4],
      [3, 1, 3, 4],
    ])
      expect((await of(rows)).samples()).toEqual([upTo(24), [...upTo(12, 24), ...upTo(12)]]);
  });

  it("is never taken apart otherwise, though it has as many elements", async () => {
    for (const found of [[4, 3, 2], [2, 4, 3], [24], [6, 4], [12], [1, 2, 3, 4], [4, 3]]) {
      const { message } = thrownBy((await of(found)).whole) ?? {};
      expect(message).toContain(`[2, 3, 4]; what was given has [${found.join(", ")}]`);
    }
    for (const found of [
      [2, 24],
      [2, 12],
      [2, 4, 3],
      [1, 2, 4, 3],
      [0, 3, 4],
    ])
      expect(codeOf((await of(found)).samples)).toBe("INPUT_SHAPE_MISMATCH");
  });

  it("may be a list of its elements, which has no axes", () => {
    expect(tensorNumbers(tensorFor(value, shape, upTo(24), find))).toEqual(upTo(24));
    expect(tensorNumbers(tensorFor(value, shape, upTo(12), find))).toEqual([...upTo(12), ...upTo(12)]);
    expect(codeOf(() => tensorFor(value, shape, upTo(6), find))).toBe("INPUT_SHAPE_MISMATCH");
  });
});
