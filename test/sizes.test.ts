/**
 * What sizes decide is decided once they are known, and what numbers decide is either fixed by the recipe or refused by its node. The files
 * are people's (`fixtures/reports/`), or one of them with other nodes in the place where it packs its text by a mask. What is right is what
 * ONNX Runtime computes of the same file.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onnx } from "onnx-proto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CompilerError } from "../ir/diagnostics.js";
import { ditView, type Graph, inputValue, isOp, type Model } from "../ir/graph.js";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { rewrite, sweep } from "../ir/rewrite.js";
import { type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { relativeL2 } from "../schedules/index.js";
import { openArtifact, writeArtifact } from "../src/artifact/artifact.js";
import { verify } from "../src/artifact/verify.js";
import { compileModel } from "../src/compile/compile.js";
import { type Job, openJob, planFor } from "../src/job/job.js";
import { Session } from "../src/runtime/session.js";

const REPORTS = join(import.meta.dirname, "fixtures", "reports");
const SCHEDULER = { _class_name: "DDIMScheduler", beta_start: 1e-4, beta_end: 0.02, clip_sample: false, set_alpha_to_one: true };
const MASK = [1, 0, 1];

let folder = "";
let files = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-sizes-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** The job of a file, with these inputs fixed; the others get numbers for calibration. */
async function jobOf(
  model: string,
  fixed: Readonly<Record<string, unknown>> = {},
  more: Readonly<Record<string, unknown>> = {},
): Promise<Job> {
  const recipe = join(folder, `recipe-${files++}.json`);
  const inputs = Object.fromEntries(Object.entries(fixed).map(([name, fix]) => [name, { fix }]));
  writeFileSync(recipe, JSON.stringify({ model: "m.onnx", scheduler: SCHEDULER, steps: 4, inputs, ...more }));
  return openJob(model, { recipe }, { threads: 1 });
}

