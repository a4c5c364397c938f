/** Emitted artifacts: they do what the loop over the exporter's step does, whatever the plan, and their files are as promised. */
import { execFile } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, parse, relative, resolve } from "node:path";
import { promisify } from "node:util";
import { onnx } from "onnx-proto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { constant, ditView, isOp, makeNode } from "../ir/graph.js";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { parse as parseText } from "../ir/parse.js";
import { rewrite } from "../ir/rewrite.js";
import { forms as outputForms } from "../passes/index.js";
import { relativeL2, type Schedule, scheduleJson } from "../schedules/index.js";
import { ArtifactSession, feedsOf, openArtifact, writeArtifact } from "../src/artifact/artifact.js";
import { dataFilesIn, FILES, readManifest } from "../src/artifact/manifest.js";
import { writeUncached } from "../src/artifact/bench.js";
import { build } from "../src/build.js";
import { compileModel } from "../src/compile/compile.js";
import { readJson } from "../src/files/json.js";
import { type Job, cutFor, openJob, planFor } from "../src/job/job.js";
import { readNpy } from "../src/files/npy.js";
import { npzBytes } from "../src/files/npz.js";
import { recipeOverrides } from "../src/cli/options.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { runsOf } from "../src/planning/runs.js";
import { verify } from "../src/artifact/verify.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { type Fixture, fixtureNamed, fixtures } from "./support/fixtures.js";
import { adjusted, type Form, nullClassOf, openFixture, planOf, randomSchedule } from "./support/jobs.js";
import { tinyStep } from "./support/tiny-step.js";

const ROOT = resolve(import.meta.dirname, "..");
const RUNTIME = { threads: 1 };

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-artifact-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Compiles a job along a schedule into a new folder, with nothing in it that keeps it from CUDA; answers with the folder. */
async function emit(job: Job, schedule: Schedule, form?: string): Promise<string> {
  const { plan } = planOf(job, schedule.cells, schedule.adjustments);
  const target = join(mkdtempSync(join(folder, "x")), "artifact");
  const compiled = await compileModel(job, plan, { form });
  // What decides is read by the CPU: a loop has conditions, an unrolled run has none.
  const isUnrolled = form !== "loop";
  expect(compiled.cuda).toMatchObject({ missing: [], ...(isUnrolled && { kernels: compiled.nodes.emitted, copies: [] }) });
  await writeArtifact(target, { job, schedule, compiled }, false);
  return target;
}

/** The artifact of a schedule on disk gives what the loop gives that follows it, and not what the uncached loop gives. */
async function expectLoop(
  job: Job,
  schedule: Schedule,
  { limit = 1e-5, form }: { readonly limit?: number; readonly form?: string } = {},
): Promise<void> {
  const { plan } = planOf(job, schedule.cells, schedule.adjustments);
  const inputs = sampleInputs(job, 0, { seed: 3 });
  const session = await ArtifactSession.open(join(await emit(job, schedule, form), FILES.model), RUNTIME);
  const loop = new ReferenceLoop(job.run, RUNTIME);
  try {
    const truth = await loop.run(inputs, { plan });
    expect(relativeL2(await session.run(feedsOf(job, inputs)), truth)).toBeLessThanOrEqual(limit);
    expect(relativeL2(await loop.run(inputs), truth)).toBeGreaterThan(1e-4);
  } finally {
    await session.close();
    await loop.close();
  }
}

const guidances = (fixture: Fixture): readonly Form[] => (nullClassOf(fixture) === undefined ? ["none"] : ["none", "batched"]);

describe.each(fixtures.flatMap((fixture, i) => guidances(fixture).map((guidance) => ({ ...fixture, fixture, guidance, seed: i }))))(
  "$name, guidance $guidance",
  ({ fixture, guidance, seed }) => {
    it.each([...outputForms.keys()])("computes what the loop over the step computes, along a random plan: %s", async (form) => {
      const job = await openFixture(fixture, guidance);
      await expectLoop(job, randomSchedule(job, seed), { form, limit: fixture.isHalf ? 5e-3 : 1e-5 });
    });
  },
);

