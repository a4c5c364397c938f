/** What a recipe says must reach the compiled run: fixed inputs, channels, defaults. */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { bind, relativeL2, samplerTable } from "../schedules/index.js";
import { conditionsOf } from "../src/job/conditions.js";
import { type Job, openJob, warningsOf } from "../src/job/job.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { compileModel } from "../src/compile/compile.js";
import { Session } from "../src/runtime/session.js";
import { tensorFrom, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { ditView } from "../ir/graph.js";
import { encodeModel, writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { npyBytes } from "../src/files/npy.js";
import { cli } from "./support/cli.js";
import { tinyStep, type TinyStep } from "./support/tiny-step.js";

const GLYPHS = resolve(import.meta.dirname, "..", "examples", "glyphs");
const recipe = z.record(z.string(), z.unknown()).parse(JSON.parse(readFileSync(join(GLYPHS, "recipe.json"), "utf8")));

/** The glyph model at 3 steps, with changes to its recipe. */
function jobWith(changes: Readonly<Record<string, unknown>>): Promise<Job> {
  const folder = mkdtempSync(join(tmpdir(), "smoothcc-job-"));
  for (const file of ["model.onnx", "scheduler_config.json"]) cpSync(join(GLYPHS, file), join(folder, file));
  writeFileSync(join(folder, "recipe.json"), JSON.stringify({ ...recipe, steps: 3, ...changes }));
  return openJob(folder, {});
}

/** The latents of the loop and of the compiled run, uncached. */
async function bothRuns(
  job: Job,
): Promise<{ readonly loop: Float32Array; readonly compiled: number[]; readonly inputs: readonly string[] }> {
  const inputs = sampleInputs(job, 0, { seed: 5 });
  const loop = new ReferenceLoop(job.run);
  const expected = await loop.run(inputs);
  await loop.close();
  const plan = bind({ steps: 3, cells: new Map() }, job.run);
  const { model } = await compileModel(job, plan);
  const session = await Session.open(model, { optimise: "disabled" });
  const latent = tensorFrom("float", [1, 1, 32, 32], inputs.noise);
  const results = await session.run(new Map([...inputs.conditions, ["hidden_states", latent]]));
  await session.close();
  const out = results.get("latent");
  return { loop: expected, compiled: out ? tensorNumbers(out) : [], inputs: model.graph.inputs.map(({ name }) => name) };
}

describe("a fixed condition", () => {
  it("is part of the model, and the unconditional half is still the recipe's", async () => {
    const fixed = await bothRuns(await jobWith({ inputs: { class_labels: { fix: 7 } } }));
    const fed = await bothRuns(await jobWith({ inputs: { class_labels: { calibrate: [7] } } }));
    expect(fixed.inputs).toEqual(["hidden_states"]);
    expect(fed.inputs).toEqual(["hidden_states", "class_labels"]);
    expect(relativeL2(fixed.compiled, fed.compiled)).toBeLessThan(1e-5);
    expect(relativeL2(fixed.compiled, fixed.loop)).toBeLessThan(1e-5);
    // Another letter is another result: the comparison above can fail.
    const other = await bothRuns(await jobWith({ inputs: { class_labels: { fix: 8 } } }));
    expect(relativeL2(other.compiled, fed.compiled)).toBeGreaterThan(1e-2);
  });
});

describe("conditions", () => {
  it("are taken in turn, one number a row", async () => {
    const job = await jobWith({ batch: 2, inputs: { class_labels: { calibrate: [3, 4, 5] } } });
    const labels = [0, 1].map((sample) => conditionsOf(job, sample).get("class_labels"));
    expect(labels.map((data) => data && tensorNumbers(data))).toEqual([
      [3, 4],
      [5, 3],
    ]);
  });
});

describe("warnings", () => {
  it("tell of guidance that has no effect", async () => {
    const none = await jobWith({ guidance: { form: "batched", scale: 3 } });
    expect(warningsOf(none)).toEqual([expect.stringContaining("Guidance has no effect")]);
    expect(warningsOf(await jobWith({}))).toEqual([]);
  });
});

describe("a step of another make", () => {
  const scheduler = { _class_name: "DDIMScheduler", clip_sample: false };

  function openJobOf(folder: string): Promise<Job> {
    writeFileSync(join(folder, "recipe.json"), JSON.stringify({ model: "model.onnx", scheduler, steps: 4 }));
    return openJob(folder, {});
  }

  async function tinyJob(step: TinyStep, changes: Readonly<Record<string, unknown>> = {}): Promise<Job> {
    const folder = mkdtempSync(join(tmpdir(), "smoothcc-tiny-"));
    await writeModel(parse(tinyStep(step)), join(folder, "model.onnx"));
    const guidance = { form: "batched", scale: 2 };
    const inputs = { size: { calibrate: [[0.3, 0.7]] } };
    writeFileSync(join(folder, "recipe.json"), JSON.stringify({ model: "model.onnx", scheduler, steps: 4, guidance, inputs, ...changes }));
    return openJob(folder, {});
  }

  async function run(job: Job): Promise<Float32Array> {
    const loop = new ReferenceLoop(job.run);
    const latent = await loop.run(sampleInputs(job, 0, { seed: 1 }));
    await loop.close();
    return latent;
  }

  it("keeps a condition whole that has no batch axis, even where its size is that of the doubled batch", async () => {
    const job = await tinyJob({});
    const inputs = sampleInputs(job, 0, { seed: 1 });
    expect(inputs.conditions.get("size")?.shape).toEqual([2]);
    const plan = bind({ steps: 4, cells: new Map([["attn", [1, 0, 1, 0]]]) }, job.run);
    const { model } = await compileModel(job, plan);
    expect(model.graph.inputs.map(({ name, type }) => [name, type?.shape])).toEqual([
      ["x", [1, 6, 4]],
      ["size", [2]],
    ]);
  });

  it("takes the output that the recipe names, not the first", async () => {
    const job = await tinyJob({ aux: true }, { prediction: { output: "out" } });
    const alone = await tinyJob({});
    expect(relativeL2(await run(job), await run(alone))).toBeLessThan(1e-6);
    expect(ditView(job.model).warnings).toEqual([expect.stringContaining("'aux'")]);
  });

  it("warns of operators outside of the standard, but not of those that it can spell out", async () => {
    expect(ditView((await tinyJob({ activation: "com.microsoft.QuickGelu" })).model).warnings).toEqual([]);
    const { warnings } = ditView((await tinyJob({ activation: "com.microsoft.Trilu" })).model);
    expect(warnings).toContainEqual(expect.stringMatching(/^1 node has an operator outside of the ONNX standard \(com.microsoft.Trilu\)/));
  });

  it("tells several inputs the same time", async () => {
    const told = await tinyJob({ secondTime: true }, { timestep: ["t", "r"] });
    expect(ditView(told.model)).toMatchObject({ timestep: "t", conditions: ["size"] });
    // The network sees how far the second time lies behind the first.
    expect(relativeL2(await run(told), await run(await tinyJob({})))).toBeLessThan(1e-6);
  });

  it("is told no numbers that its inputs do not have", async () => {
    const scaled = (scale: number): Promise<Job> => tinyJob({ label: true }, { guidance: { form: "embedded", input: "label", scale } });
    await expect(scaled(3.5)).rejects.toThrow("which cannot hold 3.5");
    expect((await run(await scaled(3))).every(Number.isFinite)).toBe(true);
    const late = { ...samplerTable(scheduler, { steps: 4 }) };
    const rows = late.rows.map((row) => ({ ...row, timestep: 1e19 }));
    await expect(tinyJob({}, { scheduler: { ...late, rows } })).rejects.toMatchObject({ code: "INPUT_NUMBER" });
  });

  it("gives every branch a site of its own", async () => {
    const { branches } = ditView((await tinyJob({ mlps: 3 })).model);
    expect(branches.map(({ site }) => site)).toEqual(["attn-0", "mlp-0", "mlp-1", "mlp-2"]);
  });

  it("says so where it takes a prediction out of more channels than that and a variance", async () => {
    const warnings = async (width: number, channels?: readonly number[]): Promise<readonly string[]> =>
      ditView((await tinyJob({ width }, { prediction: { channels, channelAxis: 2 } })).model).warnings;
    expect(await warnings(6)).toEqual([expect.stringContaining("The first 4 of 6 channels of 'out'")]);
    for (const known of [await warnings(4), await warnings(8), await warnings(6, [2, 6])]) expect(known).toEqual([]);
  });

  it("warns of conditions that are added behind blocks, but not of those in front of them", async () => {
    const warnings = async (from: string, to: string, inputs: string): Promise<readonly string[]> => {
      const folder = mkdtempSync(join(tmpdir(), "smoothcc-held-"));
      const text = tinyStep({ mlps: 2 }).replace("float[2] size", `float[2] size, ${inputs}`).replace(from, to);
      await writeModel(parse(text), join(folder, "model.onnx"));
      return ditView((await openJobOf(folder)).model).warnings;
    };
    const held = await warnings("h2 = Add(h1, d1)", "sum1 = Add(h1, d1)  part = Mul(control, strength)  h2 = Add(part, sum1)", "float[b,6,4] control, float[1] strength"); // prettier-ignore
    expect(held).toEqual([expect.stringContaining("'control' is added to the stream behind blocks")]);
    const first = "q = MatMul(x, w_q)  k = MatMul(x, w_k)";
    const place = first.replaceAll("x", "placed").replace("q =", "placed = Add(x, place)  q =");
    expect(await warnings(first, place, "float[b,6,4] place")).toEqual([]);
    expect(
      await warnings("p = Softmax<axis = -1>(s)", "masked = Add(s, mask)  p = Softmax<axis = -1>(masked)", "float[b,6,6] mask"),
    ).toEqual([]);
  });

  it("is refused where it calls operators that the file defines, as they are not looked into", async () => {
    const folder = mkdtempSync(join(tmpdir(), "smoothcc-functions-"));
    const text = tinyStep({ activation: "local.Bend" }).replace('"com.microsoft" : 1', '"local" : 1');
    // A message may be continued at its end: field 25 of ModelProto, with the name and the domain of a FunctionProto.
    const body = [0x0a, 4, ...Buffer.from("Bend"), 0x52, 5, ...Buffer.from("local")];
    writeFileSync(join(folder, "model.onnx"), Buffer.concat([encodeModel(parse(text)), Buffer.from([0xca, 0x01, body.length, ...body])]));
    await expect(openJobOf(folder)).rejects.toThrow("defines operators of its own, as local.Bend");
  });

  it("is refused where the prediction is no latent", async () => {
    await expect(tinyJob({ width: 3 })).rejects.toMatchObject({ code: "PREDICTION_SHAPE" });
  });
});

describe("files that a recipe names", () => {
  const DDIM = { _class_name: "DDIMScheduler", clip_sample: false };
  const guidance = { form: "batched", scale: 2 };
  const inputs = { size: { calibrate: [[0.3, 0.7]] } };

  /** A folder with a recipe, in one with a model, a scheduler, an array and a text that are not the recipe's; and links to these. */
  async function folderWith(facts: Readonly<Record<string, unknown>>): Promise<{ readonly home: string; readonly folder: string }> {
    const home = mkdtempSync(join(tmpdir(), "smoothcc-outside-"));
    const folder = join(home, "model");
    mkdirSync(folder);
    for (const file of [join(folder, "model.onnx"), join(home, "model.onnx")]) await writeModel(parse(tinyStep()), file);
    writeFileSync(join(home, "scheduler.json"), JSON.stringify(DDIM));
    writeFileSync(join(home, "size.npy"), npyBytes(tensorOf("float", [2], [0.3, 0.7])));
    writeFileSync(join(folder, "secret.txt"), "secret");
    for (const file of ["scheduler.json", "size.npy"]) symlinkSync(join(home, file), join(folder, file));
    const recipe = { model: "model.onnx", scheduler: DDIM, steps: 4, guidance, inputs, ...facts };
    writeFileSync(join(folder, "recipe.json"), JSON.stringify(recipe));
    return { home, folder };
  }

  it.each<Readonly<Record<string, unknown>>>([
    { model: "../model.onnx" },
    { scheduler: "../scheduler.json" },
    { scheduler: "scheduler.json" },
    { scheduler: "/etc/hostname" },
    { inputs: { size: { fix: "../size.npy" } } },
    { inputs: { size: { calibrate: ["../size.npy"] } } },
    { inputs: { size: { calibrate: "size.npy" } } },
    { guidance: { ...guidance, uncond: { size: "../size.npy" } } },
  ])("lie in its folder, links followed, or in one that the user allows: %j", async (facts) => {
    const { home, folder } = await folderWith(facts);
    const out = join(home, "out");
    const argv = ["compile", folder, "--no-cache", "-o", out];
    const refused = await cli(argv);
    expect(refused.stderr).toContain("FILE_OUTSIDE");
    expect(existsSync(out)).toBe(false);
    // An unknown scheduler and what else is wrong with the file is no matter of where it lies.
    if (facts["scheduler"] === "/etc/hostname") return;
    const allowed = await cli([...argv, "--allow-outside", home]);
    expect(allowed.stderr).not.toContain("error");
    // What the artifact carries is its own.
    await openJob(out, {});
  });

  it("are free if the command line names them, and if they lie beside what a link of a download cache leads to", async () => {
    const { home, folder } = await folderWith({ scheduler: "../scheduler.json" });
    await openJob(folder, { scheduler: join(home, "scheduler.json"), inputs: new Map([["size", join(home, "size.npy")]]) });
    const snapshot = join(home, "snapshot");
    const blobs = join(home, "blobs");
    for (const made of [snapshot, blobs]) mkdirSync(made);
    for (const [i, file] of ["recipe.json", "model.onnx"].entries()) {
      cpSync(join(folder, file), join(blobs, String(i)));
      symlinkSync(join(blobs, String(i)), join(snapshot, file));
    }
    await openJob(snapshot, { scheduler: join(home, "scheduler.json") });
  });

  it("are carried into an artifact only as the arrays that they are", async () => {
    const { home, folder } = await folderWith({ inputs: { size: { calibrate: ["secret.txt"] } } });
    const { stderr } = await cli(["compile", folder, "--no-cache", "-o", join(home, "out")]);
    expect(stderr).toContain("BAD_NPY");
    expect(existsSync(join(home, "out"))).toBe(false);
  });
});