async function codeAndWords(job: Promise<Job>): Promise<string> {
  try {
    await job;
  } catch (error) {
    if (error instanceof CompilerError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return "fine";
}

/** The packed text with other nodes in place of NonZero and GatherND: `data` [3, 4] are tokens, `cond` [3] a number for each, `out` what is left. */
async function packedBy(nodes: string): Promise<string> {
  const read = await readModel(join(REPORTS, "packed-text.onnx"));
  const snippet = parse(`<ir_version: 8, opset_import: ["" : 17]>
g (float[3,4] data, bool[3] cond, float[1,2,4,4] latent) => (out) < int64[1] zero = {0}, int64 one = {1}, int64 four = {4}, float ten = {10} > { ${nodes} }`);
  const named = (graph: Graph, name: string): Graph["inputs"][number] =>
    graph.inputs.find((input) => input.name === name) ?? inputValue(name);
  const mask = read.graph.nodes.find((node) => isOp(node, "NonZero"))?.inputs[0];
  const graph = rewrite(read.graph, (node) => {
    const [data] = node.inputs;
    if (!isOp(node, "GatherND") || !data || !mask) return undefined;
    const put = rewrite(
      snippet.graph,
      () => undefined,
      new Map([
        [named(snippet.graph, "data"), data],
        [named(snippet.graph, "cond"), mask],
        [named(snippet.graph, "latent"), named(read.graph, "x")],
      ]),
    );
    return { nodes: put.nodes, outputs: put.outputs.map(({ value }) => value) };
  });
  return written({ ...read, graph: sweep(graph) });
}

async function written(model: Model): Promise<string> {
  const file = join(folder, `model-${files++}.onnx`);
  // The mask is bool where it is the condition of the snippet, so types are left to the runtime.
  await writeModel(model, file, { external: "none", valueInfo: false });
  return file;
}

const noise = tensorOf(
  "float",
  [1, 2, 4, 4],
  Array.from({ length: 32 }, (_, i) => Math.sin(3 * i + 1)),
);

/** What ONNX Runtime computes of a model for these inputs, as far as it has them. */
async function run(model: Model, inputs: Readonly<Record<string, TensorData>>): Promise<number[]> {
  const session = await Session.open(model, { optimise: "disabled" });
  try {
    const feeds = model.graph.inputs.flatMap(({ name }) => (inputs[name] ? [[name, inputs[name]] as const] : []));
    const [result] = (await session.run(new Map(feeds))).values();
    return result ? tensorNumbers(result) : [];
  } finally {
    await session.close();
  }
}

const INPUTS = {
  x: noise,
  t: tensorOf("int64", [1], [500]),
  y: tensorOf("int64", [1], [1]),
  text: tensorOf(
    "float",
    [1, 3, 4],
    Array.from({ length: 12 }, (_, i) => Math.cos(i)),
  ),
  mask: tensorOf("int64", [1, 3], MASK),
};

/** Compiles a job with half of its steps cached, and verifies what was written. */
async function verified(job: Job, inputs: ReadonlyMap<string, number>): Promise<readonly boolean[]> {
  const schedule = { steps: 4, cells: new Map([["*", [1, 0, 1, 0] as const]]) };
  const target = join(folder, `artifact-${files++}`);
  await writeArtifact(target, { job, schedule, compiled: await compileModel(job, planFor(job, schedule)) }, false);
  const { checks } = await verify(await openArtifact(target, { threads: 1 }), { threads: 1, samples: 1, seed: 1, inputs });
  return checks.map(({ ok }) => ok);
}

/** Nodes whose sizes the mask decides, and what of them is named. */
const BY_MASK = {
  NonZero: "at = NonZero(cond) turned = Transpose<perm = [1, 0]>(at) out = GatherND(data, turned)",
  Compress: "is = Cast<to = 9>(cond) out = Compress<axis = 0>(data, is)",
  Slice: "numbers = Cast<to = 7>(cond) n = ReduceSum<keepdims = 1>(numbers, zero) out = Slice(data, zero, n, zero)",
  TopK: "numbers = Cast<to = 7>(cond) n = ReduceSum<keepdims = 1>(numbers, zero) key = Cast<to = 1>(cond) best, at = TopK<axis = 0>(key, n) out = Gather(data, at)",
  Unique: "key = Cast<to = 7>(cond) kinds, at = Unique(key) out = Gather(data, at)",
  Range:
    "numbers = Cast<to = 7>(cond) n = ReduceSum<keepdims = 0>(numbers) nil = Squeeze(zero) at = Range(nil, n, one) out = Gather(data, at)",
  If: "numbers = Cast<to = 7>(cond) n = ReduceMax<keepdims = 0>(numbers) is = Equal(n, one) out = If(is) < then_branch = a () => (b) { b = Neg(data) }, else_branch = c () => (d) { d = Abs(data) } >",
};

describe.each(Object.entries(BY_MASK))("%s by a mask", (opType, nodes) => {
  it("computes what the runtime does, where the mask is fixed", async () => {
    const file = await packedBy(nodes);
    const job = await jobOf(file, { mask: MASK });
    expect(ditView(job.model).conditions).toEqual(["text"]);
    expect(ditView(job.model).branches.length).toBe(6);
    const truth = await run(await readModel(file), INPUTS);
    expect(relativeL2(await run(job.model, INPUTS), truth)).toBeLessThan(1e-6);
    expect(await verified(job, new Map([["text", 0.3]]))).toEqual([true, true, true]);
  });

  it("is refused by its name, where it is not", async () => {
    expect(await codeAndWords(jobOf(await packedBy(nodes)))).toMatch(
      new RegExp(`^DATA_DEPENDENT: ${opType} '.+': .+ on the values of 'mask'\\.$`),
    );
  });
});

/** Conditions that sizes decide, side in side, with a name that both sides have. */
const side = (tag: string, op: string): string =>
  `${tag}_branch = ${tag} () => (${tag}_o) { ${tag}_h = ${op}(data) sizes_${tag} = Shape(${tag}_h) last_${tag} = Gather(sizes_${tag}, one) is_${tag} = Equal(last_${tag}, four) ${tag}_o = If(is_${tag}) < then_branch = ${tag}_a () => (${tag}_p) { ${tag}_p = Neg(${tag}_h) }, else_branch = ${tag}_b () => (${tag}_q) { ${tag}_q = Transpose(${tag}_h) } > }`;

it("takes the sides that sizes decide, at any depth, and needs nothing fixed for it", async () => {
  const file = await packedBy(
    `s = Shape(data) width = Gather(s, one) is = Equal(width, four) out = If(is) < ${side("then", "Exp")}, ${side("else", "Abs")} >`,
  );
  const read = await readModel(file);
  expect(read.graph.nodes.some(({ opType }) => opType === "If")).toBe(true);
  const job = await jobOf(file);
  expect(job.model.graph.nodes.some(({ opType }) => opType === "If")).toBe(false);
  expect(relativeL2(await run(job.model, INPUTS), await run(read, INPUTS))).toBeLessThan(1e-6);
  expect(
    await verified(
      job,
      new Map([
        ["text", 0.3],
        ["mask", 1],
      ]),
    ),
  ).toEqual([true, true, true]);
});

it("refuses what the latent decides, whatever is fixed", async () => {
  const chosen = await packedBy(
    "most = ReduceMax<keepdims = 0>(latent) is = Less(most, ten) out = If(is) < then_branch = a () => (b) { b = Neg(data) }, else_branch = c () => (d) { d = Abs(data) } >",
  );
  expect(await codeAndWords(jobOf(chosen, { mask: MASK }))).toMatch(
    /^DATA_DEPENDENT: If '.*': which side of it runs depends on the values of 'x'\.$/,
  );
});

it("looks only at what the prediction needs", async () => {
  const read = await readModel(join(REPORTS, "packed-text.onnx"));
  const graph = rewrite(read.graph, (node) => {
    const [data] = node.inputs;
    return isOp(node, "GatherND") && data ? { nodes: [node], outputs: [data] } : undefined;
  });
  const packed = graph.nodes.find((node) => isOp(node, "GatherND"))?.outputs[0];
  const outputs = [...graph.outputs, ...(packed ? [{ name: "packed", value: packed }] : [])];
  const prediction = { output: graph.outputs[0]?.name };
  const job = await jobOf(await written({ ...read, graph: { ...graph, outputs } }), {}, { prediction });
  expect(job.model.graph.nodes.some(({ opType }) => opType === "NonZero")).toBe(false);
});

it("takes the weights of old exports, which are inputs with a default, for the constants that they are", async () => {
  const read = await readModel(join(REPORTS, "parallel-sum.onnx"));
  const weights = new Set(read.graph.nodes.flatMap(({ inputs }) => inputs.filter((value) => value?.data)));
  const inputs = [...read.graph.inputs, ...[...weights].flatMap((value) => value ?? [])];
  const job = await jobOf(await written({ ...read, graph: { ...read.graph, inputs } }));
  expect(ditView(job.model).conditions).toEqual(["y"]);
  expect(relativeL2(await run(job.model, INPUTS), await run(read, INPUTS))).toBeLessThan(1e-6);
});

describe("files that people have", () => {
  it.each([
    { name: "if-by-shape", dims: { labels: 1 }, branches: 4 },
    { name: "half-cast", dims: {}, branches: 4 },
    { name: "float8-between", dims: {}, branches: 4 },
    { name: "parallel-sum", dims: {}, branches: 2 },
  ])("$name", async ({ name, dims, branches }) => {
    const job = await jobOf(join(REPORTS, `${name}.onnx`), {}, { dims });
    expect(ditView(job.model).branches.length).toBe(branches);
    expect(await verified(job, new Map([["y", 1]]))).toEqual([true, true, true]);
  });

  it("of a version of the format that the runtime does not know", async () => {
    const proto = onnx.ModelProto.decode(readFileSync(join(REPORTS, "parallel-sum.onnx")));
    proto.irVersion = 14;
    const file = join(folder, "ir-14.onnx");
    writeFileSync(file, onnx.ModelProto.encode(proto).finish());
    expect(await verified(await jobOf(file), new Map([["y", 1]]))).toEqual([true, true, true]);
  });
});
