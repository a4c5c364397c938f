/** Models for Triton: the configuration says what the model says, by the field names of Triton's schema, and the files are there. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onnx } from "onnx-proto";
import protobuf from "protobufjs";
import textformat from "protobufjs/ext/textformat.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { ArtifactSession, feedsOf, openArtifact } from "../src/artifact/artifact.js";
import { FILES } from "../src/artifact/manifest.js";
import { writeSums } from "../src/files/sums.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { cli, type Ran } from "./support/cli.js";

/** The fields of Triton's model_config.proto that are written, with the numbers that they and the enumerations have there. */
const SCHEMA = `
  syntax = "proto3";
  enum DataType {
    TYPE_INVALID = 0; TYPE_BOOL = 1; TYPE_UINT8 = 2; TYPE_UINT16 = 3; TYPE_UINT32 = 4; TYPE_UINT64 = 5; TYPE_INT8 = 6;
    TYPE_INT16 = 7; TYPE_INT32 = 8; TYPE_INT64 = 9; TYPE_FP16 = 10; TYPE_FP32 = 11; TYPE_FP64 = 12; TYPE_STRING = 13; TYPE_BF16 = 14;
  }
  message ModelTensorReshape { repeated int64 shape = 1; }
  message ModelInput { string name = 1; DataType data_type = 2; repeated int64 dims = 4; ModelTensorReshape reshape = 5; }
  message ModelOutput { string name = 1; DataType data_type = 2; repeated int64 dims = 3; ModelTensorReshape reshape = 5; }
  message ModelInstanceGroup {
    enum Kind { KIND_AUTO = 0; KIND_GPU = 1; KIND_CPU = 2; KIND_MODEL = 3; }
    string name = 1; Kind kind = 4; int32 count = 2; repeated int32 gpus = 3;
  }
  message ModelOptimizationPolicy { message Graph { int32 level = 1; } Graph graph = 1; }
  message ModelParameter { string string_value = 1; }
  message ModelConfig {
    string name = 1; int32 max_batch_size = 4; repeated ModelInput input = 5; repeated ModelOutput output = 6;
    repeated ModelInstanceGroup instance_group = 7; ModelOptimizationPolicy optimization = 12;
    map<string, ModelParameter> parameters = 14; string backend = 17;
  }`;
const CONFIG = protobuf.parse(SCHEMA, { keepCase: true }).root.lookupType("ModelConfig");

const tensors = z.array(z.looseObject({ name: z.string(), data_type: z.string(), dims: z.array(z.number()) }));
const configSchema = z.looseObject({ name: z.string(), input: tensors, output: tensors });

const DIT = join(import.meta.dirname, "fixtures", "dit");
let folder = "";
let artifact = "";
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-triton-"));
  artifact = join(folder, "my model");
  const given = ["--scheduler", join(DIT, "scheduler_config.json"), "--steps", "2", "--input", "class_labels=1"];
  const { exit, stderr } = await cli(["compile", join(DIT, "dynamo-20.onnx"), ...given, "--no-cache", "-o", artifact, "--quiet"]);
  if (exit !== 0) throw new Error(stderr);
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

function serve(from: string, repository: string, ...more: readonly string[]): Promise<Ran> {
  return cli(["serve-package", from, "-o", join(folder, repository), "--json", "--quiet", ...more]);
}

function configOf(repository: string, name: string): z.infer<typeof configSchema> {
  const message = textformat.fromText(CONFIG, readFileSync(join(folder, repository, name, "config.pbtxt"), "utf8"));
  return configSchema.parse(CONFIG.toObject(message, { enums: String, longs: Number, arrays: true }));
}

/** The triples of the model file, as another reader has them. */
function portsOf(ports: readonly onnx.IValueInfoProto[] | null | undefined): unknown {
  const names = new Map([[1, "TYPE_FP32"], [7, "TYPE_INT64"], [9, "TYPE_BOOL"], [10, "TYPE_FP16"]]); // prettier-ignore
  return (ports ?? []).map(({ name, type }) => ({
    name,
    data_type: names.get(type?.tensorType?.elemType ?? 0),
    dims: type?.tensorType?.shape?.dim?.map(({ dimValue }) => Number(dimValue)),
  }));
}

