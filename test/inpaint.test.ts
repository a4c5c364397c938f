/** Runs that keep what a mask says of an original: against loops that are written here, and against diffusers' own inpaint pipelines. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { type TensorData, tensorFloats, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { forms } from "../passes/index.js";
import { relativeL2, type Schedule } from "../schedules/index.js";
import { feedsOf } from "../src/artifact/artifact.js";
import { compileModel } from "../src/compile/compile.js";
import { npyBytes, readNpy } from "../src/files/npy.js";
import { type Job, openJob } from "../src/job/job.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { startOf } from "../src/reference/start.js";
import { Session } from "../src/runtime/session.js";
import { cli } from "./support/cli.js";
import { planOf, randomSchedule } from "./support/jobs.js";
import { tinyStep } from "./support/tiny-step.js";

const BATCH = 2;
const SHAPE = [BATCH, 6, 4] as const;
const STEPS = 5;

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-inpaint-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const wave = (count: number, seed: number): readonly number[] => Array.from({ length: count }, (_, i) => Math.sin(seed + 1.7 * i));
const SIZE = BATCH * 24;
const IMAGE = tensorOf("float", SHAPE, wave(SIZE, 3));
/** Hard in places, soft in others. */
const MASK = tensorOf("float", SHAPE, Array.from({ length: SIZE }, (_, i) => [0, 1, 1, 0.25, 0, 0.75, 1][i % 7] ?? 0)); // prettier-ignore

async function jobOf(text: string, recipe: Readonly<Record<string, unknown>>): Promise<Job> {
  const home = mkdtempSync(join(folder, "x"));
  await writeModel(parse(text), join(home, "model.onnx"));
  writeFileSync(join(home, "image.npy"), npyBytes(IMAGE));
  writeFileSync(join(home, "mask.npy"), npyBytes(MASK));
  writeFileSync(join(home, "masks.npy"), npyBytes(tensorOf("float", [STEPS, ...SHAPE], Array.from({ length: STEPS }, (_, row) => masksAt(row)).flat()))); // prettier-ignore
  writeFileSync(
    join(home, "recipe.json"),
    JSON.stringify({
      ...{ model: "model.onnx", timestep: "t", steps: STEPS, batch: BATCH, inpaint: true, prediction: { channelAxis: 2 } },
      ...recipe,
      inputs: {
        size: { fix: [0.3, 0.7] },
        image_latent: { calibrate: ["image.npy"] },
        mask: { calibrate: ["mask.npy"] },
        ...(typeof recipe["inputs"] === "object" ? recipe["inputs"] : {}),
      },
    }),
  );
  return openJob(home, {}, { threads: 1 });
}

/** A mask that grows from step to step, as differential diffusion has it. */
const masksAt = (row: number): readonly number[] => Array.from({ length: SIZE }, (_, i) => Number(i % STEPS <= row));

async function compiled(job: Job, form: string, cells?: Schedule["cells"], noise?: TensorData): Promise<Float32Array> {
  const { model } = await compileModel(job, planOf(job, cells).plan, { form });
  const session = await Session.open(model, { threads: 1, optimise: "disabled", prepack: false });
  try {
    const [latent] = (await session.run(feedsOf(job, sampleInputs(job, 0, { seed: 3, noise })))).values();
    return Float32Array.from(latent ? tensorNumbers(latent) : []);
  } finally {
    await session.close();
  }
}

/** A sampler by hand: the level of the latent at step k, the time there, and the step to the next latent. */
interface Sampler {
  readonly config: Readonly<Record<string, unknown>>;
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly timeAt: (k: number) => number;
  readonly levelAt: (k: number) => readonly [signal: number, noise: number];
  readonly next: (x: number, out: number, k: number) => number;
}

/** x' = x + (sigma' − sigma) · v; the times are whole. */
const FLOW: Sampler = {
  config: { _class_name: "FlowMatchEulerDiscreteScheduler" },
  settings: { sigmas: "linear" },
  timeAt: (k) => 1000 - 200 * k,
  levelAt: (k) => [k / STEPS, 1 - k / STEPS],
  next: (x, out) => x - out / STEPS,
};

