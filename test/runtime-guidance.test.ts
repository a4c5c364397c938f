/** A guidance scale that is an input of the artifact: one artifact at several scales, against the loop of runs that are built for each. */
import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { constant } from "../ir/graph.js";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { rewrite } from "../ir/rewrite.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { forms } from "../passes/index.js";
import { relativeL2 } from "../schedules/index.js";
import { feedsOf, openArtifact } from "../src/artifact/artifact.js";
import { readManifest } from "../src/artifact/manifest.js";
import { verify } from "../src/artifact/verify.js";
import { type Compiled, compileModel } from "../src/compile/compile.js";
import { type Job, openJob, planFor } from "../src/job/job.js";
import { type RunInputs, sampleInputs } from "../src/job/run-inputs.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { Session } from "../src/runtime/session.js";
import { readJson } from "../src/files/json.js";
import { readNpy } from "../src/files/npy.js";
import { cli } from "./support/cli.js";
import { startOf } from "../src/reference/start.js";
import { fixtureNamed } from "./support/fixtures.js";
import { randomSchedule } from "./support/jobs.js";
import { codeOf } from "./support/thrown.js";
import { DDIM, type GuidedCase, LEARNED } from "./support/guided-cases.js";
import { tinyStep } from "./support/tiny-step.js";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-runtime-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** A job on a tiny step of two rows with classes, six steps of DDIM, class 4 for none. */
async function jobAt(
  scale: unknown,
  { guidance, recipe = {}, step = {}, text = (same) => same }: Omit<GuidedCase, "about">,
  runtime = true,
): Promise<Job> {
  const home = mkdtempSync(join(folder, "x"));
  await writeModel(parse(text(tinyStep({ label: true, mlps: 2, ...step }))), join(home, "model.onnx"));
  const halves = guidance["form"] === "batched" || guidance["form"] === "two-calls";
  const facts = {
    ...{ model: "model.onnx", timestep: "t", scheduler: DDIM, steps: 6, batch: 2, prediction: { channelAxis: 2 } },
    guidance: { scale, ...(halves ? { uncond: { label: 4 } } : {}), ...guidance },
    inputs: { size: { calibrate: [[0.3, 0.7]] }, label: { calibrate: [1, 2, 3] } },
    ...(runtime ? { runtime: ["guidance"] } : {}),
    ...recipe,
  };
  writeFileSync(join(home, "recipe.json"), JSON.stringify(facts));
  return openJob(home, {}, { threads: 1 });
}

const compiled = (job: Job, form?: string): Promise<Compiled> => compileModel(job, planFor(job, randomSchedule(job, 7)), { form });

async function artifactOf(job: Job, { model }: Compiled, inputs: RunInputs): Promise<Float32Array> {
  const session = await Session.open(model, { threads: 1, optimise: "disabled" });
  try {
    const latent = (await session.run(feedsOf(job, inputs))).get("latent");
    return Float32Array.from(latent ? tensorNumbers(latent) : []);
  } finally {
    await session.close();
  }
}

async function loopOf(job: Job, inputs: RunInputs): Promise<Float32Array> {
  const loop = new ReferenceLoop(job.run, { threads: 1 });
  try {
    return await loop.run(inputs, { plan: planFor(job, randomSchedule(job, 7)) });
  } finally {
    await loop.close();
  }
}

const inputsAt = (job: Job, scale?: number): RunInputs =>
  sampleInputs(job, 0, { seed: 3, inputs: scale === undefined ? undefined : new Map([["guidance_scale", scale]]) });

/** As a process, for what starts others. */
const CLI = join(import.meta.dirname, "..", "dist", "src", "cli", "cli.js");

/** The build's, no guidance at all, and another. */
const SCALES = [2, 1, 3.5];

const withScalar = (step: string): string => step.replace("float[b] guidance", "float guidance");

