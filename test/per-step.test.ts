/** Inputs with a value for each row of the sampler's table: artifacts against loops that are written here, over sessions of the exported step. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { LATENT } from "../ir/dit.js";
import { dependence } from "../ir/analysis.js";
import { writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { elementCount } from "../ir/types.js";
import { forms } from "../passes/index.js";
import { relativeL2 } from "../schedules/index.js";
import { inspect } from "../src/inspect.js";
import { ArtifactSession, feedsOf } from "../src/artifact/artifact.js";
import { compileModel } from "../src/compile/compile.js";
import { npyBytes } from "../src/files/npy.js";
import { conditionsOf, fitsAnyBatch } from "../src/job/conditions.js";
import { type Job, openJob } from "../src/job/job.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { Session } from "../src/runtime/session.js";
import { cli } from "./support/cli.js";
import { planOf, randomSchedule } from "./support/jobs.js";
import { thrownBy } from "./support/thrown.js";
import { tinyStep } from "./support/tiny-step.js";

const STEPS = 5;
const BATCH = 2;
const SCALE = 3;

/**
 * A step in which `words` [b, 3] goes the time's way, `shade` [b] does so out of a table, `control` [b, 6, 4] is added to the stream behind
 * attention, `strength` [] scales it, and `size` [2] has no axis for the batch.
 */
const STEP = tinyStep({ label: true, words: true, mlps: 2 })
  .replace("float[2] size", "float[2] size, float[b,6,4] control, float strength")
  .replace("h1 = Add(h0, d0)", "bare = Add(h0, d0)  part = Mul(control, strength)  h1 = Add(bare, part)");

const SHAPES = { size: [2], label: [BATCH], words: [BATCH, 3], control: [BATCH, 6, 4], strength: [] } as const;
type Input = keyof typeof SHAPES;

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-per-step-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Rectified flow from 1 to 0: x' = x + (sigma' − sigma) · v, at times that are whole. */
const sigmaAt = (step: number): number => 1 - step / STEPS;
const SCHEDULER = { _class_name: "FlowMatchEulerDiscreteScheduler" };

/** A value of an input at a row, for a half. All of them differ. */
function valueAt(input: Input, row: number, half: "cond" | "uncond"): readonly number[] {
  const seed = 7 * row + (half === "cond" ? 0 : 100) + input.length;
  const count = elementCount(SHAPES[input]);
  if (input === "label") return Array.from({ length: count }, (_, i) => (seed + i) % 5);
  return Array.from({ length: count }, (_, i) => Math.sin(seed + 1.3 * i));
}

const values = (input: Input, rows: readonly number[], half: "cond" | "uncond" = "cond"): TensorData =>
  tensorOf(input === "label" ? "int64" : "float", [rows.length, ...SHAPES[input]], rows.flatMap((row) => valueAt(input, row, half))); // prettier-ignore

const one = (input: Input, half: "cond" | "uncond" = "cond"): TensorData => {
  const { elem, content } = values(input, [0], half);
  return { elem, shape: SHAPES[input], content };
};

interface Course {
  /** The inputs with a value for each row. */
  readonly changing: readonly Input[];
  /** Those of which the unconditional half has values of its own. */
  readonly apart?: readonly Input[];
  readonly start?: number;
}

