/** A batch that each run chooses: one artifact at several batches, against the loop of a job that is bound to each. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { Builder } from "../ir/build.js";
import { constant } from "../ir/graph.js";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { elementCount } from "../ir/types.js";
import { isPartialCell, relativeL2, type Schedule, type ScheduleCell } from "../schedules/index.js";
import { feedsOf, openArtifact } from "../src/artifact/artifact.js";
import { readManifest } from "../src/artifact/manifest.js";
import { packageModel } from "../src/artifact/triton.js";
import { verify } from "../src/artifact/verify.js";
import { type Compiled, compileModel } from "../src/compile/compile.js";
import { readNpy } from "../src/files/npy.js";
import { type Job, openJob, planFor, withBatch } from "../src/job/job.js";
import type { InputSpecs } from "../src/job/recipe.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { startOf } from "../src/reference/start.js";
import { Session } from "../src/runtime/session.js";
import { cli } from "./support/cli.js";
import { fixtureNamed } from "./support/fixtures.js";
import { partialSchedule, randomSchedule } from "./support/jobs.js";
import { DDIM, type Facts, type GuidedCase, LEARNED } from "./support/guided-cases.js";
import { tinyStep } from "./support/tiny-step.js";

const COMPLETE = join(import.meta.dirname, "fixtures", "complete");

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-batch-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** The folder of a tiny step with classes and its recipe: six steps of DDIM, class 4 for none. */
async function home(
  { guidance, recipe = {}, step = {}, text = (same) => same }: Omit<GuidedCase, "about">,
  runtime: readonly string[],
): Promise<string> {
  const made = mkdtempSync(join(folder, "x"));
  await writeModel(parse(text(tinyStep({ label: true, mlps: 2, ...step }))), join(made, "model.onnx"));
  const halves = guidance["form"] === "batched" || guidance["form"] === "two-calls";
  const facts = {
    ...{ model: "model.onnx", timestep: "t", scheduler: DDIM, steps: 6, batch: 2, prediction: { channelAxis: 2 } },
    guidance: { scale: 2, ...(halves ? { uncond: { label: 4 } } : {}), ...guidance },
    ...{ inputs: { size: { calibrate: [[0.3, 0.7]] }, label: { calibrate: [1, 2, 3] } }, runtime, ...recipe },
  };
  writeFileSync(join(made, "recipe.json"), JSON.stringify(facts));
  return made;
}

const jobOf = async (given: Omit<GuidedCase, "about">, runtime: readonly string[] = ["batch"]): Promise<Job> =>
  openJob(await home(given, runtime), {}, { threads: 1 });

const scheduleOf = (job: Job): Schedule => randomSchedule(job, 7);
const compiled = (job: Job, form?: string): Promise<Compiled> => compileModel(job, planFor(job, scheduleOf(job)), { form });

/** Values of a run's inputs that differ from latent to latent. */
function valuesOf({ model }: Compiled, batch: number, given: InputSpecs = new Map()): InputSpecs {
  const drawn = model.graph.inputs.slice(1).filter(({ name }) => name !== "noise");
  const specs = drawn.map(({ name, type }, k): [string, InputSpecs extends ReadonlyMap<string, infer Spec> ? Spec : never] => {
    const count = elementCount((type?.shape ?? []).map((size) => (size === "batch" ? batch : Number(size))));
    const known = given.get(name);
    const numbers = Array.from({ length: count }, (_, i) => (type?.elem === "int64" ? (3 * i + k + 1) % 4 : (1 + Math.sin(i + k)) / 2));
    return [name, known ?? (type?.shape?.length === 0 ? (numbers[0] ?? 0) : [numbers[0] ?? 0, ...numbers.slice(1)])];
  });
  return new Map(specs);
}

