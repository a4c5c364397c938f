/** What `--precision` makes of a model: how far it may be from the loop in float, how large it is, and what stays float in it. */
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Builder } from "../ir/build.js";
import { constant, inputValue, isOp, makeNode, type Model, type Value } from "../ir/graph.js";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { convertTensor, readTensor, type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { elementCount, type FloatType } from "../ir/types.js";
import { runPasses } from "../passes/pass.js";
import precision from "../passes/precision.js";
import { ArtifactSession, feedsOf, openArtifact, writeArtifact, writeEmitted } from "../src/artifact/artifact.js";
import { compileModel } from "../src/compile/compile.js";
import { cudaCoverage } from "../src/compile/cuda-coverage.js";
import { relativeL2 } from "../schedules/index.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { evaluator } from "../src/runtime/evaluator.js";
import { Session } from "../src/runtime/session.js";
import { verify } from "../src/artifact/verify.js";
import { fixtureNamed, fixtures } from "./support/fixtures.js";
import { nullClassOf, openFixture, planOf, randomSchedule } from "./support/jobs.js";
import { modelOf } from "./support/models.js";
import { runNodeByNode } from "./support/node-by-node.js";
import { readSubject } from "./support/pass-case.js";

const RUNTIME = { threads: 1 };

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-precision-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** One export of every architecture in float. */
const exports = fixtures.filter(({ isHalf, folder: own }, i) => !isHalf && fixtures[i - 1]?.folder !== own);

describe.each(exports)("$name", (fixture) => {
  const form = nullClassOf(fixture) === undefined ? "none" : "batched";
  const compiled = async (precision?: "fp16" | "bf16") => {
    const job = await openFixture(fixture, form, { precision });
    const { plan } = planOf(job, randomSchedule(job, 7).cells);
    return { job, plan, model: (await compileModel(job, plan)).model };
  };

  it("in float16 it is half as large and does what the loop in float does", async () => {
    const { job, plan, model } = await compiled("fp16");
    const files = { narrow: join(folder, "narrow.onnx"), wide: join(folder, "wide.onnx") };
    const narrow = await writeEmitted(model, files.narrow);
    const wide = await writeEmitted((await compiled()).model, files.wide);
    expect(narrow.dataBytes / wide.dataBytes).toBeLessThanOrEqual(0.511);
    const inputs = sampleInputs(job, 0, { seed: 3 });
    const session = await ArtifactSession.open(files.narrow, RUNTIME);
    const loop = new ReferenceLoop(job.run, RUNTIME);
    const error = relativeL2(await session.run(feedsOf(job, inputs)), await loop.run(inputs, { plan }));
    await session.close();
    await loop.close();
    expect(error).toBeLessThanOrEqual(1e-3);
    // Something was rounded.
    expect(error).toBeGreaterThan(2e-5);
    expect(cudaCoverage(model).missing).toEqual([]);
  });

  it("in bfloat16 its products are, and all weights, and CUDA has kernels for it", async () => {
    const { model } = await compiled("bf16");
    const { graph } = model;
    const products = graph.nodes.filter((node) => isOp(node, "MatMul", "Gemm", "Attention"));
    expect(products.length).toBeGreaterThan(20);
    expect(products.filter(({ outputs }) => outputs[0]?.type?.elem !== "bfloat16")).toEqual([]);
    // CUDA convolves in bfloat16 since opset 22.
    const readers = graph.nodes.filter((node) => !isOp(node, "Conv", "ConvTranspose"));
    const weights = readers.flatMap(({ inputs }) => inputs.filter((value) => value?.data && elementCount(value.data.shape) > 256));
    expect(weights.filter((value) => value?.type?.elem === "float").map((value) => value?.name)).toEqual([]);
    expect(cudaCoverage(model).missing).toEqual([]);
    expect([...graph.inputs, ...graph.outputs.map(({ value }) => value)].filter(({ type }) => type?.elem === "bfloat16")).toEqual([]);
  });
});

describe("an artifact", () => {
  it("is opened in the precision that it was written in, verified against the step in float, and written the same again", async () => {
    const job = await openFixture(fixtureNamed("dit/torchscript-17"), "batched", { precision: "fp16" });
    const { schedule, plan } = planOf(job, randomSchedule(job, 7).cells);
    const digests = async (name: string): Promise<unknown> => {
      const target = join(folder, name);
      await writeArtifact(target, { job, schedule, compiled: await compileModel(job, plan) }, false);
      return (await openArtifact(target, RUNTIME)).manifest.digests;
    };
    expect(await digests("first")).toEqual(await digests("second"));
    const artifact = await openArtifact(join(folder, "first"), RUNTIME);
    expect(artifact.manifest.recipe.precision).toBe("fp16");
    expect(artifact.job.run.precision).toBe("float16");
    expect(artifact.manifest.inputs.map(({ elem }) => elem)).toEqual(["float", "int64"]);
    const { checks } = await verify(artifact, { ...RUNTIME, seed: 3, samples: 1 });
    expect(checks.map(({ limit, ok }) => ({ limit, ok }))).toEqual([
      { limit: 0, ok: true },
      { limit: 5e-3, ok: true },
      // The exporter's step computes in floats, whatever the artifact does.
      { limit: 1e-5, ok: true },
    ]);
    expect(checks[1]?.relL2).toBeGreaterThan(1e-5);
  });

  it("of bfloat16 is not run on the CPU", async () => {
    const job = await openFixture(fixtureNamed("dit/dynamo-20"), "none", { precision: "bf16" });
    const { schedule, plan } = planOf(job, randomSchedule(job, 7).cells);
    const target = join(folder, "bf16");
    await writeArtifact(target, { job, schedule, compiled: await compileModel(job, plan) }, false);
    const artifact = await openArtifact(target, RUNTIME);
    await expect(verify(artifact, { ...RUNTIME, seed: 3, samples: 1 })).rejects.toMatchObject({ code: "NO_KERNELS" });
  });

  it("of an export in float16 can be in float", async () => {
    const job = await openFixture(fixtureNamed("dit_fp16/dynamo-20"), "batched", { precision: "fp32" });
    const { plan } = planOf(job, randomSchedule(job, 7).cells);
    const { graph } = (await compileModel(job, plan)).model;
    const values = graph.nodes.flatMap(({ inputs, outputs }) => [...inputs, ...outputs]);
    expect(values.filter((value) => value?.type?.elem === "float16" && !graph.inputs.includes(value))).toEqual([]);
  });
});

it.each(["dit/dynamo-20", "ltx/dynamo-20", "sana/dynamo-20"])("%s, every value rounded to float16 as on a GPU", async (name) => {
  const fixture = fixtureNamed(name);
  const job = await openFixture(fixture, nullClassOf(fixture) === undefined ? "none" : "batched", { precision: "fp16" });
  const { plan } = planOf(job, randomSchedule(job, 7).cells);
  const inputs = sampleInputs(job, 0, { seed: 3 });
  const loop = new ReferenceLoop(job.run, RUNTIME);
  const truth = await loop.run(inputs, { plan });
  await loop.close();
  const latent = (await runNodeByNode((await compileModel(job, plan)).model, feedsOf(job, inputs))).get("latent");
  expect(relativeL2(latent ? tensorNumbers(latent) : [], truth)).toBeLessThanOrEqual(1.5e-3);
});

/** x / √(mean(x²) + 10⁻⁶), spelled out, of what a product has made. */
const NORM = `# precision: float16
# latent: x
<ir_version: 10, opset_import: ["" : 20]>
g (float[1,64] x) => (float[1,64] y)
<
  float[64,64] identity = {IDENTITY}, float two = {2}, float eps = {1e-06}, int64[1] last = {-1},
  float[1,64] h, float[1,64] square, float[1,1] mean, float[1,1] shifted, float[1,1] root, float[1,1] inverse, float[1,64] normed
>
{
  h = MatMul(x, identity)
  square = Pow(h, two)
  mean = ReduceMean(square, last)
  shifted = Add(mean, eps)
  root = Sqrt(shifted)
  inverse = Reciprocal(root)
  normed = Mul(h, inverse)
  y = MatMul(normed, identity)
}
`;

it.each([1000, 60000, 1e-4])("a norm that is spelled out is right for numbers of about %d", async (size) => {
  const identity = Array.from({ length: 64 * 64 }, (_, i) => (i % 65 === 0 ? 1 : 0)).join(", ");
  const { model, context } = readSubject(NORM.replace("IDENTITY", identity));
  const x = Array.from({ length: 64 }, (_, i) => size * Math.sin(i + 1));
  const narrow = await runPasses(model, [precision], { ...context, evaluator: evaluator(RUNTIME) });
  const x64 = tensorOf("float", [1, 64], x);
  const y = (await runNodeByNode(narrow, new Map([["x", x64]]))).get("y") ?? x64;
  const root = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / 64 + 1e-6);
  expect(
    relativeL2(
      tensorNumbers(y),
      x.map((value) => value / root),
    ),
  ).toBeLessThanOrEqual(1e-3);
});

