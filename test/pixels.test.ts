/** Pictures and videos as pixels of uint8, against what diffusers' pipelines returned of the same ids and noise, and against numpy's rounding. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decode } from "fast-png";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { feedsOf, openArtifact, writeArtifact } from "../src/artifact/artifact.js";
import { packageModel } from "../src/artifact/triton.js";
import { verify } from "../src/artifact/verify.js";
import { type Compiled, compileModel } from "../src/compile/compile.js";
import { readNpy } from "../src/files/npy.js";
import { toPixels } from "../src/job/glue.js";
import { type Job, openJob, planFor } from "../src/job/job.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { pixelDistance } from "../src/reference/pixels.js";
import { displayOf, media } from "../src/report/media.js";
import { AS_WRITTEN, Session } from "../src/runtime/session.js";
import { cli } from "./support/cli.js";
import { compiledFrom, COMPLETE, everySecond, folderOf, numbersIn, opened, RUNTIME, startIn } from "./support/complete.js";
import { tinyStep } from "./support/tiny-step.js";

let home = "";
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "smoothcc-pixels-"));
});
afterAll(() => {
  rmSync(home, { recursive: true, force: true });
});

async function resultOf(model: Compiled["model"], feeds: ReturnType<typeof feedsOf>, name: string): Promise<TensorData> {
  const session = await Session.open(model, { ...RUNTIME, ...AS_WRITTEN });
  const outputs = await session.run(feeds).finally(() => session.close());
  return outputs.get(name) ?? tensorOf("float", [0], []);
}

/** What the pipeline returned, [batch, channels, height, width] or [batch, frames, channels, height, width] in [0, 1], with channels last. */
function returned(folder: string): { readonly shape: readonly number[]; readonly values: readonly number[] } {
  const { shape } = readNpy(join(folder, "reference/output.npy"));
  const numbers = numbersIn(folder, "output");
  const [channels = 1, height = 1, width = 1] = shape.slice(-3);
  const area = height * width;
  const values = numbers.map((_, i) => {
    const [picture, place, channel] = [Math.floor(i / (area * channels)), Math.floor(i / channels) % area, i % channels];
    return numbers[(picture * channels + channel) * area + place] ?? NaN;
  });
  return { shape: [...shape.slice(0, -3), height, width, channels], values };
}

describe.each([
  { family: "sd3", result: "image" },
  { family: "wan", result: "video" },
])("$family", ({ family, result }) => {
  it("gives the bytes of what diffusers returns, channels last", async () => {
    const folder = folderOf(family);
    const job = await opened(folder, { pixels: "uint8" });
    const { uncached, cuda, nodes } = await compiledFrom(job);
    expect(cuda).toMatchObject({ missing: [], copies: [], kernels: nodes.emitted });
    const given = await resultOf(uncached, feedsOf(job, startIn(folder, job)), result);
    const { shape, values } = returned(folder);
    expect([given.elem, given.shape]).toEqual(["uint8", shape]);
    const bytes = tensorNumbers(given);
    // Floats are within 1e-6 of diffusers' (complete.test.ts): a pixel may be the other neighbour where a value is that near to a half.
    const stray = values.filter((value, i) => Math.abs(255 * value - (bytes[i] ?? NaN)) > 0.5 + 1e-3);
    expect(stray).toEqual([]);
    expect(new Set(bytes).size).toBeGreaterThan(150);
  });
});

it("rounds and clips as numpy does", async () => {
  const { graph = "" } = toPixels(["height", "width"], [-1, 1]);
  // (np.clip(x * .5 + .5, 0, 1) * 255).round().astype("uint8") in float32, numpy 2.4.6; the values from the fifth on are at halves.
  const halves = [64, 65, 66, 67, 128, 129, 200, 201].map((k) => (2 * k + 1) / 255 - 1);
  const values = [-1.5, -1, 1, 1.5, ...halves, 0.25, -0.333];
  const expected = [0, 0, 255, 255, 64, 66, 66, 68, 128, 130, 201, 202, 159, 85];
  const result = await resultOf(parse(graph), new Map([["values", tensorOf("float", [1, 1, 2, 7], values)]]), "pixels");
  expect([result.shape, tensorNumbers(result)]).toEqual([[1, 2, 7, 1], expected]);
});