it.each(
  (["norm", "gate", "block", "stack"] as const).flatMap((at) =>
    ["lumina2/torchscript-17", "cogvideox/torchscript-17", "flux2/dynamo-23"].map((name) => ({ at, name })),
  ),
)("$name, cut at $at", async ({ at, name }) => {
  const job = await openFixture(fixtureNamed(name), "none", { cut: { at } });
  await expectLoop(job, randomSchedule(job, 2));
});

it("is built without a calibration where nothing asks for one", async () => {
  const dit = fixtureNamed("dit/dynamo-20");
  const overrides = recipeOverrides({ scheduler: dit.scheduler, steps: 6, input: ["class_labels=1"] });
  const plan = join(folder, "there-already.json");
  writeFileSync(plan, JSON.stringify({ attn: [1, 0, 1, 0, 1, 0] }));
  const calibrated = async (policy: string, policyOptions = {}): Promise<boolean> => {
    const output = join(folder, `built-${parse(policy).name}`);
    const stages = new Set<string>();
    const progress = (stage: string): void => void stages.add(stage);
    const built = await build(dit.model, { overrides, output, policy, policyOptions, force: true, samples: 1, runs: 0, seed: 0, threads: 1, progress, warn: () => undefined }); // prettier-ignore
    expect(built.verification.ok).toBe(true);
    const hasCurves = readFileSync(built.report, "utf8").includes("How much the parts change");
    expect([hasCurves, existsSync(join(output, FILES.trace))]).toEqual(stages.has("calibrate") ? [true, true] : [false, false]);
    return stages.has("calibrate");
  };
  expect(await calibrated(plan)).toBe(false);
  expect(await calibrated(resolve(ROOT, "examples/warm-start.js"))).toBe(false);
  const ratios = join(folder, "ratios.json");
  writeFileSync(ratios, JSON.stringify([1, 1, 1, 1, 1, 1]));
  expect(await calibrated("magcache", { ratios, retention: 0 })).toBe(false);
  expect(await calibrated("magcache", { delta: 10, retention: 0 })).toBe(true);
  expect(await calibrated("smoothcache", { alpha: 10 })).toBe(true);
  const reportOf = (policy: string): string => readFileSync(join(folder, `built-${policy}`, FILES.report), "utf8");
  expect(reportOf("smoothcache")).toContain("threshold α = 10");
  expect(reportOf("magcache")).not.toContain("threshold α");
});

it("is timed against an uncached run with the same weights on disk", async () => {
  for (const precision of ["fp32", "fp16"] as const) {
    const job = await openFixture(fixtureNamed("dit/dynamo-20"), "none", { precision });
    const target = await emit(job, randomSchedule(job, 3));
    const beside = mkdtempSync(join(folder, "bench-"));
    const file = await writeUncached(await openArtifact(target, RUNTIME), beside);
    for (const name of dataFilesIn(target)) expect(statSync(join(beside, name)).ino).toBe(statSync(join(target, name)).ino);
    // What is not there yet is what the time comes to, and in half precision the weights that are converted.
    const own = statSync(`${file}.data`, { throwIfNoEntry: false })?.size ?? 0;
    if (precision === "fp32") expect(own).toBeLessThan(statSync(join(target, FILES.data)).size / 10);
    const inputs = sampleInputs(job, 0, { seed: 3 });
    const session = await ArtifactSession.open(file, RUNTIME);
    const loop = new ReferenceLoop(job.run, RUNTIME);
    try {
      const limit = precision === "fp32" ? 1e-5 : 5e-3;
      expect(relativeL2(await session.run(feedsOf(job, inputs)), await loop.run(inputs))).toBeLessThanOrEqual(limit);
    } finally {
      await session.close();
      await loop.close();
    }
  }
});