/** How far a model, given as what runs it, is from the loop of the job at a batch. */
async function distance(
  job: Job,
  made: Compiled,
  batch: number,
  run: (feeds: ReturnType<typeof feedsOf>) => Promise<Float32Array>,
  { given, schedule = scheduleOf }: { readonly given?: InputSpecs | undefined; readonly schedule?: (job: Job) => Schedule } = {},
): Promise<number> {
  const own = await withBatch(job, batch, { threads: 1 });
  const inputs = await startOf(own, 0, { seed: 3, threads: 1, inputs: valuesOf(made, batch, given) });
  const loop = new ReferenceLoop(own.run, { threads: 1 });
  try {
    const expected = await loop.run(inputs, { plan: planFor(own, schedule(own)) });
    return relativeL2(await run(feedsOf(own, inputs)), expected);
  } finally {
    await loop.close();
  }
}

/** The run at batches 1, 2 and 3, with and without its plan, is the loop. */
async function assertSame(job: Job, made: Compiled, given?: InputSpecs, schedule?: (job: Job) => Schedule): Promise<void> {
  const session = await Session.open(made.model, { threads: 1, optimise: "disabled" });
  const run = async (feeds: ReturnType<typeof feedsOf>): Promise<Float32Array> => {
    const latent = (await session.run(feeds)).get("latent");
    return Float32Array.from(latent ? tensorNumbers(latent) : []);
  };
  try {
    for (const batch of [1, 2, 3])
      expect(await distance(job, made, batch, run, { given, ...(schedule && { schedule }) })).toBeLessThanOrEqual(1e-5);
  } finally {
    await session.close();
  }
}

/** Adds the place of each token, 0 to 5, in a list of the tokens of all latents, and what is the same along the tokens in one of tokens first. */
function withPlaces(step: string): string {
  const nodes = [
    "of = Shape<start = 0, end = 1>(x)  repeats = Concat<axis = 0>(of, one)  list = Tile(places, repeats)",
    "flat = Reshape(scaled, tokens)  placed = Add(flat, list)  back = Reshape(placed, like)",
    "across = Concat<axis = 0>(one, of)  wide = Tile(places, across)  turned = Transpose<perm = [1, 0, 2]>(back)",
    "rows = Reshape(turned, tokens)  apart = Reshape(wide, column)  moved = Mul(rows, apart)  token = Reshape(moved, first)",
    "more = Transpose<perm = [1, 0, 2]>(token)  out = MatMul(more, w_out)",
  ];
  return step
    .replace("out = MatMul(scaled, w_out)", nodes.join("  "))
    .replace("float[1,4] freq", "float[6,1] places = {0.1, 0.7, 0.2, 0.4, 0.9, 0.3}, int64[2] tokens = {-1, 4}, int64[3] like = {-1, 6, 4}, int64[2] column = {-1, 1}, int64[3] first = {6, -1, 4}, float[1,4] freq"); // prettier-ignore
}

const CASES: readonly GuidedCase[] = [
  { about: "no guidance", guidance: { form: "none", scale: 1 } },
  { about: "batched", guidance: { form: "batched" } },
  { about: "batched, the unconditional half first, with steps without it", guidance: { form: "batched", order: ["uncond", "cond"], interval: [1, 4] } },
  { about: "batched, some channels, rescaled by deviations", guidance: { form: "batched", channels: [1, 3], rescale: { form: "std", strength: 0.6 } } },
  { about: "batched, rescaled by norms", guidance: { form: "batched", rescale: { form: "norm" } } },
  { about: "two calls", guidance: { form: "two-calls" } },
  { about: "two calls, some channels, rescaled", guidance: { form: "two-calls", channels: [1, 3], rescale: { form: "norm" } } },
  { about: "an unconditional half that is given", guidance: { form: "batched", uncond: { label: { input: true } } } },
  { about: "an embedded scale", guidance: { form: "embedded" }, step: { guidance: true } },
  { about: "clamped samples and learned variance in one call", guidance: { form: "batched" }, recipe: { scheduler: LEARNED, steps: 3, prediction: { channelAxis: 2, channels: [0, 4] } }, step: { width: 8 } },
  { about: "clamped samples and learned variance in two", guidance: { form: "two-calls" }, recipe: { scheduler: LEARNED, steps: 3, prediction: { channelAxis: 2, channels: [0, 4] } }, step: { width: 8 } },
  { about: "a class that is fixed", guidance: { form: "batched" }, recipe: { inputs: { size: { fix: [0.3, 0.7] }, label: { fix: 2 } } } },
  { about: "classes for each step", guidance: { form: "batched" }, recipe: { inputs: { size: { calibrate: [[0.3, 0.7]] }, label: { perStep: [0, 1, 2, 3, 1, 0] } } } },
  { about: "places that are repeated for each latent, and each place for all", guidance: { form: "batched" }, text: withPlaces },
  { about: "a mask and an original", guidance: { form: "batched" }, recipe: { inpaint: true, inputs: { size: { calibrate: [[0.3, 0.7]] }, label: { calibrate: [1] }, image_latent: { calibrate: [0.5] }, mask: { calibrate: [1] } } } },
]; // prettier-ignore