const CASES: readonly GuidedCase[] = [
  { about: "batched", guidance: { form: "batched" } },
  { about: "batched, the unconditional half first", guidance: { form: "batched", order: ["uncond", "cond"] } },
  { about: "batched, of a fixed batch", guidance: { form: "batched", interval: [1, 4] }, text: (step) => step.replaceAll("[b", "[4") },
  { about: "batched, some channels, rescaled", guidance: { form: "batched", channels: [1, 3], rescale: { form: "norm" } } },
  { about: "two calls", guidance: { form: "two-calls" } },
  { about: "two calls, some channels, rescaled", guidance: { form: "two-calls", channels: [1, 3], rescale: { form: "std", strength: 0.6 } } },
  { about: "clamped samples and learned variance in one call", guidance: { form: "batched" }, recipe: { scheduler: LEARNED, steps: 3, prediction: { channelAxis: 2, channels: [0, 4] } }, step: { width: 8 } },
  { about: "clamped samples and learned variance in two", guidance: { form: "two-calls" }, recipe: { scheduler: LEARNED, steps: 3, prediction: { channelAxis: 2, channels: [0, 4] } }, step: { width: 8 } },
  { about: "a prediction of the negative", guidance: { form: "two-calls" }, recipe: { prediction: { channelAxis: 2, sign: -1 } } },
  { about: "embedded, a number a row", guidance: { form: "embedded" }, step: { guidance: true } },
  { about: "embedded, a number a row, within an interval", guidance: { form: "embedded", interval: [1, 4] }, step: { guidance: true } },
  { about: "embedded, one number", guidance: { form: "embedded" }, step: { guidance: true }, text: withScalar },
  { about: "embedded, one number, within an interval", guidance: { form: "embedded", interval: [1, 4] }, step: { guidance: true }, text: withScalar },
]; // prettier-ignore

/** The artifact of a job, and the loop of its run, at each scale: both are the loop of a run that is built for this scale. */
async function assertSame(job: Job, made: Compiled, builtFor: (scale: number) => Promise<Job>): Promise<void> {
  const results: Float32Array[] = [];
  for (const scale of SCALES) {
    const built = await builtFor(scale);
    const expected = await loopOf(built, inputsAt(built));
    const result = await artifactOf(job, made, inputsAt(job, scale));
    expect(relativeL2(result, expected)).toBeLessThanOrEqual(1e-5);
    expect(relativeL2(await loopOf(job, inputsAt(job, scale)), expected)).toBeLessThanOrEqual(1e-5);
    results.push(result);
  }
  for (const [i, result] of results.entries()) expect(relativeL2(result, results[(i + 1) % SCALES.length] ?? [])).toBeGreaterThan(1e-3);
  // Without a scale it is the build's.
  expect(await artifactOf(job, made, inputsAt(job))).toEqual(results[0]);
}

describe.each([...forms.keys()])("one artifact, %s, at several scales is the run that was built for each", (form) => {
  it.each(CASES)("$about", async (given) => {
    const job = await jobAt(2, given);
    const made = await compiled(job, form);
    const plain = await compiled(await jobAt(2, given, false), form);
    expect(made.cuda.missing).toEqual([]);
    expect(made.cuda.copies).toHaveLength(plain.cuda.copies.length);
    expect(made.macs).toEqual(plain.macs);
    // In front of the steps: a product, a sum and a split for each weight, and what casts and spreads an embedded scale. None in a step.
    expect(made.nodes.emitted - plain.nodes.emitted).toBeLessThanOrEqual(9);
    await assertSame(job, made, (scale) => jobAt(scale, given, false));
  });
});

describe.each([
  { form: "batched", interval: [1, 4] },
  { form: "two-calls", interval: [2, 4] },
])("rows outside an interval stay without the unconditional half: $form", (guidance) => {
  it("unrolled, with the MACs of a scale that is built in", async () => {
    const job = await jobAt(2, { guidance });
    const made = await compiled(job);
    expect(made.macs).toEqual((await compiled(await jobAt(2, { guidance }, false))).macs);
    // A run that is built for 1 has another plan, as it leaves the half out at all of its rows.
    await assertSame(job, made, (scale) => jobAt(scale === 1 ? 1 + 1e-9 : scale, { guidance }, false));
  });

  it("not in a loop, which has one body", async () => {
    await expect(compiled(await jobAt(2, { guidance }), "loop")).rejects.toMatchObject({ code: "FORM_UNSUPPORTED" });
  });
});