async function outputOf(model: Model, input: string, data: TensorData): Promise<TensorData> {
  const session = await Session.open(model, { ...RUNTIME, optimise: "disabled" });
  const [first] = (await session.run(new Map([[input, data]]))).values();
  await session.close();
  return first ?? data;
}

describe("weights in a file", () => {
  /** More than the writer reads at once, and no whole number of its reads. */
  const COUNT = 600_001;
  const numbers = Float32Array.from({ length: COUNT }, (_, i) => Math.sin(i) * 2 ** ((i % 40) - 20));

  /** x · w with w in the file `name`.data, and w in another type. */
  async function narrowed(name: string, to: FloatType): Promise<{ readonly model: Model; readonly data: string }> {
    const file = join(folder, `${name}.onnx`);
    await writeModel(productWith(constant("w", tensorOf("float", [COUNT], numbers))), file);
    const [node] = (await readModel(file)).graph.nodes;
    const w = node?.inputs[1]?.data;
    if (!w) throw new Error("the weights are gone");
    return { model: productWith(constant("w", convertTensor(w, to))), data: `${file}.data` };
  }

  function productWith(w: Value): Model {
    const x = inputValue("x", { elem: w.type?.elem ?? "float", shape: [] });
    const build = new Builder();
    const y = build.op("Mul", [x, w], "y", { elem: w.type?.elem ?? "float", shape: [COUNT] });
    return modelOf({ inputs: [x], outputs: [{ name: "y", value: y }], nodes: build.nodes });
  }

  it.each(["float16", "bfloat16"] as const)("are written as %s, each number rounded, and twice the same", async (to) => {
    const { model } = await narrowed(`source-${to}`, to);
    expect(model.graph.nodes[0]?.inputs[1]?.data?.content.kind).toBe("converted");
    const files = ["a", "b"].map((name) => join(folder, `${name}-${to}.onnx`));
    for (const file of files) expect((await writeModel(model, file)).dataBytes).toBe(2 * COUNT);
    const [first, second] = files.map((file) => readFileSync(`${file}.data`));
    expect(first?.equals(readTensor(tensorOf(to, [COUNT], numbers)))).toBe(true);
    expect(first?.equals(second ?? Buffer.alloc(0))).toBe(true);
  });

  it("are written once, whoever reads them", async () => {
    const { model } = await narrowed("shared", "float16");
    const w = model.graph.nodes[0]?.inputs[1]?.data;
    if (!w) throw new Error("the weights are gone");
    const [first, second] = [constant("w", w), constant("again", { ...w, content: { ...w.content } })];
    const sum = makeNode({ opType: "Add", inputs: [first, second], outputs: [{ name: "y", type: { elem: "float16", shape: [COUNT] } }] });
    const file = join(folder, "twice.onnx");
    const outputs = sum.outputs.map((value) => ({ name: "y", value }));
    expect((await writeModel(modelOf({ inputs: [], outputs, nodes: [sum] }), file)).dataBytes).toBe(2 * COUNT);
  });

  it("are converted by the runtime where a session is opened on the model itself", async () => {
    const { model } = await narrowed("evaluated", "float16");
    const y = await outputOf(model, "x", tensorOf("float16", [], [1]));
    expect(Buffer.from(readTensor(y)).equals(readTensor(tensorOf("float16", [COUNT], numbers)))).toBe(true);
  });

  it("that are gone or short are reported", async () => {
    const { model, data } = await narrowed("lost", "float16");
    truncateSync(data, statSync(data).size - 1);
    await expect(writeModel(model, join(folder, "short.onnx"))).rejects.toMatchObject({ code: "EXTERNAL_DATA_SHORT" });
    rmSync(data);
    await expect(writeModel(model, join(folder, "gone.onnx"))).rejects.toMatchObject({ code: "FILE_MISSING" });
  });
});