describe("the artifact of one batch is that of any", () => {
  it("is any where some tokens are computed", async () => {
    const job = await jobOf({ guidance: { form: "batched" } });
    const schedule = (of: Job): Schedule => {
      const cells = [...partialSchedule(of, 5).cells].map(([name, row]): [string, readonly ScheduleCell[]] => [
        name,
        row.map((cell) => (isPartialCell(cell) ? { tokens: 0.5, by: "stagger", kv: "cached" } : cell)),
      ]);
      return { steps: of.run.rows.length, cells: new Map(cells) };
    };
    await assertSame(job, await compileModel(job, planFor(job, schedule(job))), undefined, schedule);
    const chosen = ({ run }: Job): Schedule => ({
      steps: run.rows.length,
      cells: new Map([["mlp", [1, { tokens: 0.5, by: "change" }, { tokens: 0.5, by: "stagger" }, { tokens: 0.3, by: "change" }, 1, 1]]]),
    });
    await assertSame(job, await compileModel(job, planFor(job, chosen(job))), undefined, chosen);
  });

  it.each(CASES)("$about", async (given) => {
    const job = await jobOf(given);
    await assertSame(job, await compiled(job));
  });

  it("with a guidance scale that is given as well", async () => {
    for (const form of ["batched", "two-calls"]) {
      const job = await jobOf({ guidance: { form } }, ["guidance", "batch"]);
      await assertSame(job, await compiled(job), new Map([["guidance_scale", 3.5]]));
    }
  });

  it("costs what one of a fixed batch costs, and a few nodes that tell sizes", async () => {
    for (const form of ["batched", "two-calls"]) {
      const [free, fixed] = [await compiled(await jobOf({ guidance: { form } })), await compiled(await jobOf({ guidance: { form } }, []))];
      expect(free.macs).toEqual(fixed.macs);
      expect(free.model.graph.inputs.map(({ type }) => type?.shape)).toEqual([["batch", 6, 4], [2], ["batch"]]);
      expect(fixed.model.graph.inputs.map(({ type }) => type?.shape)).toEqual([[2, 6, 4], [2], [2]]);
      // One for each of six steps where halves are split, and those that compute sizes.
      expect(free.nodes.emitted - fixed.nodes.emitted).toBeLessThanOrEqual(20);
      expect(free.memory.cache).toBe(fixed.memory.cache);
    }
  });
});