it("pixels are apart from values by what rounding does not explain", () => {
  expect(pixelDistance([3, 4, 0, 255], [3.5, 3.5, 0.2, 254.5])).toBe(0);
  expect(pixelDistance([4, 0], [3, 0])).toBeCloseTo(0.5 / 3, 12);
  expect(pixelDistance([4], [NaN])).toBeNaN();
});

describe("an artifact with a plan, for any batch, in parts", () => {
  let folder = "";
  let job: Job;
  beforeAll(async () => {
    const source = folderOf("sd3");
    folder = join(source, "out");
    job = await opened(source, { pixels: "uint8", runtime: ["batch"], latent: false });
    const schedule = everySecond(job);
    const compiled = await compileModel(job, planFor(job, schedule), { segments: 2 });
    await writeArtifact(folder, { job, schedule, compiled }, false);
  });

  it("is verified, also at another batch, and what differs by the plan is measured in pixels", async () => {
    const { ok, checks, fidelity, shown } = await verify(await openArtifact(folder, RUNTIME), RUNTIME);
    expect([ok, checks.map(({ name }) => name)]).toEqual([
      true,
      [
        "files have the digests of SHA256SUMS",
        "image = the networks behind the loop",
        "2 segments in turn = the whole run",
        "artifact = plan-aware loop at a batch of 3",
        "lifted step = exported step",
      ],
    ]);
    expect(fidelity.relL2).toBeGreaterThan(0.01);
    expect(fidelity.psnr).toBeLessThan(40);
    expect(shown.shape).toEqual([1, 16, 24, 3]);
    for (const values of [shown.cached, shown.uncached]) expect(values.every((value) => Number.isInteger(value))).toBe(true);
  });

  it("is not where it cuts off in place of rounding", async () => {
    const file = join(folder, "model.onnx");
    const right = readFileSync(file);
    writeFileSync(file, Buffer.from(right.toString("latin1").replaceAll("Round", "Floor"), "latin1"));
    const { checks } = await verify(await openArtifact(folder, { ...RUNTIME, check: false }), RUNTIME);
    writeFileSync(file, right);
    expect(checks.flatMap(({ name, ok }) => (ok || name.startsWith("files") ? [] : [name]))).toEqual([
      "image = the networks behind the loop",
      "2 segments in turn = the whole run",
      "artifact = plan-aware loop at a batch of 3",
    ]);
  });

  it("is run to bytes and to the picture of them, and served as bytes", async () => {
    const [numbers, picture] = [join(folder, "..", "image.npy"), join(folder, "..", "image.png")];
    const { exit, stderr } = await cli(["run", folder, "--batch", "2", "-o", numbers, "--png", picture, "--quiet", "--threads", "1"]);
    expect({ exit, stderr }).toEqual({ exit: 0, stderr: "" });
    const { elem, shape, ...rest } = readNpy(numbers);
    expect([elem, shape]).toEqual(["uint8", [2, 16, 24, 3]]);
    const bytes = tensorNumbers({ elem, shape, ...rest });
    const { width, height, data } = decode(readFileSync(picture));
    expect([width, height]).toEqual([48, 16]);
    // The batch side by side.
    const expected = Array.from(data, (_, i) => {
      const [y, x, channel] = [Math.floor(i / (48 * 3)), Math.floor(i / 3) % 48, i % 3];
      return bytes[((Math.floor(x / 24) * 16 + y) * 24 + (x % 24)) * 3 + channel];
    });
    expect([...data]).toEqual(expected);
    const { folder: served } = await packageModel(folder, join(home, "models"));
    expect(readFileSync(join(served, "config.pbtxt"), "utf8")).toContain('{ name: "image", data_type: TYPE_UINT8, dims: [ 16, 24, 3 ] }');
  });
});

it("a film has the frames of a video of pixels", () => {
  const display = displayOf({ display: { kind: "video", range: [-1, 1], rate: 8 }, pixels: "uint8" });
  // One sample, two frames of one row and two columns in colours: channels last, and behind the batch.
  const last = { shape: [1, 2, 1, 2, 3], values: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12) };
  const first = { shape: [1, 3, 2, 1, 2], values: Float32Array.of(1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12) };
  expect(media.apng.encode(last, display)).toEqual(media.apng.encode(first, { ...display, isChannelsLast: false }));
});

