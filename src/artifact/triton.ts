/** Packages an artifact as a model in a repository of NVIDIA's Triton server, for its ONNX Runtime backend. */
import { existsSync, statSync } from "node:fs";
import { copyFile, writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { elemOf } from "../../ir/build.js";
import { unsupportedType } from "../../ir/diagnostics.js";
import type { Value } from "../../ir/graph.js";
import { readModel } from "../../ir/onnx/index.js";
import { ELEMENT_TYPES, type ElementType } from "../../ir/types.js";
import { BATCH } from "../../passes/index.js";
import { sizesOfPort } from "./artifact.js";
import { assertWhole, FILES, type Manifest, readManifest } from "./manifest.js";
import { type FolderKind, linked, makeFolder, readSums, replaceFolder, SUMS, writeSums } from "../files/index.js";
import { provider } from "../runtime/index.js";
import { VERSION } from "../words/index.js";

/** Valid model names. Triton refuses empty names and names that lead out of the repository; these also need no escapes in URLs. */
export const MODEL_NAME = /^\w[\w-]*(\.[\w-]+)*$/;

/** The names in Triton's model_config.proto of the element types that its ONNX Runtime backend supports. */
const DATA_TYPES: Partial<Readonly<Record<ElementType, string>>> = {
  bool: "TYPE_BOOL",
  ...{ uint8: "TYPE_UINT8", uint16: "TYPE_UINT16", uint32: "TYPE_UINT32", uint64: "TYPE_UINT64" },
  ...{ int8: "TYPE_INT8", int16: "TYPE_INT16", int32: "TYPE_INT32", int64: "TYPE_INT64" },
  ...{ float16: "TYPE_FP16", float: "TYPE_FP32", double: "TYPE_FP64", string: "TYPE_STRING" },
};

/** A model's folder in a repository. */
const SIGNATURE = "# Written by smoothcc";
const MODEL_FOLDER: FolderKind = {
  called: "a model that smoothcc packaged",
  file: "config.pbtxt",
  text: SIGNATURE,
};

const DEFAULT_MAX_BATCH = 8;

export interface PackageOptions {
  /** The model's name in the server. Default: made from the name of the artifact's folder. */
  readonly name?: string | undefined;
  /** Where the server runs it: `cpu`, `cuda` or `cuda:<id>`; under `cuda`, on each GPU that it has. */
  readonly device?: string | undefined;
  /** The most latents that the server may put together, where the artifact is of any batch. Default: 8. */
  readonly maxBatch?: number | undefined;
  /** Whether a model of this name is replaced. Default: no. */
  readonly force?: boolean | undefined;
  /** Whether to compare the model and its weights with their digests. Default: true. */
  readonly check?: boolean | undefined;
}

/** An input or output in the configuration. */
interface TensorConfig {
  readonly name: string;
  readonly type: string;
  /** Without the batch where the server puts requests together; −1 where a request chooses. */
  readonly dims: readonly number[];
  /** What a client sends that has nothing else in mind: the server has no defaults, and asks for all inputs. */
  readonly default?: number | undefined;
  /** What a client fills it with that has nothing else in mind. */
  readonly draw?: string | undefined;
}

export interface Packaged {
  /** The model's folder in the repository. */
  readonly folder: string;
  readonly name: string;
  /** The most latents of requests that the server puts together; undefined if it does not. */
  readonly maxBatch: number | undefined;
  readonly inputs: readonly TensorConfig[];
  readonly outputs: readonly TensorConfig[];
  /** The files, with paths relative to the folder. `linked`: it is the same file on disk as the artifact's. */
  readonly files: readonly { readonly path: string; readonly bytes: number; readonly linked: boolean }[];
}

/**
 * Writes the files of an artifact that serving needs into a folder of the repository. Throws NOT_AN_ARTIFACT, ARTIFACT_DAMAGED,
 * UNKNOWN_DEVICE, UNSUPPORTED_TYPE, and if there is a model of this name, what `prepareFolder` throws.
 */
export async function packageModel(artifact: string, repository: string, options: PackageOptions = {}): Promise<Packaged> {
  const served: readonly string[] = [FILES.model, FILES.data];
  const { check = true } = options;
  if (check) await assertWhole(artifact, (path) => path === FILES.manifest || served.includes(path));
  const { load, inputs: ports } = readManifest(artifact);
  const { graph } = await readModel(join(artifact, FILES.model));
  const name = options.name ?? modelNameOf(basename(resolve(artifact)));
  const facts = new Map(ports.map(({ name, draw, default: number }) => [name, { draw, default: number }]));
  const isBatched = [...graph.inputs, ...graph.outputs.map(({ value }) => value)].every(({ type }) => type?.shape?.[0] === BATCH);
  const maxBatch = isBatched ? (options.maxBatch ?? DEFAULT_MAX_BATCH) : undefined;
  const inputs = graph.inputs.map((value) => ({ ...tensorConfig(value.name, value, isBatched), ...facts.get(value.name) }));
  const outputs = graph.outputs.map(({ name, value }) => tensorConfig(name, value, isBatched));
  const config = configText({ name, maxBatch, inputs, outputs, load, instances: instancesOf(options.device) });
  const folder = join(repository, name);
  // For Triton, a model of several files is a folder with the name that a single model file would have.
  const parts = served.filter((part) => existsSync(join(artifact, part)));
  const inside = parts.length > 1 ? ["1", FILES.model] : ["1"];
  const sums = check ? readSums(artifact) : undefined;
  const fill = async (partial: string): Promise<Packaged["files"]> => {
    const known = new Map<string, string>();
    await makeFolder(join(partial, ...inside));
    await writeFile(join(partial, "config.pbtxt"), config);
    const files = [{ path: "config.pbtxt", bytes: Buffer.byteLength(config), linked: false }];
    for (const part of parts) {
      const path = [...inside, part].join("/");
      const [own, copy] = [join(artifact, part), join(partial, path)];
      const isLink = await linked(own, copy);
      if (!isLink) await copyFile(own, copy);
      files.push({ path, bytes: statSync(copy).size, linked: isLink });
      const digest = sums?.get(part);
      if (digest !== undefined) known.set(path, digest);
    }
    await writeSums(partial, known);
    return [...files, { path: SUMS, bytes: statSync(join(partial, SUMS)).size, linked: false }];
  };
  return { folder, name, maxBatch, inputs, outputs, files: await replaceFolder(folder, MODEL_FOLDER, options.force ?? false, fill) };
}

/** A name that the server takes, made of another. */
export function modelNameOf(text: string): string {
  return text.replaceAll(/[^\w.-]|^[.-]|\.(?=\.|$)/g, "_");
}

function tensorConfig(name: string, value: Value, isBatched: boolean): TensorConfig {
  const elem = elemOf(value);
  const type = DATA_TYPES[elem];
  if (type === undefined) throw unsupportedType(ELEMENT_TYPES[elem].code, { value: name });
  const dims = sizesOfPort(value).map((size) => (typeof size === "number" ? size : -1));
  return { name, type, dims: isBatched ? dims.slice(1) : dims };
}

function instancesOf(device = "cpu"): string {
  const where = provider(device);
  if (typeof where === "string") return "kind: KIND_CPU";
  return device.includes(":") ? `kind: KIND_GPU, gpus: [ ${where.deviceId} ]` : "kind: KIND_GPU";
}

/** config.pbtxt: a ModelConfig (model_config.proto) in protobuf's text format. */
function configText({
  name,
  maxBatch,
  inputs,
  outputs,
  load,
  instances,
}: Pick<Packaged, "name" | "maxBatch" | "inputs" | "outputs"> & { readonly load: Manifest["load"]; readonly instances: string }): string {
  const tensors = (all: readonly TensorConfig[]): string => all.map(tensorText).join(",\n");
  return [
    `${SIGNATURE} ${VERSION}.`,
    `name: ${JSON.stringify(name)}`,
    'backend: "onnxruntime"',
    ...batchText(maxBatch, [...inputs, ...outputs]),
    `input [\n${tensors(inputs)}\n]`,
    `output [\n${tensors(outputs)}\n]`,
    `instance_group [ { ${instances} } ]`,
    // Level 2 turns the backend's optimiser off; by default it does everything.
    ...(load.graphOptimizationLevel === "disabled" ? ["optimization { graph { level: 2 } }"] : []),
    `parameters { key: "enable_mem_pattern", value: { string_value: "${load.enableMemPattern ? 1 : 0}" } }`,
    // The backend does not read these; clients can, as they are told a model's configuration.
    ...inputs.flatMap((input) =>
      (["default", "draw"] as const).flatMap((fact) =>
        input[fact] === undefined
          ? []
          : `parameters { key: ${JSON.stringify(`${input.name}.${fact}`)}, value: { string_value: "${input[fact]}" } }`,
      ),
    ),
    "",
  ].join("\n");
}

/** Whether the server puts requests together along axis 0, which all inputs and outputs must have for that. */
function batchText(maxBatch: number | undefined, tensors: readonly TensorConfig[]): readonly string[] {
  if (maxBatch !== undefined) return [`max_batch_size: ${maxBatch}`, "dynamic_batching { }"];
  const isFixed = tensors.every(({ dims }) => dims.every((size) => size >= 0));
  return [
    isFixed
      ? "# All sizes are fixed, that of the batch among them."
      : "# A request is a batch: not all of its inputs have an axis for that.",
    "max_batch_size: 0",
  ];
}

/** An input or output as text. For Triton a scalar has one dimension, which a reshape removes for the model. */
function tensorText({ name, type, dims }: TensorConfig): string {
  const sizes = dims.length === 0 ? "dims: [ 1 ], reshape { shape: [ ] }" : `dims: [ ${dims.join(", ")} ]`;
  return `  { name: ${JSON.stringify(name)}, data_type: ${type}, ${sizes} }`;
}