describe("networks that were exported", () => {
  it.each(["batched", "none"])("a DiT with classes: %s", async (form) => {
    const { folder: from, model, scheduler } = fixtureNamed("dit_symbolic/dynamo-20");
    const facts = {
      ...{ model, scheduler, steps: 4, batch: 1, runtime: ["batch"], dims: { height: 8, width: 8 }, prediction: { channels: [0, 4] } },
      guidance: form === "none" ? { form } : { form, scale: 3, uncond: { class_labels: 100 } },
      inputs: { class_labels: { calibrate: [1] } },
    };
    const recipe = join(mkdtempSync(join(folder, "x")), "recipe.json");
    writeFileSync(recipe, JSON.stringify(facts));
    const job = await openJob(model, { recipe, allowOutside: [from] }, { threads: 1 });
    const made = await compiled(job);
    await assertSame(job, made);
    const fixed = await compiled(
      await openJob(model, { recipe: written({ ...facts, runtime: [] }), allowOutside: [from] }, { threads: 1 }),
    );
    expect(made.macs).toEqual(fixed.macs);
    expect(made.nodes.emitted / fixed.nodes.emitted).toBeLessThan(1.2);
  });

  it.skipIf(!existsSync(COMPLETE)).each([
    { name: "aura_flow", form: "batched" },
    { name: "sana", form: "batched" },
    { name: "stable_audio", form: "batched" },
    { name: "wan", form: "two-calls" },
  ])("with text, whose unconditional half is an input, encoder and decoder where there are any: $name", async ({ name, form }) => {
    const job = await openJob(join(COMPLETE, name), { runtime: ["batch"], steps: 3 }, { threads: 1 });
    expect(job.run.guidance.form).toBe(form);
    const made = await compiled(job);
    for (const { value } of made.model.graph.outputs) expect(value.type?.shape?.[0]).toBe("batch");
    const masks = made.model.graph.inputs.flatMap(({ name, type }) =>
      name.includes("mask") && type?.elem === "int64" ? [[name, 1] as const] : [],
    );
    await assertSame(job, made, new Map(masks));
  });

  function written(facts: unknown): string {
    const recipe = join(mkdtempSync(join(folder, "x")), "recipe.json");
    writeFileSync(recipe, JSON.stringify(facts));
    return recipe;
  }
});

describe("what is refused", () => {
  const batched = { guidance: { form: "batched" } };

  it("an export of a fixed batch", async () => {
    await expect(jobOf({ ...batched, text: (step) => step.replaceAll("[b", "[4") })).rejects.toMatchObject({ code: "BATCH_FIXED" });
  });

  it("a network that computes with the number of latents, by the node", async () => {
    const text = (step: string): string =>
      step.replace("out = MatMul(scaled, w_out)", "of = Shape(x)  many = Cast<to = 1>(of)  some = ReduceMax<keepdims = 0>(many)  more = Mul(scaled, some)  out = MatMul(more, w_out)"); // prettier-ignore
    const refused = expect(compiled(await jobOf({ ...batched, text }))).rejects;
    await refused.toMatchObject({ code: "BATCH_FIXED" });
    await refused.toThrow("Mul '");
  });

  it("classes that are fixed and differ from latent to latent", async () => {
    const recipe = { inputs: { size: { fix: 1 }, label: { fix: [1, 2] } } };
    const refused = expect(compiled(await jobOf({ ...batched, recipe }))).rejects;
    await refused.toMatchObject({ code: "BATCH_FIXED" });
    await refused.toThrow("label");
  });

  it("a loop, whose steps are no nodes of the run", async () => {
    await expect(compiled(await jobOf(batched), "loop")).rejects.toMatchObject({ code: "FORM_UNSUPPORTED" });
  });
});