it("runs a step that lies in a download cache: links to files of other names, with its weights inside or beside it", async () => {
  const [blobs, snapshot] = [join(folder, "blobs"), join(folder, "snapshots", "1")];
  for (const path of [blobs, snapshot]) mkdirSync(path, { recursive: true });
  const fixture = fixtureNamed("dit/torchscript-17");
  for (const external of ["none", {}] as const) {
    const written = await writeModel(await readModel(fixture.model), join(blobs, "step.onnx"), { external });
    for (const [i, file] of ["step.onnx", ...(written.dataFile === undefined ? [] : ["step.onnx.data"])].entries()) {
      renameSync(join(blobs, file), join(blobs, `${i}`));
      rmSync(join(snapshot, file), { force: true });
      symlinkSync(`../../blobs/${i}`, join(snapshot, file));
    }
    const job = await openFixture({ ...fixture, model: join(snapshot, "step.onnx") }, "batched");
    await expectLoop(job, randomSchedule(job, 6));
  }
});

it("is cut where its plan says, and opens so again", async () => {
  const schedule = { steps: 6, cut: "stack", cells: new Map([["*", [1, 1, [[1, 2], [0, -1]], 1, 0, 1] as const]]) }; // prettier-ignore
  const job = await openJob(join(ROOT, "examples/glyphs"), { steps: 6 });
  const own = await cutFor(job, schedule, RUNTIME);
  expect(ditView(own.model).branches.map(({ site }) => site)).toEqual(["block-0-7"]);
  await expectLoop(own, schedule);
  const artifact = await openArtifact(await emit(own, schedule), RUNTIME);
  expect(artifact.schedule.cut).toBe("stack");
  expect((await verify(artifact, { ...RUNTIME, seed: 3, samples: 1 })).checks.map(({ ok }) => ok)).toEqual([true, true, true, true]);
  // Runs of the job that is cut elsewhere follow it, too.
  const runs = runsOf(job, { ...RUNTIME, seed: 3, samples: [0] });
  const loop = new ReferenceLoop(own.run, RUNTIME);
  const truth = await loop.run(sampleInputs(own, 0, { seed: 3 }), { plan: planFor(own, schedule) });
  expect(relativeL2(await runs.run(0, schedule), truth)).toBeLessThan(1e-6);
  expect(await Promise.all(["stack", "gate", "0-99"].map((cut) => runs.fits(cut)))).toEqual([true, true, false]);
  // Where attentions take turns, all blocks are on one chain, whichever layout it has between them.
  const turns = runsOf(await openFixture(fixtureNamed("latte/torchscript-17"), "none"), { ...RUNTIME, seed: 3, samples: [0] });
  expect(await Promise.all(["stack", "block"].map((cut) => turns.fits(cut)))).toEqual([true, true]);
  await loop.close();
  for (const opened of [runs, turns]) await opened.close();
});

it.each([
  { name: "dit/torchscript-17", form: "batched" as const },
  { name: "dit_fp16/dynamo-20", form: "batched" as const },
  { name: "flux2/dynamo-23", form: "none" as const },
])("scales and shifts of what is cached: $name", async ({ name, form }) => {
  const fixture = fixtureNamed(name);
  const job = await openFixture(fixture, form);
  await expectLoop(job, adjusted(job, randomSchedule(job, 4)), { limit: fixture.isHalf ? 5e-3 : 1e-5 });
});

