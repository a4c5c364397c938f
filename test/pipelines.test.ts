/**
 * Recipes derived from diffusers folders, against what diffusers' own pipelines do: `fixtures/pipelines/record.py` ran each of
 * them on a linear stub of a network, and recorded what the stub was told and the latent that came out.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { ditView } from "../ir/graph.js";
import { writeModel } from "../ir/onnx/index.js";
import { type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { parse } from "../ir/parse.js";
import { readJson } from "../src/files/json.js";
import { gridPoints } from "../src/job/grid.js";
import { conditionsOf } from "../src/job/conditions.js";
import { openJob, warningsOf } from "../src/job/job.js";
import { writeNpy } from "../src/files/npy.js";
import { pipelines } from "../src/job/pipelines/index.js";
import { openJobSource } from "../src/job/source.js";
import { samplingOf } from "../src/job/sampling.js";
import type { Recipe, ValueSpec } from "../src/job/recipe.js";
import { rejectionOf, thrownBy } from "./support/thrown.js";
import { tinyStep } from "./support/tiny-step.js";

const config = z.looseObject({ _class_name: z.string() });
const recordSchema = z.strictObject({
  index: config,
  transformer: config,
  scheduler: config,
  defaults: z.strictObject({ steps: z.int(), scale: z.number() }),
  steps: z.int(),
  shape: z.array(z.int()),
  start: z.array(z.number()),
  /** The condition of each row of each call of a step. */
  calls: z.array(z.array(z.number())),
  /** The network's whole output. */
  output: z.strictObject({ axis: z.int(), channels: z.int() }),
  times: z.array(z.number()),
  /** What else the network was told. */
  told: z.record(z.string(), z.unknown()),
  latent: z.array(z.number()),
});
type Recorded = z.infer<typeof recordSchema>;

const file = join(import.meta.dirname, "fixtures", "pipelines", "recorded.json");
const recorded = z.record(z.string(), recordSchema).parse(readJson(file));

/** What the stub's network is told of the two halves, where the recipe does not say it. */
const [COND, UNCOND] = [0.5, -0.25];

function folderOf({ index, transformer, scheduler }: Pick<Recorded, "index" | "transformer" | "scheduler">): string {
  const folder = mkdtempSync(join(tmpdir(), "smoothcc-pipeline-"));
  const files = { "model_index.json": index, "transformer/config.json": transformer, "scheduler/scheduler_config.json": scheduler };
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(folder, name, ".."), { recursive: true });
    writeFileSync(join(folder, name), JSON.stringify(content));
  }
  return folder;
}

/** The conditions of the calls of one step that the recipe asks for. */
function callsOf({ guidance }: Recipe, cond: number): number[][] {
  const [spec] = Object.values(guidance.uncond);
  const halves = { cond, uncond: typeof spec === "number" ? spec : UNCOND };
  if (guidance.form === "batched") return [guidance.order.map((half) => halves[half])];
  return guidance.form === "two-calls" ? [[halves.cond], [halves.uncond]] : [[halves.cond]];
}

/** The stub: out = 0.3 x + 0.2 condition + 0.01 guidance. */
function stub(x: readonly number[], condition: number, embedded: number): number[] {
  return x.map((value) => 0.3 * value + 0.2 * condition + 0.01 * embedded);
}

function scaleOf({ scale }: Recipe["guidance"]): number {
  return typeof scale === "number" ? scale : NaN;
}

/** The prediction that the sampler sees. */
function predicted({ guidance, prediction }: Recipe, x: readonly number[], cond: number, row: number): number[] {
  const { form, rescale } = guidance;
  const scale = scaleOf(guidance);
  const told = Object.values(guidance.uncond)[0];
  const embedded = form === "embedded" ? scale : 0;
  const conditional = stub(x, cond, embedded);
  if (form === "none" || form === "embedded") return conditional.map((value) => prediction.sign * value);
  const without = stub(x, typeof told === "number" ? told : UNCOND, embedded);
  const guided = conditional.map((value, i) => (without[i] ?? 0) + scale * (value - (without[i] ?? 0)));
  const norm = (values: readonly number[], at: number): number => {
    const from = at - (at % row);
    return Math.hypot(...values.slice(from, from + row));
  };
  return guided.map((value, i) => prediction.sign * value * (rescale?.form === "norm" ? norm(conditional, i) / norm(guided, i) : 1));
}

/** The numbers that a value gives to an input, of which `told` says the shape. */
function numbersOf(spec: ValueSpec | null | undefined, told: unknown): readonly (number | undefined)[] {
  const shape: number[] = [];
  for (let level = told; Array.isArray(level); level = level[0]) shape.push(level.length);
  if (typeof spec === "object" && spec !== null && "grid" in spec) return gridPoints("input", shape, spec.grid);
  const row = typeof spec === "number" ? [spec] : Array.isArray(spec) ? spec : [];
  return flattened(told).map((_, i) => row[i % row.length]);
}