/** alphaBar of a linear schedule of 100 times; DDIM goes from 80 to 0 in steps of 20. */
const barAt = (time: number): number => {
  let bar = 1;
  for (let i = 0; i <= time; i++) bar *= 1 - (0.001 + (0.02 * i) / 99 - (0.001 * i) / 99);
  return bar;
};
const DDIM: Sampler = {
  config: { _class_name: "DDIMScheduler", clip_sample: false, num_train_timesteps: 100, beta_start: 0.001, beta_end: 0.02 },
  timeAt: (k) => 80 - 20 * k,
  levelAt: (k) => [Math.sqrt(barAt(80 - 20 * k)), Math.sqrt(1 - barAt(80 - 20 * k))],
  next(x, out, k) {
    const [bar, nextBar] = [barAt(80 - 20 * k), k === STEPS - 1 ? 1 : barAt(60 - 20 * k)];
    return Math.sqrt(nextBar) * ((x - Math.sqrt(1 - bar) * out) / Math.sqrt(bar)) + Math.sqrt(1 - nextBar) * out;
  },
};

/** What diffusers' inpaint pipelines do: a step, then what the mask keeps is the image again, at the noise of the next step. */
async function byHand(
  text: string,
  noise: ArrayLike<number>,
  { timeAt, levelAt, next }: Sampler,
  start = 0,
  masks = false,
): Promise<Float64Array> {
  const session = await Session.open(parse(text), { threads: 1, optimise: "disabled", prepack: false });
  const image = tensorFloats(IMAGE);
  const noised = ([signal, amount]: readonly [number, number], i: number): number =>
    signal * (image[i] ?? NaN) + amount * (noise[i] ?? NaN);
  let latent = Float64Array.from(noise);
  if (start > 0) latent = latent.map((_, i) => noised(levelAt(start), i));
  for (let k = start; k < STEPS; k++) {
    const mask = masks ? masksAt(k) : tensorNumbers(MASK);
    const feeds = { x: tensorOf("float", SHAPE, latent), t: tensorOf("int64", [BATCH], [timeAt(k), timeAt(k)]), size: tensorOf("float", [2], [0.3, 0.7]) }; // prettier-ignore
    const out = tensorNumbers((await session.run(new Map(Object.entries(feeds)))).get("out") ?? IMAGE);
    latent = latent.map((x, i) => {
      const kept = k < STEPS - 1 ? noised(levelAt(k + 1), i) : (image[i] ?? NaN);
      return (1 - (mask[i] ?? NaN)) * kept + (mask[i] ?? NaN) * next(x, out[i] ?? NaN, k);
    });
  }
  await session.close();
  return latent;
}

describe.each([...forms.keys()])("an artifact, %s, keeps what the mask says", (form) => {
  const text = tinyStep({ mlps: 2 });

  it.each([
    ["of a flow", FLOW, 0],
    ["of a flow, from a step in the middle", FLOW, 2],
    ["of a schedule that preserves variance", DDIM, 0],
    ["of it, from a step in the middle", DDIM, 2],
  ] as const)("%s", async (_, sampler, start) => {
    const job = await jobOf(text, { scheduler: sampler.config, sampling: sampler.settings ?? {}, ...(start > 0 && { start }) });
    const { noise } = sampleInputs(job, 0, { seed: 3 });
    const expected = await byHand(text, noise, sampler, start);
    expect(relativeL2(await compiled(job, form), expected)).toBeLessThan(1e-5);
    // The first of a latent is kept, the second is made anew.
    const made = await compiled(job, form);
    expect(made[0]).toBeCloseTo(tensorFloats(IMAGE)[0] ?? NaN, 6);
    expect(Math.abs((made[1] ?? NaN) - (tensorFloats(IMAGE)[1] ?? NaN))).toBeGreaterThan(1e-2);
  });

  it("by a mask for each step", async () => {
    const mask = { perStep: true, calibrate: ["masks.npy"] };
    const job = await jobOf(text, { scheduler: FLOW.config, sampling: FLOW.settings, inputs: { mask } });
    const expected = await byHand(text, sampleInputs(job, 0, { seed: 3 }).noise, FLOW, 0, true);
    expect(relativeL2(await compiled(job, form), expected)).toBeLessThan(1e-5);
  });

  it("where original and mask are fixed", async () => {
    const inputs = { image_latent: { fix: "image.npy" }, mask: { fix: "mask.npy" } };
    const job = await jobOf(text, { scheduler: FLOW.config, sampling: FLOW.settings, inputs });
    const { model } = await compileModel(job, planOf(job).plan, { form });
    expect(model.graph.inputs.map(({ name }) => name)).toEqual(["x"]);
    const expected = await byHand(text, sampleInputs(job, 0, { seed: 3 }).noise, FLOW);
    expect(relativeL2(await compiled(job, form), expected)).toBeLessThan(1e-5);
  });

  it.each([
    ["along a plan", FLOW.config, {}],
    ["with noise in every step", { _class_name: "DDPMScheduler", clip_sample: false }, {}],
    ["with a history", { _class_name: "DPMSolverMultistepScheduler" }, {}],
    ["with two evaluations a step", { _class_name: "FlowMatchHeunDiscreteScheduler" }, {}],
    [
      "in two calls",
      FLOW.config,
      { guidance: { form: "two-calls", scale: 3, uncond: { label: 4 } }, inputs: { label: { calibrate: [1] } } },
    ],
  ])("as the oracle does, %s", async (_, scheduler, more) => {
    // The network is told times that are no whole numbers, too.
    const told = tinyStep({ mlps: 2, label: "guidance" in more }).replace("int64[b] t", "float[b] t");
    const job = await jobOf(told, { scheduler, ...more, start: 1 });
    const cells = randomSchedule(job, 4).cells;
    const { plan } = planOf(job, cells);
    const loop = new ReferenceLoop(job.run, { threads: 1 });
    const followed = await loop.run(await startOf(job, 0, { seed: 3 }), { plan });
    await loop.close();
    expect(relativeL2(await compiled(job, form, cells), followed)).toBeLessThan(1e-5);
  });
});