it("is verified by what the exporter's file predicts, too: a mistake of the passes before the loop is one of the loop", async () => {
  const job = await openFixture(fixtureNamed("dit/torchscript-17"), "batched");
  const artifact = await openArtifact(await emit(job, randomSchedule(job, 5)), RUNTIME);
  const { network } = artifact.job;
  // The file has another weight than the network that was bound and lifted.
  const wrong = rewrite(network.read.graph, (node) => {
    const [x, w, ...rest] = node.inputs;
    if (!isOp(node, "Gemm") || !x || !w?.data) return undefined;
    const numbers = tensorNumbers(w.data).map((number, i) => (i === 0 ? number + 1 : number));
    const other = makeNode({ ...node, inputs: [x, constant(w.name, tensorOf("float", w.data.shape, numbers)), ...rest] });
    return { nodes: [other], outputs: other.outputs };
  });
  const { checks } = await verify(
    { ...artifact, job: { ...artifact.job, network: { ...network, read: { ...network.read, graph: wrong } } } },
    { ...RUNTIME, seed: 3, samples: 1 },
  );
  expect(checks.map(({ ok }) => ok)).toEqual([true, true, false]);
  expect(checks[2]?.name).toBe("lifted step = exported step");
});

it("opens with the scales and shifts that it was written with, and knows when they changed", async () => {
  const job = await openFixture(fixtureNamed("dit/torchscript-17"), "none");
  const schedule = adjusted(job, randomSchedule(job, 4));
  const target = await emit(job, schedule);
  const artifact = await openArtifact(target, RUNTIME);
  expect(artifact.plan).toEqual(planOf(job, schedule.cells, schedule.adjustments).plan);
  expect(artifact.manifest.plan).toMatchObject({ tensors: FILES.tensors });
  expect((await verify(artifact, { ...RUNTIME, seed: 3, samples: 1 })).checks.map(({ ok }) => ok)).toEqual([true, true, true]);
  const file = join(target, FILES.tensors);
  const bytes = readFileSync(file);
  // The last vector ends where the directory of the archive begins.
  const at = bytes.readUInt32LE(bytes.length - 6) - 1;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(file, bytes);
  await expect(openArtifact(target, RUNTIME)).rejects.toMatchObject({ code: "ARTIFACT_DAMAGED" });
});

it.each(["dpmsolver++", "sde-dpmsolver++"])("a sampler with a history, and with fresh noise: %s", async (algorithm) => {
  const scheduler = { _class_name: "DPMSolverMultistepScheduler", algorithm_type: algorithm, solver_order: 3 };
  const job = await openFixture(fixtureNamed("dit/torchscript-17"), "batched", { steps: 6, scheduler });
  await expectLoop(job, randomSchedule(job, 5));
});

describe("the manifest says what each input is, and which are drawn", () => {
  const scheduler = { _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 };
  const drawn = { draw: "unit normal" };

  it.each([
    {
      about: "of a run from noise, at a scale that is given",
      recipe: { scheduler, inputs: {}, guidance: { form: "batched", scale: 2, uncond: { label: 4 } }, runtime: ["guidance"] },
      roles: {
        ...{ x: { role: "latent", ...drawn }, size: { role: "condition" }, label: { role: "condition" } },
        guidance_scale: { role: "guidance_scale", default: 2 },
      },
    },
    {
      about: "of a sampler that draws, with an input that has its port's name",
      recipe: { scheduler: { _class_name: "DDPMScheduler", clip_sample: false } },
      name: "noise",
      roles: {
        ...{ x: { role: "latent", ...drawn }, noise: { role: "condition" }, run_noise: { role: "noise", ...drawn } },
        label: { role: "condition" },
      },
    },
    {
      about: "of one that starts late, whose latent is given",
      recipe: { scheduler, start: 2 },
      roles: { x: { role: "latent" }, size: { role: "condition" }, label: { role: "condition" } },
    },
    {
      about: "of one that starts late from an original, and keeps some of it",
      recipe: { scheduler, start: 2, inpaint: true },
      roles: {
        ...{ x: { role: "latent", ...drawn }, size: { role: "condition" }, label: { role: "condition" } },
        ...{ image_latent: { role: "original" }, mask: { role: "mask" } },
      },
    },
  ])("$about", async ({ recipe, roles, name = "size" }) => {
    const home = mkdtempSync(join(folder, "x"));
    const text = tinyStep({ label: true })
      .replace("int64[b] t", "float[b] t")
      .replace(/\bsize\b/g, name);
    await writeModel(parseText(text), join(home, "model.onnx"));
    const facts = { model: "model.onnx", timestep: "t", steps: 4, batch: 2, prediction: { channelAxis: 2 }, ...recipe };
    writeFileSync(join(home, "recipe.json"), JSON.stringify(facts));
    const target = await emit(await openJob(home, {}, RUNTIME), { steps: 4, cells: new Map() });
    const said = readManifest(target).inputs.map(({ name, role, draw, default: number }) => [name, { role, draw, default: number }]);
    expect(Object.fromEntries(said)).toEqual(roles);
  });
});