function flattened(like: unknown): number[] {
  return Array.isArray(like) ? like.flatMap(flattened) : [Number(like)];
}

describe.each(Object.entries(recorded))("%s", async (_, run) => {
  const folder = folderOf(run);
  const { recipe } = await openJobSource(folder);
  const source = await openJobSource(folder, { steps: run.steps });
  const { table } = samplingOf(source, run.shape);
  const cond = run.calls.flat().includes(COND) ? COND : (run.calls[0]?.[0] ?? NaN);

  it("runs with the pipeline's defaults", () => {
    const { form } = recipe.guidance;
    const scale = scaleOf(recipe.guidance);
    expect(recipe.steps).toBe(run.defaults.steps);
    // Z-Image writes cond + g · (cond − uncond), which is a scale of g + 1 here.
    const offset = run.index._class_name === "ZImagePipeline" ? 1 : 0;
    expect(form === "none" ? undefined : scale - offset).toBe(form === "none" ? undefined : run.defaults.scale);
  });

  it("tells the network the times that the pipeline tells it", () => {
    const told = table.rows.map(({ timestep }) => timestep);
    expect(told.length).toBe(run.times.length);
    for (const [k, time] of run.times.entries()) expect(Math.abs((told[k] ?? NaN) - time)).toBeLessThan(1e-6 * Math.max(1, time));
  });

  it("calls it as often, with the halves in the same order", () => {
    expect(callsOf(recipe, cond)).toEqual(run.calls);
  });

  it("finds the prediction in the output", () => {
    const { axis, channels } = run.output;
    const wanted = run.shape[axis] ?? NaN;
    expect(recipe.prediction).toMatchObject({ channelAxis: axis, ...(channels > wanted ? { channels: [0, wanted] } : {}) });
    expect(recipe.prediction.channels === undefined).toBe(channels === wanted);
  });

  it("fixes the inputs that the pipeline makes itself", () => {
    const { timestep_r: second, guidance, ...inputs } = run.told;
    expect([recipe.timestep].flat().includes("timestep_r")).toBe(second !== undefined);
    expect(recipe.guidance.form === "embedded").toBe(guidance !== undefined);
    if (guidance !== undefined)
      expect({ input: recipe.guidance.input, told: [recipe.guidance.scale] }).toEqual({ input: "guidance", told: guidance });
    const fixed = Object.entries(recipe.inputs).filter(([, { fix }]) => fix !== undefined);
    expect(fixed.map(([name]) => name).sort()).toEqual(Object.keys(inputs).sort());
    for (const [name, { fix }] of fixed) expect(numbersOf(fix, inputs[name])).toEqual(flattened(inputs[name]));
  });

  it("ends at the same latent", () => {
    const latents = [run.start.map((value) => table.initialScale * value)];
    const history: number[][] = [];
    for (const [k, { inputScale, m, next }] of table.rows.entries()) {
      const x = latents[k] ?? [];
      const out = predicted(
        recipe,
        x.map((value) => inputScale * value),
        cond,
        run.shape.at(-1) ?? 1,
      );
      history.push(x.map((value, i) => m.x * value + m.out * (out[i] ?? NaN)));
      const sum = (values: readonly number[][], terms: typeof next.x, i: number): number =>
        terms.reduce((total, { step, weight }) => total + weight * (values[step]?.[i] ?? NaN), 0);
      latents.push(x.map((_value, i) => sum(latents, next.x, i) + sum(history, next.m, i)));
    }
    const last = latents.at(-1) ?? [];
    const distance = Math.hypot(...run.latent.map((value, i) => value - (last[i] ?? NaN)));
    expect(distance / Math.hypot(...run.latent)).toBeLessThan(1e-5);
  });
});