describe("a run that is built for scale 1", () => {
  it.each(["batched", "two-calls"])("keeps the unconditional half, as another scale may be given: %s", async (form) => {
    const given = { guidance: { form } };
    const [job, other] = [await jobAt(1, given), await jobAt(2, given)];
    const [made, same] = [await compiled(job), await compiled(other)];
    expect(made.macs).toEqual(same.macs);
    expect(await artifactOf(job, made, inputsAt(job, 3.5))).toEqual(await artifactOf(other, same, inputsAt(other, 3.5)));
  });

  it("keeps it where it begins late, at the scale that is given", async () => {
    for (const interval of [undefined, [0, 3], [3, 5]]) {
      const given = { guidance: { form: "two-calls", ...(interval && { interval }) }, recipe: { start: 1 } };
      const [job, built] = [await jobAt(1, given), await jobAt(3.5, given, false)];
      const inputs = new Map([["guidance_scale", 3.5]]);
      const [own, expected] = [await startOf(job, 0, { seed: 3, inputs }), await startOf(built, 0, { seed: 3 })];
      expect(relativeL2(own.noise, expected.noise)).toBeLessThanOrEqual(1e-5);
    }
  });
});

describe("the input", () => {
  it("is a float scalar behind the others, and gives way to an input of the network", async () => {
    const ports = async (given: Omit<GuidedCase, "about">): Promise<readonly unknown[]> =>
      (await compiled(await jobAt(2, given))).model.graph.inputs.map(({ name, type }) => [name, type?.elem, type?.shape?.length]);
    const before = [["x", "float", 3], ["size", "float", 1]]; // prettier-ignore
    expect(await ports({ guidance: { form: "two-calls" } })).toEqual([...before, ["label", "int64", 1], ["guidance_scale", "float", 0]]);
    const inputs = { size: { calibrate: [[0.3, 0.7]] }, guidance_scale: { calibrate: [1] } };
    const taken = {
      guidance: { form: "two-calls", uncond: { guidance_scale: 4 } },
      recipe: { inputs },
      text: (step: string) => step.replaceAll("label", "guidance_scale"),
    };
    expect(await ports(taken)).toEqual([...before, ["guidance_scale", "int64", 1], ["run_guidance_scale", "float", 0]]);
  });

  it("is calibrated with what the recipe says, else with the build's scale", async () => {
    const inputs = { size: { calibrate: [[0.3, 0.7]] }, label: { calibrate: [1, 2, 3] } };
    const scaleOf = (job: Job, sample: number): readonly number[] =>
      [sampleInputs(job, sample).conditions.get("guidance_scale")].flatMap((data) => (data ? tensorNumbers(data) : []));
    const plain = await jobAt(2, { guidance: { form: "batched" } });
    const several = await jobAt(2, {
      guidance: { form: "batched" },
      recipe: { inputs: { ...inputs, guidance_scale: { calibrate: [1, 5] } } },
    });
    expect([0, 1, 2].map((sample) => scaleOf(plain, sample))).toEqual([[2], [2], [2]]);
    expect([0, 1, 2].map((sample) => scaleOf(several, sample))).toEqual([[1], [5], [1]]);
  });

  it("does not change what a plan is a plan of", async () => {
    const given = { guidance: { form: "batched" } };
    expect((await jobAt(2, given)).run.of).toEqual((await jobAt(2, given, false)).run.of);
  });

  it.each([
    { about: "a list", scale: [2, 3, 4, 5, 6, 7], form: "batched", message: '"guidance.scale" is a list' },
    { about: "no guidance", scale: 1, form: "none", message: '"guidance.form" is \'none\'' },
    { about: "one that is fixed", scale: 2, form: "batched", recipe: { inputs: { size: { calibrate: [1] }, label: { calibrate: [1] }, guidance_scale: { fix: 3 } } }, message: "fixes it" },
  ])("is refused: $about", async ({ scale, form, recipe = {}, message }) => {
    const refused = expect(jobAt(scale, { guidance: { form }, recipe })).rejects;
    await refused.toMatchObject({ code: "BAD_GUIDANCE" });
    await refused.toThrow(message);
  }); // prettier-ignore

  it("is unknown where the scale is built in, and so is anything else that could be one", async () => {
    const job = await jobAt(2, { guidance: { form: "batched" } }, false);
    expect(codeOf(() => inputsAt(job, 3))).toBe("UNKNOWN_NAME");
    await expect(jobAt(2, { guidance: { form: "batched" }, recipe: { runtime: ["steps"] } })).rejects.toMatchObject({
      code: "UNKNOWN_NAME",
    });
  });

  it("refuses a number that an embedded scale's type does not hold", async () => {
    const text = (step: string): string =>
      step
        .replace("float[b] guidance", "int64[b] whole")
        .replace("e0 = Cast<to = 1>(t)", "e0 = Cast<to = 1>(t)  guidance = Cast<to = 1>(whole)");
    const given = { guidance: { form: "embedded", input: "whole" }, step: { guidance: true }, text };
    const job = await jobAt(2, given);
    expect(codeOf(() => inputsAt(job, 3.5))).toBe("INPUT_NUMBER");
    const built = await jobAt(3, given, false);
    expect(
      relativeL2(await artifactOf(job, await compiled(job), inputsAt(job, 3)), await loopOf(built, inputsAt(built))),
    ).toBeLessThanOrEqual(1e-5);
  });
});