describe("the artifact's inputs", () => {
  it("are noise, the original, and a mask of one channel, or of the latent's shape where channels may be pixels", async () => {
    const job = await jobOf(tinyStep(), { scheduler: FLOW.config, sampling: FLOW.settings });
    const shapes = async (job: Job): Promise<unknown> =>
      (await compileModel(job, planOf(job).plan)).model.graph.inputs.map(({ name, type }) => [name, type?.shape]);
    expect(await shapes(job)).toEqual([
      ["x", [...SHAPE]],
      ["image_latent", [...SHAPE]],
      ["mask", [...SHAPE]],
    ]);
    const dit = resolve(import.meta.dirname, "fixtures", "dit", "dynamo-20.onnx");
    const home = mkdtempSync(join(folder, "x"));
    const scheduler = join(resolve(dit, ".."), "scheduler_config.json");
    writeFileSync(
      join(home, "recipe.json"),
      JSON.stringify({ model: "model.onnx", inpaint: true, steps: 3, guidance: { form: "batched" } }),
    );
    const wide = await openJob(dit, { recipe: join(home, "recipe.json"), scheduler, allowOutside: [resolve(dit, "..")] });
    expect(await shapes(wide)).toEqual(expect.arrayContaining([["mask", [1, 1, 8, 8]]]));
  });

  it("have other names where the network has these", async () => {
    const text = tinyStep({ label: true, words: true }).replace(/\blabel\b/g, "mask").replace(/\bwords\b/g, "image_latent"); // prettier-ignore
    const inputs = { mask: { calibrate: [1] }, image_latent: { calibrate: [2] }, run_mask: { calibrate: ["mask.npy"] }, run_image_latent: { calibrate: ["image.npy"] } }; // prettier-ignore
    const job = await jobOf(text, { scheduler: FLOW.config, sampling: FLOW.settings, inputs });
    const { model } = await compileModel(job, planOf(job).plan);
    expect(model.graph.inputs.map(({ name }) => name)).toEqual(["x", "mask", "image_latent", "run_image_latent", "run_mask"]);
    expect((await compiled(job, "unrolled"))[0]).toBeCloseTo(tensorFloats(IMAGE)[0] ?? NaN, 6);
  });
});