it("the configuration says what the model says, and the server's files run", async () => {
  const { exit, stdout } = await serve(artifact, "repository");
  expect(exit).toBe(0);
  const { graph } = onnx.ModelProto.decode(readFileSync(join(artifact, FILES.model)));
  expect(graph?.input?.length).toBe(2);
  const config = configOf("repository", "my_model");
  expect(config).toEqual({
    name: "my_model",
    backend: "onnxruntime",
    max_batch_size: 0,
    input: portsOf(graph?.input),
    output: portsOf(graph?.output),
    instance_group: [{ kind: "KIND_CPU", gpus: [] }],
    optimization: { graph: { level: 2 } },
    parameters: { enable_mem_pattern: { string_value: "0" }, "hidden_states.draw": { string_value: "unit normal" } },
  });
  const model = join(folder, "repository", "my_model");
  const files = readdirSync(model, { recursive: true, encoding: "utf8" }).filter((file) => statSync(join(model, file)).isFile());
  const result = z.object({ folder: z.string(), files: z.array(z.object({ path: z.string(), bytes: z.number() })) });
  const told = result.parse(JSON.parse(stdout));
  expect(told.folder).toBe(model);
  expect(told.files.map(({ path }) => path).sort()).toEqual(files.sort());
  expect(files).toEqual(["1/model.onnx/model.onnx", "1/model.onnx/model.onnx.data", "SHA256SUMS", "config.pbtxt"]);
  for (const { path, bytes } of told.files) expect(bytes).toBe(statSync(join(model, path)).size);

  const { job } = await openArtifact(artifact, { threads: 1 });
  const feeds = feedsOf(job, sampleInputs(job, 0, { seed: 1, inputs: new Map([["class_labels", 1]]) }));
  const results = [];
  for (const file of [join(artifact, FILES.model), join(model, "1", "model.onnx", "model.onnx")]) {
    const session = await ArtifactSession.open(file, { threads: 1 });
    results.push(await session.run(feeds).finally(() => session.close()));
  }
  expect(results[1]).toEqual(results[0]);
});

it.each([
  ["cuda", { kind: "KIND_GPU", gpus: [] }],
  ["cuda:1", { kind: "KIND_GPU", gpus: [1] }],
])("on %s", async (device, group) => {
  await serve(artifact, "devices", "--device", device, "--force");
  expect(configOf("devices", "my_model")).toMatchObject({ instance_group: [group] });
});

it("a repository takes several models, and a model is replaced only where it is ours and that is asked for", async () => {
  expect((await serve(artifact, "several", "--name", "one.two-3")).exit).toBe(0);
  expect((await serve(artifact, "several", "--name", "four")).exit).toBe(0);
  expect((await serve(artifact, "several", "--name", "four")).stderr).toContain("FILE_EXISTS");
  expect((await serve(artifact, "several", "--name", "four", "--force", "--device", "cuda")).exit).toBe(0);
  expect(configOf("several", "four")).toMatchObject({ name: "four", instance_group: [{ kind: "KIND_GPU" }] });
  expect(readdirSync(join(folder, "several")).sort()).toEqual(["four", "one.two-3"]);
  writeFileSync(join(folder, "several", "four", "labels.txt"), "");
  expect((await serve(artifact, "several", "--name", "four", "--force")).stderr).toContain("NOT_REPLACEABLE");
  for (const name of ["..", "a/b", ".a", "-a", "a..b", "a b", ""]) {
    const { exit, stderr } = await serve(artifact, "several", `--name=${name}`);
    expect([exit, stderr]).toEqual([2, expect.stringContaining("BAD_OPTION")]);
  }
});

describe("models of other interfaces", () => {
  const made = async (
    name: string,
    ports: readonly (readonly [name: string, code: number, dims: readonly number[]])[],
  ): Promise<string> => {
    const path = join(folder, name);
    cpSync(artifact, path, { recursive: true });
    rmSync(join(path, FILES.data));
    const infos = ports.map(([name, elemType, dims]) => ({
      name,
      type: { tensorType: { elemType, shape: { dim: dims.map((dimValue) => ({ dimValue })) } } },
    }));
    const node = infos.map(({ name }) => ({ opType: "Identity", input: [name], output: [`${name} out`] }));
    const output = infos.map(({ name, type }) => ({ name: `${name} out`, type }));
    const model = { irVersion: 10, opsetImport: [{ domain: "", version: 20 }], graph: { name: "g", node, input: infos, output } };
    writeFileSync(join(path, FILES.model), onnx.ModelProto.encode(onnx.ModelProto.fromObject(model)).finish());
    await writeSums(path);
    return path;
  };

  it("scalars get a size, and a model without a file of weights is one file", async () => {
    const from = await made(".odd..", [['say "a"', 9, []], ["b\\c", 10, [2, 1]]]); // prettier-ignore
    expect((await serve(from, "odd")).exit).toBe(0);
    const { input } = configOf("odd", "_odd__");
    expect(input).toEqual([
      { name: 'say "a"', data_type: "TYPE_BOOL", dims: [1], reshape: { shape: [] } },
      { name: "b\\c", data_type: "TYPE_FP16", dims: [2, 1] },
    ]);
    expect(statSync(join(folder, "odd", "_odd__", "1", "model.onnx")).isFile()).toBe(true);
  });

  it("types that the server's backend does not take are refused", async () => {
    const { exit, stderr } = await serve(await made("bf16", [["x", 16, [2]]]), "odd");
    expect([exit, stderr]).toEqual([3, expect.stringContaining("UNSUPPORTED_TYPE")]);
  });
});