describe("the commands", () => {
  /** An artifact in two calls, of scale 2. */
  async function built(...more: readonly string[]): Promise<string> {
    const home = mkdtempSync(join(folder, "x"));
    await writeModel(parse(tinyStep({ label: true })), join(home, "model.onnx"));
    const guidance = { form: "two-calls", scale: 2, uncond: { label: 4 } };
    // What it is calibrated with is no default.
    const inputs = { size: { fix: 1 }, label: { calibrate: [1, 2] }, ...(more.length > 0 && { guidance_scale: { calibrate: [7] } }) };
    const facts = { model: "model.onnx", timestep: "t", scheduler: DDIM, steps: 6, prediction: { channelAxis: 2 }, guidance, inputs };
    writeFileSync(join(home, "recipe.json"), JSON.stringify(facts));
    const [artifact, plan] = [join(home, "artifact"), join(home, "plan.json")];
    writeFileSync(plan, JSON.stringify({ format: "smoothcc-plan/2", steps: 6, cells: { attn: [1, 0, 1, 0, 1, 0] } }));
    await told("compile", home, "--plan", plan, "-o", artifact, ...more);
    return artifact;
  }

  async function told(...line: readonly string[]): Promise<unknown> {
    const { exit, stdout, stderr } = await cli([...line, "--json", "--quiet"]);
    expect({ exit, stderr: stderr.replace(/^warning: .*\n/gm, "") }).toEqual({ exit: 0, stderr: "" });
    return JSON.parse(stdout);
  }

  async function latentOf(artifact: string, ...more: readonly string[]): Promise<readonly number[]> {
    const file = join(artifact, "..", "latent.npy");
    await told("run", artifact, "--seed", "5", "-o", file, "--force", ...more);
    return tensorNumbers(readNpy(file));
  }

  const checked = z.looseObject({ checks: z.array(z.looseObject({ name: z.string(), ok: z.boolean() })) });

  it("compile, verify, run, report and serve-package take the scale, or that of the manifest", async () => {
    const artifact = await built("--runtime", "guidance");
    const { inputs } = readManifest(artifact);
    expect(inputs.at(-1)).toEqual({ name: "guidance_scale", elem: "float", shape: [], role: "guidance_scale", default: 2 });
    const { checks } = checked.parse(await told("verify", artifact));
    const names = checks.map(({ name }) => name);
    expect(names).toContain("artifact = plan-aware loop over the original step");
    expect(names).toContain("artifact = plan-aware loop at guidance_scale 1 and 3");
    const [own, given, same, input] = [
      await latentOf(artifact),
      await latentOf(artifact, "--guidance", "5"),
      await latentOf(artifact, "--guidance", "2"),
      await latentOf(artifact, "--input", "guidance_scale=5"),
    ];
    expect(same).toEqual(own);
    expect(input).toEqual(given);
    expect(relativeL2(given, own)).toBeGreaterThan(1e-3);
    const repository = join(artifact, "..", "models");
    const { folder: served } = z.looseObject({ folder: z.string() }).parse(await told("serve-package", artifact, "-o", repository));
    const config = readFileSync(join(served, "config.pbtxt"), "utf8");
    expect(config).toContain('{ name: "guidance_scale", data_type: TYPE_FP32, dims: [ 1 ], reshape { shape: [ ] } }');
    expect(config).toContain('parameters { key: "guidance_scale.default", value: { string_value: "2" } }');
    expect(config).toContain('parameters { key: "x.draw", value: { string_value: "unit normal" } }');
    await promisify(execFile)(process.execPath, [CLI, "report", artifact, "--quiet"]);
    expect(readFileSync(join(artifact, "report.html"), "utf8")).toContain("2 unless another is given");
  });

  it("verify sees a scale that is not followed", async () => {
    const artifact = await built("--runtime", "guidance");
    const model = await readModel(join(artifact, "model.onnx"));
    const scale = model.graph.inputs.find(({ name }) => name === "guidance_scale");
    const ignored = new Map(scale ? [[scale, constant("two", tensorOf("float", [], [2]))]] : []);
    const graph = { ...rewrite(model.graph, () => undefined, ignored), inputs: model.graph.inputs };
    await writeModel({ ...model, graph }, join(artifact, "model.onnx"));
    const opened = await openArtifact(artifact, { threads: 1, check: false });
    const { checks } = await verify(opened, { threads: 1 });
    expect(checks.filter(({ name }) => name.includes("plan-aware loop")).map(({ ok }) => ok)).toEqual([true, false]);
  });

  it("run refuses a scale where it is built in", async () => {
    const artifact = await built();
    const refused = await cli(["run", artifact, "--guidance", "3", "-o", join(artifact, "..", "latent.npy")]);
    expect(refused.exit).toBe(2);
    expect(refused.stderr).toContain("--runtime guidance");
  });
});