describe("inpainting is refused", () => {
  const text = tinyStep().replace("int64[b] t", "float[b] t");

  it("where the sampler corrects latents, or does not say their level", async () => {
    await expect(jobOf(text, { scheduler: { _class_name: "UniPCMultistepScheduler" } })).rejects.toMatchObject({ code: "NO_LEVELS" });
    const row = { timestep: 500, inputScale: 1, m: { x: 0, out: 1 }, next: { x: [{ step: 0, weight: 1 }], m: [{ step: 0, weight: -1 }], noise: 0 } }; // prettier-ignore
    const rows = [row, { ...row, timestep: 100 }];
    const table = { name: "own", prediction: "flow", initialScale: 1, rows };
    await expect(jobOf(text, { scheduler: table, steps: 2 })).rejects.toThrow("does not say the noise level");
    const level = { signal: 0.5, noise: 0.5 };
    expect(
      (await jobOf(text, { scheduler: { ...table, rows: rows.map((one) => ({ ...one, level })) }, steps: 2 })).run.original,
    ).toBeDefined();
  });

  it("of an original that changes, and where its names are not of the run", async () => {
    const changing = { image_latent: { perStep: true, calibrate: ["image.npy"] } };
    await expect(jobOf(text, { scheduler: FLOW.config, inputs: changing })).rejects.toMatchObject({ code: "BAD_JSON_FIELD" });
    await expect(jobOf(text, { scheduler: FLOW.config, inpaint: false })).rejects.toMatchObject({ code: "UNKNOWN_NAME" });
  });
});

it("a plan of a run without a mask is one of a run with it only where the levels are not asked for", async () => {
  const job = await jobOf(tinyStep(), { scheduler: FLOW.config, sampling: FLOW.settings });
  const plain = await openJob(job.source.folder, { recipe: recipeWithout(job) }, { threads: 1 });
  expect(job.run.of.sampler.digest).not.toBe(plain.run.of.sampler.digest);
});

function recipeWithout(job: Job): string {
  const file = join(job.source.folder, "plain.json");
  const { model, scheduler, steps, batch, timestep, prediction, sampling } = job.source.recipe;
  writeFileSync(file, JSON.stringify({ model, scheduler, steps, batch, timestep, prediction, sampling }));
  return file;
}

it("goes through the commands, from a step in the middle and without a latent of that step", async () => {
  const { source } = await jobOf(tinyStep({ mlps: 2 }), { scheduler: FLOW.config, sampling: FLOW.settings, start: 1 });
  const home = source.folder;
  const [trace, plan, output] = ["trace.json", "plan.json", "out"].map((name) => join(home, name));
  for (const line of [
    ["calibrate", home, "--samples", "1", "-o", trace],
    ["plan", trace, "--model", home, "--policy", "budget", "--share", "0.7", "-o", plan],
    ["compile", home, "--plan", plan, "-o", output],
    ["verify", output],
    ["run", output, "--seed", "1", "--input", `mask=${join(home, "mask.npy")}`, "-o", join(home, "latent.npy")],
  ]) {
    const { exit, stderr } = await cli([...line.map(String), "--quiet", "--threads", "1"]);
    expect({ exit, stderr: stderr.replace(/^warning: .*\n/gm, "") }, line[0]).toEqual({ exit: 0, stderr: "" });
  }
  expect(tensorFloats(readNpy(join(home, "latent.npy")))[0]).toBeCloseTo(tensorFloats(IMAGE)[0] ?? NaN, 6);
});

/** Whole pipelines of random weights, with what diffusers' inpaint pipelines made of them. */
const factors = z.object({ scaling_factor: z.number(), shift_factor: z.number() });
const COMPLETE = resolve(import.meta.dirname, "fixtures", "complete");