describe("a folder with an export of other names", () => {
  const tensor = (shape: readonly number[], values: readonly number[]): TensorData => tensorOf("float", shape, values);

  it("is run by what lies beside it", async () => {
    const folder = folderOf({
      index: { _class_name: "ORTPixArtAlphaPipeline" },
      transformer: { _class_name: "PixArtTransformer2DModel", in_channels: 4 },
      scheduler: { _class_name: "DDIMScheduler", clip_sample: false },
    });
    await writeModel(parse(tinyStep({ words: true })), join(folder, "transformer", "model.onnx"));
    for (const place of ["calibrate", "uncond", "fix"]) mkdirSync(join(folder, place));
    await writeNpy(join(folder, "calibrate", "words.npy"), tensor([4, 3], [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]));
    await writeNpy(join(folder, "uncond", "words.npy"), tensor([1, 3], [0.5, 0.25, 0]));
    await writeNpy(join(folder, "fix", "size.npy"), tensor([2], [0.3, 0.7]));
    const job = await openJob(folder, { batch: 2, steps: 4 });
    const { latent, timestep, conditions } = ditView(job.model);
    // The class also speaks of a resolution and an aspect ratio, which this export does not have.
    expect({ latent, timestep, conditions }).toEqual({ latent: "x", timestep: "t", conditions: ["size", "words"] });
    const words = conditionsOf(job, 1).get("words");
    const halves = job.run.conditions.get("words")?.halves;
    expect(words && tensorNumbers(words)).toEqual([3, 3, 3, 4, 4, 4]);
    expect(halves?.uncond.kind === "constant" && tensorNumbers(halves.uncond.data)).toEqual([0.5, 0.25, 0, 0.5, 0.25, 0]);
    expect(halves?.cond).toEqual({ kind: "input", name: "words" });
    expect(job.run.conditions.get("size")?.halves.cond.kind).toBe("constant");
  });

  it("can be looked at before there are values, and says where they go", async () => {
    const folder = folderOf({
      index: { _class_name: "LattePipeline" },
      transformer: { _class_name: "LatteTransformer3DModel", in_channels: 4 },
      scheduler: { _class_name: "DDIMScheduler", clip_sample: false },
    });
    await writeModel(parse(tinyStep()), join(folder, "transformer", "model.onnx"));
    const job = await openJob(folder, {});
    expect(warningsOf(job)).toEqual([expect.stringContaining("Guidance has no effect")]);
    expect(thrownBy(() => conditionsOf(job, 0))?.hint).toContain("calibrate/size.npy");
  });
});

it("a folder of two experts has a recipe of two networks, with the border in the scheduler's time", async () => {
  const index = { _class_name: "WanPipeline", boundary_ratio: 0.875 };
  for (const [settings, belowTime] of [
    [{}, 875],
    [{ num_train_timesteps: 400 }, 350],
  ] as const) {
    const folder = folderOf({
      index,
      transformer: { _class_name: "WanTransformer3DModel" },
      scheduler: { _class_name: "UniPCMultistepScheduler", ...settings },
    });
    mkdirSync(join(folder, "transformer_2"));
    const { recipe, networkFiles } = await openJobSource(folder);
    expect(recipe.networks).toEqual([{ model: "transformer_2/model.onnx", belowTime }]);
    expect(networkFiles).toEqual([join(folder, "transformer_2", "model.onnx")]);
  }
});

describe("a pipeline that no recipe says", () => {
  const flow = { _class_name: "FlowMatchEulerDiscreteScheduler" };
  it.each([
    ["WanPipeline", { expand_timesteps: true }, { _class_name: "WanTransformer3DModel" }, { guidance: { form: "two-calls", scale: 5 } }],
    [
      "QwenImagePipeline",
      {},
      { _class_name: "QwenImageTransformer2DModel", guidance_embeds: true },
      { guidance: { form: "embedded", input: "guidance" } },
    ],
    ["AceStepPipeline", {}, { _class_name: "AceStepTransformer1DModel" }, { guidance: { form: "two-calls", scale: 7 } }],
  ])("is refused with the recipe that is nearest, ready to be written: %s", async (_class_name, settings, transformer, expected) => {
    const folder = folderOf({ index: { _class_name, ...settings }, transformer, scheduler: flow });
    const { code, hint = "" } = (await rejectionOf(openJobSource(folder))) ?? {};
    expect(code).toBe("UNSUPPORTED_PIPELINE");
    writeFileSync(join(folder, "recipe.json"), hint.slice(hint.indexOf(': {"') + 2, -1));
    const { recipe, modelFile } = await openJobSource(folder);
    expect(recipe).toMatchObject({ latent: "hidden_states", ...expected });
    expect(modelFile).toBe(join(folder, "transformer", "model.onnx"));
  });

  it("nor anybody here has read is run by the recipe that the hint gives", async () => {
    const folder = folderOf({
      index: { _class_name: "OtherPipeline" },
      transformer: { _class_name: "OtherModel" },
      scheduler: { ...flow, shift: 3 },
    });
    const { code, hint = "" } = (await rejectionOf(openJobSource(folder))) ?? {};
    expect(code).toBe("UNKNOWN_PIPELINE");
    writeFileSync(join(folder, "recipe.json"), /\{.*\}/.exec(hint)?.[0] ?? "");
    await writeModel(parse(tinyStep().replaceAll("int64[b] t", "float[b] t")), join(folder, "transformer", "model.onnx"));
    expect((await openJob(folder, {})).run.rows).toHaveLength(50);
  });
});

describe("the registry", () => {
  it("has a recording of every pipeline", () => {
    const seen = new Set(Object.values(recorded).map(({ index }) => index._class_name));
    for (const { name, pipelines: classes } of pipelines.values())
      expect([name, classes.some((known) => seen.has(known))]).toEqual([name, true]);
  });

  it("names every class once", () => {
    const names = [...pipelines.values()].flatMap(({ pipelines: classes, transformers }) => [...classes, ...transformers]);
    expect(new Set(names).size).toBe(names.length);
  });
});
