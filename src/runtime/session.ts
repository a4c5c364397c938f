/** The only door to ONNX Runtime: sessions on models in memory or on disk, and the questions that passes ask. */
import { dirname } from "node:path";
import { env, InferenceSession, Tensor } from "onnxruntime-node";
import { operands } from "../../ir/analysis.js";
import { Builder } from "../../ir/build.js";
import { cancelled, CompilerError } from "../../ir/diagnostics.js";
import { deviceMissing, runtimeFailed } from "../words/index.js";
import { constant, makeNode, type Model, type Value } from "../../ir/graph.js";
import { encodeModel } from "../../ir/onnx/index.js";
import { rewrite } from "../../ir/rewrite.js";
import type { TensorData } from "../../ir/tensor.js";
import type { TensorType } from "../../ir/types.js";
import { provider } from "./device.js";
import { ELEMENT_OF, fromRuntime, toRuntime } from "./tensors.js";

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

function explain(error: unknown, device: string): Error {
  if (error instanceof CompilerError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return device.startsWith("cuda") && /provider|backend|CUDA/i.test(message) ? deviceMissing(device, message) : runtimeFailed(message);
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
    for (const { data } of operands(node)) if (data?.content.kind === "file") folders.add(dirname(data.content.file));
  }
  const [first, ...rest] = [...folders];
  return rest.reduce<string | undefined>((common, folder) => {
    let at = common ?? folder;
    while (folder !== at && !folder.startsWith(at.endsWith("/") ? at : `${at}/`)) at = dirname(at);
    return at;
  }, first);
}