describe.each(["sd3", "flux"])("diffusers' own inpainting: %s", (family) => {
  const home = join(COMPLETE, family);
  const read = (...path: readonly string[]): TensorData => readNpy(join(home, "reference", ...path));

  /** [batch, C, H, W] → [batch, H/2 · W/2, 4 C], the channel slowest. */
  function packed({ shape, ...data }: TensorData): TensorData {
    const [batch = 1, channels = 1, height = 1, width = 1] = shape;
    const numbers = tensorNumbers({ shape, ...data });
    const [rows, columns] = [height / 2, width / 2];
    const result = Array.from({ length: batch * rows * columns * channels * 4 }, (_, at) => {
      const [part, token] = [at % (4 * channels), Math.floor(at / (4 * channels))];
      const [channel, y, x] = [Math.floor(part / 4), Math.floor((part % 4) / 2), part % 2];
      const [row, column] = [Math.floor(token / columns) % rows, token % columns];
      const image = Math.floor(token / (rows * columns));
      return numbers[((image * channels + channel) * height + 2 * row + y) * width + 2 * column + x] ?? NaN;
    });
    return tensorOf("float", [batch, rows * columns, 4 * channels], result);
  }

  /** (mean + exp(log variance / 2) · noise − shift) · scale. */
  async function imageLatent(): Promise<TensorData> {
    const session = await Session.open(await readModel(join(home, "vae_encoder", "model.onnx")), { threads: 1, optimise: "disabled" });
    const parameters = (await session.run(new Map([["sample", read("inpaint", "image.npy")]]))).get("latent_parameters");
    await session.close();
    const all = parameters ? tensorNumbers(parameters) : [];
    const { scaling_factor: scale, shift_factor: shift } = factors.parse(
      JSON.parse(readFileSync(join(home, "vae", "config.json"), "utf8")),
    );
    const noise = read("inpaint", "vae_noise.npy");
    const half = all.length / 2;
    return tensorOf("float", noise.shape, tensorNumbers(noise).map((z, i) => ((all[i] ?? NaN) + Math.exp((all[half + i] ?? NaN) / 2) * z - shift) * scale)); // prettier-ignore
  }

  it.skipIf(!existsSync(home))("is what the artifact does", async () => {
    const out = mkdtempSync(join(folder, "x"));
    const given = (name: string): TensorData => read("given", "0", `${name}.npy`);
    const half = ({ elem, shape, ...data }: TensorData, index: number): TensorData => {
      const numbers = tensorNumbers({ elem, shape, ...data });
      const size = numbers.length / 2;
      return tensorOf(elem, [1, ...shape.slice(1)], numbers.slice(index * size, (index + 1) * size));
    };
    const mask = read("inpaint", "mask.npy");
    // Every second row and column, from the first.
    const [height = 0, width = 0] = mask.shape.slice(-2);
    const [rows, columns] = [height / 2, width / 2];
    const small = Array.from({ length: rows * columns }, (_, i) => tensorNumbers(mask)[2 * width * Math.floor(i / columns) + 2 * (i % columns)] ?? NaN); // prettier-ignore
    const isFlux = family === "flux";
    const image = await imageLatent();
    const channels = image.shape[1] ?? 1;
    const arrays: Record<string, TensorData> = {
      image_latent: isFlux ? packed(image) : image,
      mask: isFlux ? packed(tensorOf("float", image.shape, Array.from({ length: channels }, () => small).flat())) : tensorOf("float", [1, 1, rows, columns], small), // prettier-ignore
      ...(isFlux
        ? Object.fromEntries(["encoder_hidden_states", "pooled_projections", "txt_ids", "img_ids"].map((name) => [name, given(name)]))
        : Object.fromEntries(
            ["encoder_hidden_states", "pooled_projections"].flatMap((name) => [
              [name, half(given(name), 1)],
              [`${name}_uncond`, half(given(name), 0)],
            ]),
          )),
    };
    for (const [name, data] of Object.entries(arrays)) writeFileSync(join(out, `${name}.npy`), npyBytes(data));
    const fixed = Object.keys(arrays).filter((name) => !name.endsWith("_uncond"));
    const uncond = { encoder_hidden_states: "encoder_hidden_states_uncond.npy", pooled_projections: "pooled_projections_uncond.npy" };
    const recipe = {
      ...{ model: "model.onnx", scheduler: join(home, "scheduler", "scheduler_config.json"), steps: 8, start: 3, batch: 1, inpaint: true },
      ...(isFlux
        ? { prediction: { channelAxis: 2 }, time: { scale: 0.001 }, guidance: { form: "embedded", scale: 7 }, sampling: { sigmas: "linear", mu: { rule: "linear", axes: [1] } } } // prettier-ignore
        : { guidance: { form: "batched", scale: 7, order: ["uncond", "cond"], uncond } }),
      inputs: Object.fromEntries(fixed.map((name) => [name, { fix: `${name}.npy` }])),
    };
    writeFileSync(join(out, "recipe.json"), JSON.stringify(recipe));
    const network = join(home, "transformer", "model.onnx");
    const job = await openJob(network, { recipe: join(out, "recipe.json"), allowOutside: [COMPLETE] }, { threads: 1 });
    const noise = isFlux ? packed(read("inpaint", "noise.npy")) : read("inpaint", "noise.npy");
    const expected = tensorNumbers(read("inpaint", "latent.npy"));
    for (const form of forms.keys()) expect(relativeL2(await compiled(job, form, undefined, noise), expected)).toBeLessThan(1e-5);
  });
});
