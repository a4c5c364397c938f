/** Sessions of ONNX Runtime on models in memory or on disk. */
import { dirname } from "node:path";
import { env, InferenceSession, Tensor } from "onnxruntime-node";
import { operands } from "../../ir/analysis.js";
import { Builder } from "../../ir/build.js";
import { cancelled, CompilerError } from "../../ir/diagnostics.js";
import { deviceMissing, runtimeFailed } from "../words/index.js";
import { constant, makeNode, type Model, type Value } from "../../ir/graph.js";
import { encodeModel } from "../../ir/onnx/index.js";
import { assertFile } from "../../ir/open-file.js";
import { rewrite } from "../../ir/rewrite.js";
import type { TensorData } from "../../ir/tensor.js";
import type { TensorType } from "../../ir/types.js";
import { provider } from "./device.js";
import { missingKernels } from "./kernels.js";
import { reasonOf } from "./reasons.js";
import { ELEMENT_OF, fromRuntime, toRuntime } from "./tensors.js";

// Errors come as exceptions, so the runtime should not also print them to stderr.
env.logLevel = "fatal";

export interface RuntimeOptions {
  /** `cpu`, `cuda` or `cuda:<id>`. */
  readonly device?: string | undefined;
  /** Threads per operator. Default: the runtime's choice. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface SessionOptions extends RuntimeOptions {
  /**
   * How much the runtime may rewrite the graph. Emitted models are loaded with `disabled`, as the runtime's optimiser takes time quadratic
   * in the number of nodes. `all` is for graphs of exporters; `basic` folds constants that shapes depend on.
   */
  readonly optimise: "disabled" | "basic" | "all";
  /**
   * Whether to rearrange weights for speed when loading, which is the runtime's default. It does so again for every node that reads a
   * weight, so for an unrolled run it only pays if that is run many times (docs/performance.md).
   */
  readonly prepack?: boolean | undefined;
}

/** Which kernels compute a graph: with another level, or with weights rearranged, the runtime may choose others, which round otherwise. */
export type Kernels = Pick<SessionOptions, "optimise" | "prepack">;

/** The kernels of the graph as it is written. What is compared with numbers of an artifact has to run with the same. */
export const AS_WRITTEN: Kernels = { optimise: "disabled", prepack: false };

/** The fastest kernels for a step that is run many times, where its numbers are compared with nothing. */
export const FASTEST: Kernels = { optimise: "all" };

export type Tensors = ReadonlyMap<string, TensorData>;

/** A loaded model. `close` frees what the runtime holds. */
export class Session {
  private constructor(
    private readonly session: InferenceSession,
    private readonly signal: AbortSignal | undefined,
    /** What the outputs are called here, in order. */
    private readonly outputs: readonly string[] = session.outputNames,
  ) {}

  /**
   * Opens a file, or a model whose weights may stay in their files. Where the runtime's optimiser makes a graph that the runtime itself
   * refuses, as of products between Q/DQ pairs of float8, the graph runs as it is. Throws RUNTIME_FAILED, NO_KERNELS, DEVICE_MISSING.
   */
  static async open(source: string | Model, options: SessionOptions): Promise<Session> {
    try {
      return await Session.create(source, options);
    } catch (error) {
      if (options.optimise === "disabled") throw error;
      return Session.create(source, { ...options, optimise: "disabled" });
    }
  }

  private static async create(source: string | Model, options: SessionOptions): Promise<Session> {
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
      // Without this, idle threads of one session would busy-wait on the cores that the next session needs.
      force_spinning_stop: "1",
    };
    const extra = { session, optimization: { constant_folding_max_output_size_in_bytes: String(1 << 20) } };
    if (typeof source === "string") assertFile(source);
    try {
      if (typeof source === "string") return new Session(await InferenceSession.create(source, { ...settings, extra }), options.signal);
      const model = withOwnOutputs(withCasts(source));
      const base = commonFolder(model);
      if (base !== undefined) session["model_external_initializers_file_folder_path"] = base;
      const bytes = encodeModel(model, { base });
      const outputs = source.graph.outputs.map(({ name }) => name);
      return new Session(await InferenceSession.create(bytes, { ...settings, extra }), options.signal, outputs);
    } catch (error) {
      throw explain(error, options.device ?? "cpu", source);
    }
  }

  /** The types of the outputs in the runtime, in order. */
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
      return new Map(this.session.outputNames.map((name, i) => [this.outputs[i] ?? name, fromRuntime(results[name])]));
    } catch (error) {
      throw explain(error, "cpu");
    }
  }

  async close(): Promise<void> {
    await this.session.release();
  }
}

function explain(error: unknown, device: string, source: string | Model = ""): Error {
  if (error instanceof CompilerError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const missing = typeof source === "string" ? undefined : missingKernels(message, source, device);
  if (missing) return missing;
  if (device.startsWith("cuda") && /provider|backend|CUDA/i.test(message)) return deviceMissing(device, message);
  const { problem, hint } = reasonOf(message);
  return runtimeFailed(problem, hint, error);
}

/**
 * Replaces constants that are converted file ranges by casts of these ranges in the runtime,
 * so that they need not be converted in memory here.
 */
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

/** A file cannot have an input and an output of one name, and what is called after a branch may have the name of an input. */
function withOwnOutputs(model: Model): Model {
  const taken = new Set(model.graph.inputs.map(({ name }) => name));
  const free = (name: string): string => (taken.has(name) ? free(`${name}/output`) : name);
  return { ...model, graph: { ...model.graph, outputs: model.graph.outputs.map(({ name, value }) => ({ name: free(name), value })) } };
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
