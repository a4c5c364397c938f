/** The only door to ONNX Runtime: sessions on models in memory or on disk, and the questions that passes ask. */
import { dirname } from "node:path";
import { env, InferenceSession, Tensor } from "onnxruntime-node";
import { Builder } from "../ir/build.js";
import { CompilerError, cancelled, deviceMissing, noKernels, runtimeFailed, unknownDevice } from "../ir/diagnostics.js";
import { constant, inputValue, makeNode, makeOp, type Model, type Node, type Value } from "../ir/graph.js";
import { encodeModel } from "../ir/onnx/index.js";
import { rewrite } from "../ir/rewrite.js";
import { readTensor, tensorFrom, type TensorData } from "../ir/tensor.js";
import { RUNTIME_TYPES, type ElementType, type FloatType, type TensorType } from "../ir/types.js";
import type { Evaluator } from "../passes/index.js";

// Errors come as exceptions; printed as well, they would stand beside ours on stderr.
env.logLevel = "fatal";

export interface RuntimeOptions {
  /** `cpu`, `cuda` or `cuda:<id>`. */
  readonly device?: string | undefined;
  /** Threads of one operator; the runtime's choice if absent. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface SessionOptions extends RuntimeOptions {
  /**
   * How much the runtime may rewrite the graph itself. What the compiler emits is loaded with `disabled`: the runtime's
   * optimiser is quadratic in nodes. `all` is for graphs of exporters; `basic` folds the constants that shapes hang on.
   */
  readonly optimise: "disabled" | "basic" | "all";
  /**
   * Rearrange weights for speed when loading, as the runtime does if not told otherwise. Every node that reads a weight does it
   * anew, and only then finds that another one has: worth it where an unrolled run is run many times (docs/performance.md).
   */
  readonly prepack?: boolean | undefined;
}

export type Tensors = ReadonlyMap<string, TensorData>;