/** The run as a pipeline would write it: one call of the exported step for each half. */
async function byHand(noise: Float32Array, { changing, apart = [], start = 0 }: Course, guided: boolean): Promise<Float32Array> {
  const session = await Session.open(parse(STEP), { threads: 1, optimise: "disabled", prepack: false });
  const shape = [BATCH, 6, 4];
  let latent = Float64Array.from(noise);
  try {
    for (let step = start; step < STEPS; step++) {
      const predicted = async (half: "cond" | "uncond"): Promise<readonly number[]> => {
        const feeds = Object.keys(SHAPES).map((name): readonly [string, TensorData] => {
          const input = z.enum(["size", "label", "words", "control", "strength"]).parse(name);
          const seen = half === "uncond" && apart.includes(input) ? half : "cond";
          const numbers = valueAt(input, changing.includes(input) ? step : 0, seen);
          return [name, tensorOf(input === "label" ? "int64" : "float", SHAPES[input], numbers)];
        });
        const time = tensorOf("int64", [BATCH], [1, 1].map(() => Math.round(1000 * sigmaAt(step)))); // prettier-ignore
        const results = await session.run(new Map([...feeds, ["x", tensorOf("float", shape, latent)], ["t", time]]));
        const out = results.get("out");
        return out ? tensorNumbers(out) : [];
      };
      const cond = await predicted("cond");
      const uncond = guided ? await predicted("uncond") : cond;
      const length = sigmaAt(step + 1) - sigmaAt(step);
      latent = latent.map((x, i) => x + length * ((uncond[i] ?? NaN) + SCALE * ((cond[i] ?? NaN) - (uncond[i] ?? NaN))));
    }
    return Float32Array.from(latent);
  } finally {
    await session.close();
  }
}

interface Told {
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly guidance?: Readonly<Record<string, unknown>> | undefined;
  readonly more?: Readonly<Record<string, unknown>>;
}

async function folderOf({ inputs, guidance = { form: "none", scale: 1 }, more = {} }: Told): Promise<string> {
  const home = mkdtempSync(join(folder, "x"));
  await writeModel(parse(STEP), join(home, "model.onnx"));
  const rows = Array.from({ length: STEPS }, (_, row) => row);
  for (const half of ["cond", "uncond"] as const) {
    mkdirSync(join(home, half));
    for (const input of ["size", "label", "words", "control", "strength"] as const) {
      writeFileSync(join(home, half, `${input}.npy`), npyBytes(one(input, half)));
      writeFileSync(join(home, half, `${input}s.npy`), npyBytes(values(input, rows, half)));
      writeFileSync(join(home, half, `${input}-late.npy`), npyBytes(values(input, rows.slice(2), half)));
    }
  }
  const recipe = {
    ...{ model: "model.onnx", latent: "x", timestep: "t", scheduler: SCHEDULER, steps: STEPS, batch: BATCH },
    ...{ sampling: { sigmas: "linear" }, prediction: { channelAxis: 2 } },
    ...{ guidance: { scale: SCALE, ...guidance }, inputs, ...more },
  };
  writeFileSync(join(home, "recipe.json"), JSON.stringify(recipe));
  return home;
}

const jobOf = async (told: Told): Promise<Job> => openJob(await folderOf(told), {}, { threads: 1 });

/** What the artifact, uncached, makes of the first sample. */
async function compiled(job: Job, form: string, noise?: TensorData): Promise<Float32Array> {
  const { model } = await compileModel(job, planOf(job).plan, { form });
  const file = join(mkdtempSync(join(folder, "m")), "model.onnx");
  await writeModel(model, file);
  const session = await ArtifactSession.open(file, { threads: 1 });
  try {
    return await session.run(feedsOf(job, sampleInputs(job, 0, { seed: 3, noise })));
  } finally {
    await session.close();
  }
}

/** All inputs as in `course`: those that change by files of rows, the others by one value. */
function inputsOf({ changing, apart = [], start }: Course, how: "calibrate" | "fix"): Record<string, unknown> {
  const files = (input: Input, half: string): unknown => {
    const file = `${half}/${input}${!changing.includes(input) ? "" : start === undefined ? "s" : "-late"}.npy`;
    return { ...(changing.includes(input) && { perStep: true }), [how]: how === "fix" ? file : [file] };
  };
  const own = (["size", "label", "words", "control", "strength"] as const).map((input) => [input, files(input, "cond")] as const);
  return Object.fromEntries([...own, ...apart.map((input) => [`${input}_uncond`, files(input, "uncond")] as const)]);
}