describe("the commands", () => {
  const fixed = { size: { fix: 1 }, label: { calibrate: [1, 2] } };

  async function built(recipe: Facts, ...more: readonly string[]): Promise<string> {
    const made = await home({ guidance: { form: "batched" }, recipe: { ...recipe } }, []);
    const [artifact, plan] = [join(made, "artifact"), join(made, "plan.json")];
    writeFileSync(plan, JSON.stringify({ format: "smoothcc-plan/2", steps: 6, cells: { attn: [1, 0, 1, 0, 1, 0] } }));
    await told("compile", made, "--plan", plan, "-o", artifact, ...more);
    return artifact;
  }

  async function told(...line: readonly string[]): Promise<unknown> {
    const { exit, stdout, stderr } = await cli([...line, "--json", "--quiet"]);
    expect({ exit, stderr: stderr.replace(/^warning: .*\n/gm, "") }).toEqual({ exit: 0, stderr: "" });
    return JSON.parse(stdout);
  }

  const checked = z.looseObject({ checks: z.array(z.looseObject({ name: z.string(), ok: z.boolean() })) });

  it("compile, verify, run and serve-package", async () => {
    const artifact = await built({ inputs: fixed }, "--runtime", "batch");
    const { inputs, outputs } = readManifest(artifact);
    expect(inputs.map(({ name, shape }) => [name, shape])).toEqual([["x", ["batch", 6, 4]], ["label", ["batch"]]]); // prettier-ignore
    expect(outputs.map(({ shape }) => shape)).toEqual([["batch", 6, 4]]);
    const { checks } = checked.parse(await told("verify", artifact));
    expect(checks.map(({ name }) => name)).toContain("artifact = plan-aware loop at a batch of 1");
    const file = join(artifact, "..", "latent.npy");
    for (const batch of [1, 3]) {
      await told("run", artifact, "--batch", String(batch), "-o", file, "--force");
      expect(readNpy(file).shape).toEqual([batch, 6, 4]);
    }
    await told("run", artifact, "-o", file, "--force");
    expect(readNpy(file).shape).toEqual([2, 6, 4]);
    const { folder: served } = await packageModel(artifact, join(folder, "models"), { maxBatch: 16 });
    const config = readFileSync(join(served, "config.pbtxt"), "utf8");
    expect(config).toContain("max_batch_size: 16\ndynamic_batching { }\n");
    expect(config).toContain('{ name: "x", data_type: TYPE_FP32, dims: [ 6, 4 ] }');
    expect(config).toContain('{ name: "label", data_type: TYPE_INT64, dims: [ 1 ], reshape { shape: [ ] } }');
  });

  it("run in parts gives the bits of the whole, at another batch as well", async () => {
    const latents: number[][] = [];
    for (const parts of [[], ["--segments", "3"]]) {
      const artifact = await built({ inputs: fixed }, "--runtime", "batch", ...parts);
      const file = join(artifact, "..", "latent.npy");
      await told("run", artifact, "--batch", "3", "--seed", "5", "-o", file);
      latents.push(tensorNumbers(readNpy(file)));
    }
    expect(latents[0]).toHaveLength(3 * 6 * 4);
    expect(latents[1]).toEqual(latents[0]);
  });

  it("verify sees an artifact that is right at its own batch alone", async () => {
    const artifact = await built({ inputs: fixed }, "--runtime", "batch");
    const model = await readModel(join(artifact, "model.onnx"));
    // Adds (batch − 2) to the result.
    const [end] = model.graph.outputs;
    const [x] = model.graph.inputs;
    if (!end || !x) throw new Error("a run without ports");
    const build = new Builder();
    const shape = build.op("Shape", [x], "shape", { elem: "int64", shape: [3] });
    const index = constant("first", tensorOf("int64", [], [0]));
    const batch = build.op("Gather", [shape, index], "rows", { elem: "int64", shape: [] });
    const rows = build.cast(batch, "float", "float_rows");
    const off = build.op("Sub", [rows, constant("two", tensorOf("float", [], [2]))], "off", { elem: "float", shape: [] });
    const value = build.op("Add", [end.value, off], "moved", { elem: "float", shape: ["batch", 6, 4] });
    const graph = { ...model.graph, nodes: [...model.graph.nodes, ...build.nodes], outputs: [{ name: "latent", value }] };
    await writeModel({ ...model, graph }, join(artifact, "model.onnx"));
    const { checks } = await verify(await openArtifact(artifact, { threads: 1, check: false }), { threads: 1 });
    expect(checks.filter(({ name }) => name.includes("plan-aware loop")).map(({ ok }) => ok)).toEqual([true, false]);
  });

  it("serve-package does not put requests together where an input has no axis for the batch", async () => {
    const artifact = await built({}, "--runtime", "batch");
    const { folder: served, maxBatch } = await packageModel(artifact, join(folder, "others"));
    const config = readFileSync(join(served, "config.pbtxt"), "utf8");
    expect(maxBatch).toBeUndefined();
    expect(config).toContain("max_batch_size: 0\n");
    expect(config).not.toContain("dynamic_batching");
    expect(config).toContain('{ name: "x", data_type: TYPE_FP32, dims: [ -1, 6, 4 ] }');
    expect(config).toContain('{ name: "size", data_type: TYPE_FP32, dims: [ 2 ] }');
  });

  it("run refuses a batch where it is built in", async () => {
    const artifact = await built({ inputs: fixed });
    const refused = await cli(["run", artifact, "--batch", "3", "-o", join(artifact, "..", "latent.npy")]);
    expect(refused.exit).toBe(2);
    expect(refused.stderr).toContain("--runtime batch");
  });
});