/** A loaded model. `close` frees what the runtime holds. */
export class Session {
  private constructor(
    private readonly session: InferenceSession,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** From a file, or from a model whose weights may stay in the files where they are. Throws RUNTIME_FAILED, DEVICE_MISSING. */
  static async open(source: string | Model, options: SessionOptions): Promise<Session> {
    const settings: InferenceSession.SessionOptions = {
      executionProviders: [provider(options.device ?? "cpu")],
      graphOptimizationLevel: options.optimise,
      // Memory patterns double the activations of a large static graph (microsoft/onnxruntime#11118).
      enableMemPattern: false,
      logSeverityLevel: 4,
      ...(options.threads === undefined ? {} : { intraOpNumThreads: options.threads }),
    };
    const session: Record<string, string> = {
      disable_prepacking: options.prepack === false ? "1" : "0",
      // Threads of a session that has run would go on waiting busily, on the cores that the next one needs: sessions take turns here.
      force_spinning_stop: "1",
    };
    const extra = { session, optimization: { constant_folding_max_output_size_in_bytes: String(1 << 20) } };
    try {
      if (typeof source === "string") return new Session(await InferenceSession.create(source, { ...settings, extra }), options.signal);
      const model = withCasts(source);
      const base = commonFolder(model);
      if (base !== undefined) session["model_external_initializers_file_folder_path"] = base;
      const bytes = encodeModel(model, { base });
      return new Session(await InferenceSession.create(bytes, { ...settings, extra }), options.signal);
    } catch (error) {
      throw explain(error, options.device ?? "cpu");
    }
  }

  /** What the runtime says of the outputs, in their order. */
  get outputTypes(): readonly (TensorType | undefined)[] {
    return this.session.outputMetadata.map((output) => {
      const elem = output.isTensor ? ELEMENT_OF.get(output.type) : undefined;
      if (!output.isTensor || !elem) return undefined;
      return { elem, shape: output.shape.map((dim) => (dim === "" ? null : dim)) };
    });
  }

  /** One run. Throws CANCELLED, RUNTIME_FAILED. */
  async run(feeds: Tensors): Promise<Tensors> {
    if (this.signal?.aborted) throw cancelled();
    const inputs: Record<string, Tensor> = {};
    for (const [name, data] of feeds) inputs[name] = toRuntime(data);
    try {
      const results = await this.session.run(inputs);
      if (this.signal?.aborted) throw cancelled();
      return new Map(this.session.outputNames.map((name) => [name, fromRuntime(results[name])]));
    } catch (error) {
      throw explain(error, "cpu");
    }
  }

  async close(): Promise<void> {
    await this.session.release();
  }
}

/** Throws UNKNOWN_DEVICE or DEVICE_MISSING where no model can run on the device; to be asked before any work is done for it. */
export async function assertDevice(device = "cpu"): Promise<void> {
  if (provider(device) === "cpu") return;
  const input = inputValue("x", { elem: "float", shape: [1] });
  const { node, value } = makeOp("Identity", [input], { name: "y", type: input.type });
  const graph = { name: "device", inputs: [input], outputs: [{ name: "y", value }], nodes: [node], marks: [] };
  const session = await Session.open(
    { graph, opsets: new Map([["", 17]]), irVersion: 8, metadata: new Map() },
    { device, optimise: "disabled" },
  );
  await session.close();
}

/** The answers to the questions of passes; constants are computed on the CPU wherever the result will run. */
export function evaluator({ threads, signal }: Pick<RuntimeOptions, "threads" | "signal"> = {}): Evaluator {
  const using = async <T>(model: Model, optimise: "disabled" | "basic", ask: (session: Session) => Promise<T> | T): Promise<T> => {
    const session = await Session.open(model, { threads, signal, optimise, prepack: false });
    try {
      return await ask(session);
    } finally {
      await session.close();
    }
  };
  return {
    evaluate: (model) =>
      using(model, "disabled", async (session) => {
        const results = await session.run(new Map());
        return [...results.values()];
      }),
    types: async (model) => {
      const values = model.graph.nodes.flatMap((node: Node) => node.outputs.filter(({ name }) => name !== ""));
      const outputs = values.map((value, i) => ({ name: `probe_${i}`, value }));
      const types = await using({ ...model, graph: { ...model.graph, outputs } }, "basic", (session) => session.outputTypes);
      const known = new Map<Value, TensorType>();
      for (const [i, value] of values.entries()) {
        const type = types[i];
        if (type) known.set(value, type);
      }
      return known;
    },
  };
}

/** Throws UNKNOWN_DEVICE. */
export function provider(device: string): string | { readonly name: string; readonly deviceId: number } {
  const match = /^(cpu)$|^cuda(?::(\d+))?$/.exec(device);
  if (!match) throw unknownDevice(device);
  return match[1] !== undefined ? "cpu" : { name: "cuda", deviceId: Number(match[2] ?? 0) };
}

function explain(error: unknown, device: string): Error {
  if (error instanceof CompilerError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return device.startsWith("cuda") && /provider|backend|CUDA/i.test(message) ? deviceMissing(device, message) : runtimeFailed(message);
}

/** Throws NO_KERNELS if a device has none for the float type that a network computes in. */
export function assertKernels(type: FloatType | undefined, device = "cpu"): void {
  if (type === "bfloat16" && device === "cpu") throw noKernels(type, device);
}

/** The model with constants that are conversions of a range of a file made of that range by the runtime, so that nobody need hold them. */
function withCasts(model: Model): Model {
  const made = new Map<Value, Value>();
  const graph = rewrite(model.graph, (node) => {
    const build = new Builder();
    const inputs = node.inputs.map((value) => {
      const { shape = [], content } = value?.data ?? {};
      if (!value || content?.kind !== "converted") return value;
      const source = constant(`${value.name}/source`, { elem: content.from, shape, content: content.source });
      const cast = made.get(value) ?? build.cast(source, content.to, value.name);
      made.set(value, cast);
      return cast;
    });
    if (inputs.every((value, i) => value === node.inputs[i])) return undefined;
    const copy = makeNode({ ...node, inputs });
    return { nodes: [...build.nodes, copy], outputs: copy.outputs };
  });
  return { ...model, graph };
}

/** The deepest folder that holds every weights file of a model; undefined if there are none. */
function commonFolder(model: Model): string | undefined {
  const folders = new Set<string>();
  for (const node of model.graph.nodes) {
    for (const value of node.inputs) if (value?.data?.content.kind === "file") folders.add(dirname(value.data.content.file));
  }
  const [first, ...rest] = [...folders];
  return rest.reduce<string | undefined>((common, folder) => {
    let at = common ?? folder;
    while (folder !== at && !folder.startsWith(at.endsWith("/") ? at : `${at}/`)) at = dirname(at);
    return at;
  }, first);
}

const RUNTIME_NAMES = {
  float: "float32",
  double: "float64",
  float16: "float16",
  int64: "int64",
  int32: "int32",
  int16: "int16",
  int8: "int8",
  uint64: "uint64",
  uint32: "uint32",
  uint16: "uint16",
  uint8: "uint8",
  bool: "bool",
} as const satisfies Readonly<Record<(typeof RUNTIME_TYPES)[number], string>>;

const ELEMENT_OF = new Map<string, ElementType>(RUNTIME_TYPES.map((elem) => [RUNTIME_NAMES[elem], elem]));

/** A view where the memory is aligned, else a copy. */
function toRuntime(data: TensorData): Tensor {
  const bytes = readTensor(data);
  const { shape } = data;
  const aligned = bytes.byteOffset % 8 === 0 && bytes.buffer instanceof ArrayBuffer ? bytes : Uint8Array.from(bytes);
  const { buffer, byteOffset, byteLength } = aligned;
  switch (data.elem) {
    case "float":
      return new Tensor("float32", new Float32Array(buffer, byteOffset, byteLength / 4), shape);
    case "double":
      return new Tensor("float64", new Float64Array(buffer, byteOffset, byteLength / 8), shape);
    case "float16":
      return new Tensor("float16", new Uint16Array(buffer, byteOffset, byteLength / 2), shape);
    case "int64":
      return new Tensor("int64", new BigInt64Array(buffer, byteOffset, byteLength / 8), shape);
    case "uint64":
      return new Tensor("uint64", new BigUint64Array(buffer, byteOffset, byteLength / 8), shape);
    case "int32":
      return new Tensor("int32", new Int32Array(buffer, byteOffset, byteLength / 4), shape);
    case "uint32":
      return new Tensor("uint32", new Uint32Array(buffer, byteOffset, byteLength / 4), shape);
    case "int16":
      return new Tensor("int16", new Int16Array(buffer, byteOffset, byteLength / 2), shape);
    case "uint16":
      return new Tensor("uint16", new Uint16Array(buffer, byteOffset, byteLength / 2), shape);
    case "int8":
      return new Tensor("int8", new Int8Array(buffer, byteOffset, byteLength), shape);
    case "uint8":
      return new Tensor("uint8", new Uint8Array(buffer, byteOffset, byteLength), shape);
    case "bool":
      return new Tensor("bool", new Uint8Array(buffer, byteOffset, byteLength), shape);
    default:
      throw runtimeFailed(`Tensors of type ${data.elem} cannot be handed to the runtime.`);
  }
}

function fromRuntime(tensor: Tensor | undefined): TensorData {
  const elem = tensor && ELEMENT_OF.get(tensor.type);
  if (!tensor || !elem || !ArrayBuffer.isView(tensor.data))
    throw runtimeFailed("The runtime returned something that is no tensor of numbers.");
  return tensorFrom(elem, tensor.dims, tensor.data);
}