const CHANGING: readonly Input[] = ["label", "words", "control", "strength", "size"];
const APART: readonly Input[] = ["label", "words", "control"];
const uncondOf = (apart: readonly Input[]): Record<string, unknown> => Object.fromEntries(apart.map((input) => [input, { input: true }]));

describe.each([...forms.keys()])("an artifact, %s, is the loop that gives every step its own value", (form) => {
  it.each<{ readonly about: string; readonly course: Course; readonly guidance?: Readonly<Record<string, unknown>> }>([
    ...CHANGING.map((input) => ({ about: `of '${input}'`, course: { changing: [input] } })),
    { about: "of all inputs", course: { changing: CHANGING } },
    ...["batched", "two-calls"].flatMap((name) => [
      { about: `in both halves alike, ${name}`, course: { changing: CHANGING }, guidance: { form: name } },
      { about: `in either half, ${name}`, course: { changing: CHANGING, apart: APART }, guidance: { form: name, uncond: uncondOf(APART) } },
    ]),
    { about: "the unconditional half first", course: { changing: CHANGING, apart: APART }, guidance: { form: "batched", order: ["uncond", "cond"], uncond: uncondOf(APART) } }, // prettier-ignore
  ])("$about", async ({ course, guidance }) => {
    const job = await jobOf({ inputs: inputsOf(course, "calibrate"), guidance });
    const expected = await byHand(sampleInputs(job, 0, { seed: 3 }).noise, course, guidance !== undefined);
    expect(relativeL2(await compiled(job, form), expected)).toBeLessThan(1e-5);
    const fixed = await jobOf({ inputs: inputsOf(course, "fix"), guidance });
    const { model } = await compileModel(fixed, planOf(fixed).plan, { form });
    expect(model.graph.inputs.map(({ name }) => name)).toEqual(["x"]);
    expect(relativeL2(await compiled(fixed, form), expected)).toBeLessThan(1e-5);
    // The steps are told apart: with the first value at all of them it is another result.
    const held = await byHand(sampleInputs(job, 0, { seed: 3 }).noise, { ...course, changing: [] }, guidance !== undefined);
    expect(relativeL2(held, expected)).toBeGreaterThan(1e-3);
  });

  it("of the conditional half alone, beside one value for the other half", async () => {
    const course: Course = { changing: ["words"], apart: ["words"] };
    for (const name of ["batched", "two-calls"]) {
      const guidance = { form: name, uncond: { words: "uncond/words.npy" } };
      const told = { ...inputsOf({ changing: ["words"] }, "calibrate") };
      const job = await jobOf({ inputs: told, guidance });
      const noise = sampleInputs(job, 0, { seed: 3 }).noise;
      const loop = new ReferenceLoop(job.run, { threads: 1 });
      const artifact = await compiled(job, form);
      expect(relativeL2(artifact, await loop.run(sampleInputs(job, 0, { seed: 3 })))).toBeLessThan(1e-5);
      await loop.close();
      expect(relativeL2(artifact, await byHand(noise, course, true))).toBeGreaterThan(1e-3);
    }
  });

  it("in a run that starts late, whose values are those of the rows that are run", async () => {
    const course: Course = { changing: CHANGING, start: 2 };
    const job = await jobOf({ inputs: inputsOf(course, "calibrate"), more: { start: 2 } });
    const noise = tensorOf(
      "float",
      [BATCH, 6, 4],
      Array.from({ length: BATCH * 24 }, (_, i) => Math.cos(i)),
    );
    const expected = await byHand(Float32Array.from(tensorNumbers(noise)), course, false);
    expect(relativeL2(await compiled(job, form, noise), expected)).toBeLessThan(1e-5);
  });

  it("and follows a plan as the oracle does, with guidance that is left out at some steps where the form can say it", async () => {
    const interval = form === "unrolled" ? { interval: [1, 4] } : {};
    const guidance = { form: "batched", uncond: uncondOf(APART), ...interval };
    const job = await jobOf({ inputs: inputsOf({ changing: CHANGING, apart: APART }, "calibrate"), guidance });
    const { plan } = planOf(job, randomSchedule(job, 5).cells);
    const inputs = sampleInputs(job, 0, { seed: 3 });
    const { model } = await compileModel(job, plan, { form });
    const session = await Session.open(model, { threads: 1, optimise: "disabled" });
    const loop = new ReferenceLoop(job.run, { threads: 1 });
    const latent = (await session.run(feedsOf(job, inputs))).get("latent");
    expect(relativeL2(latent ? tensorNumbers(latent) : [], await loop.run(inputs, { plan }))).toBeLessThan(1e-5);
    await session.close();
    await loop.close();
  });
});