describe("the glyph model", () => {
  const glyphs = join(ROOT, "examples", "glyphs");
  const reference = join(glyphs, "reference");

  it.each([
    { truth: "ddim-50", scheduler: join(glyphs, "scheduler_config.json"), steps: 50 },
    { truth: "dpmpp-2m-20", scheduler: join(reference, "dpmpp-2m-scheduler_config.json"), steps: 20 },
  ])("draws what diffusers drew: $truth", async ({ truth, scheduler, steps }) => {
    const job = await openJob(glyphs, { batch: 8, scheduler, steps });
    const session = await ArtifactSession.open(join(await emit(job, { steps, cells: new Map() }), FILES.model), {});
    const labels = new Map([["class_labels", join(reference, "class_labels.npy")]]);
    const inputs = sampleInputs(job, 0, { seed: 0, noise: readNpy(join(reference, "noise.npy")), inputs: labels });
    const result = await session.run(feedsOf(job, inputs));
    await session.close();
    expect(relativeL2(result, tensorNumbers(readNpy(join(reference, `${truth}.npy`))))).toBeLessThanOrEqual(1e-4);
  });
});

describe("the files of an artifact", () => {
  it.each(fixtures.filter((fixture) => nullClassOf(fixture) !== undefined && !fixture.isHalf))(
    "$name: a plain static model and its weights, once",
    async (fixture) => {
      const job = await openFixture(fixture, "batched");
      const schedule = randomSchedule(job, 11);
      const target = await emit(job, schedule);
      const model = onnx.ModelProto.decode(readFileSync(join(target, FILES.model)));
      const { graph } = model;
      const names = (values: readonly { readonly name?: string | null }[] | null | undefined): unknown[] =>
        (values ?? []).map((v) => v.name);

      expect(Number(model.irVersion)).toBeLessThanOrEqual(10);
      expect(model.opsetImport.map(({ domain, version }) => [domain, Number(version) <= 23])).toEqual([["", true]]);
      const { latent, conditions } = ditView(job.model);
      const noise = job.run.table.rows.some(({ next }) => next.noise !== 0) ? ["noise"] : [];
      expect(names(graph?.input).sort()).toEqual([latent, ...noise, ...conditions].sort());
      expect(names(graph?.output)).toEqual(["latent"]);
      for (const port of [...(graph?.input ?? []), ...(graph?.output ?? [])]) {
        const dims = port.type?.tensorType?.shape?.dim ?? [];
        expect(dims.filter(({ dimValue }) => !(Number(dimValue) > 0))).toEqual([]);
        expect(Number(dims[0]?.dimValue)).toBe(port.name === "noise" ? 3 : 1);
      }
      const read = new Set([...(graph?.node ?? []).flatMap(({ input }) => input ?? []), "latent"]);
      expect((graph?.node ?? []).filter(({ output }) => !output?.some((name) => read.has(name)))).toEqual([]);
      const opTypes = new Set((graph?.node ?? []).map(({ opType }) => opType ?? ""));
      const unwanted = /^(Constant|ConstantOfShape|Shape|Size|If|Loop|Scan|Identity|Dropout|Multinomial|Bernoulli|Random.*)$/;
      expect([...opTypes].filter((opType) => unwanted.test(opType))).toEqual([]);
      expect((graph?.node ?? []).every(({ domain }) => domain === "")).toBe(true);

      const data = readFileSync(join(target, FILES.data));
      const places = (graph?.initializer ?? []).flatMap(({ name, externalData }) => {
        const fields = new Map((externalData ?? []).map(({ key, value }) => [key, value]));
        if (fields.size === 0) return [];
        expect(fields.get("location"), name ?? "").toBe(FILES.data);
        return [{ offset: Number(fields.get("offset")), length: Number(fields.get("length")) }];
      });
      expect(places.length).toBeGreaterThan(20);
      expect(places.filter(({ offset, length }) => offset % (length < 2 ** 16 ? 64 : 2 ** 16) !== 0)).toEqual([]);
      expect(new Set(places.map(({ offset }) => offset)).size).toBe(places.length);
      // In the order of the file, every range begins after the one before it, and none has the bytes of another.
      places.sort((a, b) => a.offset - b.offset);
      for (const [i, { offset, length }] of places.entries())
        expect(offset + length).toBeLessThanOrEqual(places[i + 1]?.offset ?? data.length);
      const contents = places.map(({ offset, length }) => data.toString("latin1", offset, offset + length));
      expect(new Set(contents).size).toBe(contents.length);

      const metadata = new Map(model.metadataProps.map(({ key, value }) => [key, value]));
      expect(JSON.parse(metadata.get("smoothcc.plan") ?? "")).toEqual(scheduleJson({ ...schedule, of: job.run.of }));
      expect(readJson(join(target, FILES.plan))).toEqual(scheduleJson({ ...schedule, of: job.run.of }));
      expect(metadata.get("smoothcc.data")).toBe(readManifest(target).digests.data);
    },
  );

  it("are the same bytes from another process, place, time zone and language", async () => {
    const fixture = fixtureNamed("dit/torchscript-17");
    const plan = join(folder, "plan.json");
    const cells = { attn: [1, 0, 1, [[0, -1], [2, 2]]], mlp: [1, 1, 0, 0] }; // prettier-ignore
    writeFileSync(plan, JSON.stringify({ format: "smoothcc-plan/1", steps: 4, cells, tensors: "vectors.npz" }));
    const shift = Array.from({ length: 48 }, (_, i) => i / 100);
    writeFileSync(join(folder, "vectors.npz"), npzBytes(new Map([["attn/3/shift", tensorOf("float", [shift.length], shift)]])));
    const compile = async (cwd: string, model: string, env: Record<string, string>): Promise<ReadonlyMap<string, Buffer>> => {
      mkdirSync(cwd);
      const cli = join(ROOT, "dist", "src", "cli", "cli.js");
      const args = ["compile", model, "--plan", plan, "--scheduler", fixture.scheduler, "--steps", "4", "-o", "out", "--quiet"];
      await promisify(execFile)(process.execPath, [cli, ...args], { cwd, env: { ...process.env, ...env } });
      const files = readdirSync(join(cwd, "out")).sort();
      return new Map(files.map((file) => [file, readFileSync(join(cwd, "out", file))]));
    };
    const [here, there] = [join(folder, "here"), join(folder, "there is a longer place")];
    const [a, b] = await Promise.all([
      compile(here, fixture.model, { TZ: "Asia/Kathmandu", LANG: "de_DE.UTF-8", LC_ALL: "de_DE.UTF-8" }),
      compile(there, relative(there, fixture.model), { TZ: "America/St_Johns", LANG: "C", LC_ALL: "C", TMPDIR: folder }),
    ]);
    expect([...a.keys()]).toEqual([...b.keys()]);
    expect([...a.keys()]).toEqual(
      expect.arrayContaining([FILES.model, FILES.data, FILES.manifest, FILES.plan, FILES.tensors, FILES.recipe, FILES.step]),
    );
    for (const [file, bytes] of a) expect(bytes.equals(b.get(file) ?? Buffer.alloc(0)), file).toBe(true);
  });
});