describe("a recipe of one's own", () => {
  /** Latents of six rows and four columns. */
  async function recipe(facts: object): Promise<string> {
    const made = mkdtempSync(join(home, "x"));
    await writeModel(parse(tinyStep()), join(made, "model.onnx"));
    const scheduler = { _class_name: "DDIMScheduler", clip_sample: false };
    const known = {
      model: "model.onnx",
      timestep: "t",
      scheduler,
      steps: 2,
      batch: 2,
      prediction: { channelAxis: 2 },
      inputs: { size: { fix: 1 } },
    };
    writeFileSync(join(made, "recipe.json"), JSON.stringify({ ...known, ...facts }));
    return made;
  }
  const inColours = {
    graph: `<ir_version: 8, opset_import: ["" : 17]> colours (float latent) => (float picture)
      <int64[1] axis = {1}, int64[4] threefold = {1, 3, 1, 1}> { grey = Unsqueeze(latent, axis) picture = Tile(grey, threefold) }`,
  };
  const display = { kind: "image", range: [0, 2] };
  const ports = async (made: string): Promise<unknown> => {
    const { model } = await compiledFrom(await openJob(made, {}, RUNTIME));
    return model.graph.outputs.map(({ name, value }) => [name, value.type?.elem, value.type?.shape]);
  };

  it("names the range of what is the last result of its own networks", async () => {
    const made = await recipe({ after: [inColours], display, pixels: "uint8" });
    expect(await ports(made)).toEqual([
      ["latent", "float", [2, 6, 4]],
      ["picture", "uint8", [2, 6, 4, 3]],
    ]);
    expect(await ports(await recipe({ after: [inColours], display, pixels: "uint8", keepLatent: false }))).toEqual([
      ["picture", "uint8", [2, 6, 4, 3]],
    ]);
    const job = await openJob(made, {}, RUNTIME);
    const { uncached } = await compiledFrom(job);
    const feeds = feedsOf(job, sampleInputs(job, 0, { seed: 3 }));
    const latent = tensorNumbers(await resultOf(uncached, feeds, "latent"));
    const colours = latent.flatMap((value) => new Array<number>(3).fill(255 * Math.min(1, Math.max(0, value / 2))));
    const pixels = tensorNumbers(await resultOf(uncached, feeds, "picture"));
    expect(pixels.filter((pixel, i) => Math.abs(pixel - (colours[i] ?? NaN)) > 0.5 + 1e-4)).toEqual([]);
    expect(new Set(pixels).size).toBeGreaterThan(10);
  });

  it("is refused where its result is no picture", async () => {
    const refused = { code: "NO_PIXELS", exitCode: 2 };
    await expect(ports(await recipe({ after: [inColours], pixels: "uint8" }))).rejects.toMatchObject(refused);
    await expect(ports(await recipe({ after: [inColours], display: { kind: "audio" }, pixels: "uint8" }))).rejects.toMatchObject(refused);
    const flat = { kind: "image", range: [1, 1] };
    await expect(ports(await recipe({ after: [inColours], display: flat, pixels: "uint8" }))).rejects.toMatchObject(refused);
    await expect(ports(await recipe({ display, pixels: "uint8" }))).rejects.toMatchObject({ code: "COMPANION_MISFIT" });
    await expect(openJob(join(COMPLETE, "stable_audio"), { pixels: "uint8" })).rejects.toMatchObject(refused);
    // A latent of 16 channels.
    const latent = join(home, "latent.json");
    const bare = { model: "model.onnx", scheduler: "scheduler/scheduler_config.json", display: { kind: "image" }, pixels: "uint8" };
    writeFileSync(latent, JSON.stringify(bare));
    const network = join(COMPLETE, "sd3/transformer/model.onnx");
    const asPicture = openJob(network, { recipe: latent, scheduler: join(COMPLETE, "sd3/scheduler/scheduler_config.json") });
    await expect(asPicture).rejects.toThrow("'latent'");
    await expect(openJob(join(COMPLETE, "sd3"), { pixels: "uint8", stopAt: "latent" })).rejects.toMatchObject({ code: "BAD_OPTION" });
  });

  it("loses its pixels with all that stands behind the latent", async () => {
    const made = await recipe({ after: [inColours], display, pixels: "uint8" });
    const said = z.object({ after: z.array(z.object({ name: z.string() })) });
    const { stdout } = await cli(["inspect", made, "--json"]);
    expect(said.parse(JSON.parse(stdout)).after.map(({ name }) => name)).toEqual(["colours", "pixels"]);
    const { model } = await compiledFrom(await openJob(made, { stopAt: "latent" }, RUNTIME));
    expect(model.graph.outputs.map(({ name }) => name)).toEqual(["latent"]);
  });
});