describe("what depends on such an input and not on the latent", () => {
  it("stands in front of the steps, once for all of them where rows do not mix", async () => {
    const job = await jobOf({ inputs: inputsOf({ changing: ["words", "label"] }, "calibrate") });
    const { uncached } = await compileModel(job, planOf(job).plan, { form: "unrolled" });
    const count = (opType: string): number => uncached.graph.nodes.filter((node) => node.opType === opType).length;
    expect([count("ReduceMean"), count("Sin")]).toEqual([1, 1]);
    const latents = uncached.graph.inputs.filter(({ name }) => name === "x");
    const dependsOn = dependence(uncached.graph, new Map(latents.map((input) => [input, LATENT])));
    const sine = uncached.graph.nodes.find(({ opType }) => opType === "Sin");
    expect([sine?.outputs[0]?.type?.shape, dependsOn(sine?.outputs[0])]).toEqual([[STEPS * BATCH, 4], 0]);
  });

  it("is folded where the values are fixed", async () => {
    const job = await jobOf({ inputs: inputsOf({ changing: ["words", "label"] }, "fix") });
    const { uncached } = await compileModel(job, planOf(job).plan, { form: "unrolled" });
    const left = new Set(uncached.graph.nodes.map(({ opType }) => opType));
    for (const opType of ["Sin", "ReduceMean", "Gather"]) expect(left.has(opType), opType).toBe(false);
  });
});