describe.each([
  // The scale is embedded by two layers. What the sum of time and scale goes into was computed in the run before, as text is added to it.
  { name: "flux/torchscript-17", added: 256 * 48 + 48 * 48 },
  { name: "flux/dynamo-20", added: 256 * 48 + 48 * 48 },
  // Here it was not: four layers, for 6 + 6 + 3 + 2 vectors of all modulations, follow from the time alone if the scale is known.
  { name: "flux2/dynamo-23", added: 32 * 48 + 48 * 48 + (6 + 6 + 3 + 2) * 48 * 48 },
])("an embedded scale: $name", ({ name, added }) => {
  const fixture = fixtureNamed(name);
  const jobOf = async (scale: number, runtime: readonly string[], steps = 4): Promise<Job> => {
    const home = mkdtempSync(join(folder, "x"));
    const given = ["encoder_hidden_states", "pooled_projections", "img_ids", "txt_ids"].filter((input) => existsSync(recorded(input)));
    const facts = {
      ...{ model: "model.onnx", scheduler: readJson(fixture.scheduler), steps, time: { scale: 1 / 1000 }, runtime },
      ...{ sampling: { sigmas: "linear", mu: 0.8 }, prediction: { channelAxis: 2 }, guidance: { form: "embedded", scale } },
      inputs: Object.fromEntries(given.map((input) => [input, { calibrate: recordedOnce(input) }])),
    };
    copyFileSync(fixture.model, join(home, "model.onnx"));
    writeFileSync(join(home, "recipe.json"), JSON.stringify(facts));
    return openJob(home, { allowOutside: [fixture.folder] }, { threads: 1 });
  };
  const recorded = (input: string): string => join(fixture.folder, "inputs", `${input}.npy`);
  const recordedOnce = (input: string): readonly string[] => [recorded(input)];

  it("goes with the time, in front of the steps: the layers that follow from these two take one row a step, and nothing else is computed", async () => {
    const job = await jobOf(2, ["guidance"]);
    const [made, plain] = [await compiled(job), await compiled(await jobOf(2, []))];
    await assertSame(job, made, (scale) => jobOf(scale, []));
    expect(made.macs.uncached - plain.macs.uncached).toBe(4 * added);
    expect(made.macs.emitted - plain.macs.emitted).toBe(4 * added);
    expect(made.cuda).toMatchObject({ missing: [], copies: [] });
    // As many nodes for any number of steps.
    const [longer, plainer] = [await compiled(await jobOf(2, ["guidance"], 9)), await compiled(await jobOf(2, [], 9))];
    expect(longer.nodes.emitted - plainer.nodes.emitted).toBe(made.nodes.emitted - plain.nodes.emitted);
  });
});