describe("values", () => {
  const numbersOf = (job: Job, sample = 0, name = "words"): readonly number[] | undefined => {
    const data = conditionsOf(job, sample).get(name);
    return data && tensorNumbers(data);
  };
  const others = { size: { fix: 1 }, control: { fix: 0 }, strength: { fix: 1 }, label: { fix: 1 } };

  it("are one number for all, a number for each row of the table, or all elements", async () => {
    const told = [5, [1, 2, 3, 4, 5], Array.from({ length: STEPS * 3 }, (_, i) => i), Array.from({ length: STEPS * 6 }, (_, i) => i)];
    const job = await jobOf({ inputs: { ...others, words: { perStep: true, calibrate: told } } });
    expect(told.map((_, sample) => numbersOf(job, sample))).toEqual([
      Array.from({ length: 30 }, () => 5),
      [1, 2, 3, 4, 5].flatMap((value) => Array.from({ length: 6 }, () => value)),
      Array.from({ length: 30 }, (_, i) => 3 * Math.floor(i / 6) + (i % 3)),
      Array.from({ length: 30 }, (_, i) => i),
    ]);
  });

  it("come from a file with one axis more, and for calibration with one for samples in front of it", async () => {
    const job = await jobOf({ inputs: { ...others, words: { perStep: true, calibrate: "all.npy" } }, more: { batch: 2 } });
    const write = (...shape: readonly number[]): void => {
      writeFileSync(join(job.source.folder, "all.npy"), npyBytes(tensorOf("float", shape, Array.from({ length: elementCount(shape) }, (_, i) => i)))); // prettier-ignore
    };
    // Three samples of a row of the batch each: a run of two takes two of them.
    write(3, STEPS, 3);
    const row = (sample: number, step: number): number[] => [0, 1, 2].map((i) => 3 * STEPS * sample + 3 * step + i);
    const steps = Array.from({ length: STEPS }, (_, step) => step);
    expect(numbersOf(job, 0)).toEqual(steps.flatMap((step) => [...row(0, step), ...row(1, step)]));
    expect(numbersOf(job, 1)).toEqual(steps.flatMap((step) => [...row(2, step), ...row(0, step)]));
    write(2, STEPS, BATCH, 3);
    expect(numbersOf(job, 1)).toEqual(Array.from({ length: 30 }, (_, i) => 30 + i));
    write(3, STEPS + 1, 3);
    expect(thrownBy(() => conditionsOf(job, 0))?.message).toContain(`[samples, ${STEPS}, ${BATCH}, 3]`);
  });

  it("may stand in the place of true, and are fixed then", async () => {
    const fixed = await jobOf({ inputs: { ...others, words: { perStep: true, fix: [1, 2, 3, 4, 5] } } });
    const short = await jobOf({ inputs: { ...others, words: { perStep: [1, 2, 3, 4, 5] } } });
    expect(await compiled(short, "unrolled")).toEqual(await compiled(fixed, "unrolled"));
    await expect(jobOf({ inputs: { ...others, words: { perStep: [1, 2, 3, 4, 5], fix: 1 } } })).rejects.toMatchObject({ code: "BAD_JSON_FIELD" }); // prettier-ignore
  });

  it("that are of another number of rows are refused", async () => {
    const words = { words: { perStep: [1, 2, 3, 4] } };
    await expect(jobOf({ inputs: { ...others, ...words } })).rejects.toMatchObject({ code: "INPUT_SHAPE_MISMATCH" });
    const file = { words: { perStep: "cond/words-late.npy" } };
    await expect(jobOf({ inputs: { ...others, ...file } })).rejects.toThrow(`[${STEPS}, ${BATCH}, 3]; what was given has [3, 2, 3]`);
  });

  it("fit any batch where they are numbers", async () => {
    const fits = async (perStep: unknown): Promise<boolean> => fitsAnyBatch(await jobOf({ inputs: { ...others, words: { perStep } } }));
    expect([await fits(1), await fits([1, 2, 3, 4, 5])]).toEqual([true, false]);
  });
});

/** The tiny step with its time embedded outside: `temb` [b, 4] makes the gate, by weights. */
const TOLD = tinyStep({ mlps: 2 })
  .replace("int64[b] t, ", "float[b,4] temb, ")
  .replace(
    "float[1,4] freq =",
    `float[4,4] square = {${Array.from({ length: 16 }, (_, i) => Math.cos(i).toFixed(3)).join(", ")}}, float[1,4] freq =`,
  )
  .replace("e0 = Cast<to = 1>(t)", "")
  .replace("col = Unsqueeze(e0, one)  angle = Mul(col, freq)  sine = Sin(angle)", "act = Tanh(temb)  sine = MatMul(act, square)");

describe("a network whose time is embedded outside", () => {
  async function toldJob(changes: Readonly<Record<string, unknown>>): Promise<Job> {
    const home = mkdtempSync(join(folder, "x"));
    await writeModel(parse(TOLD), join(home, "model.onnx"));
    const recipe = {
      ...{ model: "model.onnx", scheduler: SCHEDULER, steps: STEPS, batch: BATCH, sampling: { sigmas: "linear" } },
      ...{ prediction: { channelAxis: 2 }, timestep: null, ...changes },
    };
    writeFileSync(join(home, "recipe.json"), JSON.stringify(recipe));
    return openJob(home, {}, { threads: 1 });
  }
  const embeddingAt = (step: number): readonly number[] => Array.from({ length: 4 }, (_, i) => Math.sin(10 * sigmaAt(step) * (i + 1)));
  const size = { calibrate: [[0.3, 0.7]] };

  it.each([...forms.keys()])("gets the embedding of every step: %s", async (form) => {
    const temb = Array.from({ length: STEPS }, (_, step) => embeddingAt(step)).flat();
    const job = await toldJob({ inputs: { size, temb: { perStep: true, calibrate: [temb] } } });
    expect(job.model.graph.marks.map(({ site }) => site)).toEqual(["attn-0", "mlp-0", "mlp-1"]);
    const { noise } = sampleInputs(job, 0, { seed: 3 });
    const session = await Session.open(parse(TOLD), { threads: 1, optimise: "disabled", prepack: false });
    let latent = Float64Array.from(noise);
    for (let step = 0; step < STEPS; step++) {
      const two = [embeddingAt(step), embeddingAt(step)].flat();
      const feeds = { x: tensorOf("float", [BATCH, 6, 4], latent), temb: tensorOf("float", [BATCH, 4], two), size: tensorOf("float", [2], [0.3, 0.7]) }; // prettier-ignore
      const out = (await session.run(new Map(Object.entries(feeds)))).get("out");
      const numbers = out ? tensorNumbers(out) : [];
      latent = latent.map((x, i) => x - (numbers[i] ?? NaN) / STEPS);
    }
    await session.close();
    expect(relativeL2(await compiled(job, form), latent)).toBeLessThan(1e-5);
  });

  it("is refused where no input has a value for each step, and where the recipe does not say that there is no time", async () => {
    await expect(toldJob({ inputs: { size } })).rejects.toMatchObject({ code: "BAD_JSON_FIELD" });
    const inputs = { size, temb: { perStep: true } };
    await expect(toldJob({ inputs, timestep: undefined })).rejects.toThrow("The graph has no time");
    await expect(toldJob({ inputs, timestep: "temb" })).rejects.toThrow("'temb' is no time");
  });

  it("is a candidate that inspect names, as what is added behind blocks is", async () => {
    const { inputs } = inspect((await toldJob({ inputs: { size, temb: { perStep: true } } })).model);
    expect(inputs.filter(({ perStep }) => perStep !== undefined).map(({ name }) => name)).toEqual(["temb"]);
    const named = await cli(["inspect", await folderOf({ inputs: { control: { perStep: true } } })]);
    expect(named.stdout).toContain(
      "'control' may be given for each step (\"perStep\" in recipe.json): it is added to the stream behind blocks.",
    );
    // The warning that it is held is for those that are.
    expect(named.stdout).not.toContain("the same at all steps");
    const held = await cli(["inspect", await folderOf({ inputs: {} })]);
    expect(held.stdout).toContain("'control' is added to the stream behind blocks, and is the same at all steps of a run");
  });
});

it("goes through the commands: calibrated, planned, compiled, verified and run from a start in the middle", async () => {
  const course: Course = { changing: CHANGING, start: 2 };
  const home = await folderOf({ inputs: { ...inputsOf(course, "calibrate"), label: { perStep: [1, 2, 3] } }, more: { start: 2 } });
  const [trace, plan, output] = ["trace.json", "plan.json", "out"].map((name) => join(home, name));
  writeFileSync(
    join(home, "noise.npy"),
    npyBytes(
      tensorOf(
        "float",
        [BATCH, 6, 4],
        Array.from({ length: 48 }, (_, i) => Math.cos(i)),
      ),
    ),
  );
  const lines = [
    ["calibrate", home, "--samples", "1", "-o", trace],
    ["plan", trace, "--model", home, "--policy", "smoothcache", "--share", "0.7", "-o", plan],
    ["compile", home, "--plan", plan, "-o", output],
    ["verify", output],
    ["run", output, "--noise", join(home, "noise.npy"), "--input", "words=1,2,3", "-o", join(home, "latent.npy")],
    ["serve-package", output, "-o", join(home, "models")],
  ];
  for (const line of lines) {
    const { exit, stderr } = await cli([...line.map(String), "--quiet", ...(line[0] === "serve-package" ? [] : ["--threads", "1"])]);
    expect({ exit, stderr: stderr.replace(/^warning: .*\n/gm, "") }, line[0]).toEqual({ exit: 0, stderr: "" });
  }
});
