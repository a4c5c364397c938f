/** Reads an ONNX file into a Model: names become values, payloads stay where they are. */
import { resolve } from "node:path";
import type Long from "long";
import {
  CompilerError,
  duplicateName,
  graphCycle,
  modelCorrupt,
  notOnnx,
  subgraphUnsupported,
  undefinedName,
  unsupportedType,
} from "../diagnostics.js";
import { type Attribute, type Graph, makeNode, type Model, type Node, type Port, type Value } from "../graph.js";
import { withRuntimeDomains } from "../ops.js";
import type { TensorData } from "../tensor.js";
import { type Dim, elementTypeOf, type TensorType } from "../types.js";
import { readAttribute, subgraphNames } from "./attributes.js";
import { Leftovers, NodeExtra, ValueExtra } from "./extra.js";
import { Payloads, scan, type Skeleton } from "./scan.js";
import { ATTRIBUTE_TYPE, decode, type Draft, encode, EXTERNAL, has, type Message } from "./schema.js";
import { TensorReader } from "./tensors.js";

type Info = Message<"ValueInfoProto">;

/**
 * The model in a file. Unsorted nodes are sorted. Payloads of more than 1 KiB and external data become file ranges, which are checked
 * but not read.
 * Throws FILE_MISSING, NOT_ONNX, MODEL_CORRUPT, TENSOR_MALFORMED, UNSUPPORTED_TYPE, EXTERNAL_DATA_*, DUPLICATE_NAME,
 * UNDEFINED_NAME, GRAPH_CYCLE, SUBGRAPH_UNSUPPORTED.
 */
export async function readModel(file: string): Promise<Model> {
  const path = resolve(file);
  const skeleton = await scan(path);
  try {
    return interpret(skeleton, path);
  } catch (error) {
    // Only errors of the codec, which it throws for bytes that are no message, are turned into MODEL_CORRUPT.
    if (error instanceof CompilerError || !(error instanceof Error) || error.message.startsWith("internal:")) throw error;
    throw modelCorrupt(path, error.message);
  }
}

function interpret({ bytes, payloads }: Skeleton, file: string): Model {
  const proto = decode("ModelProto", bytes);
  if (!proto.graph || !has(proto, "ir_version")) throw notOnnx(file, "it has no IR version");
  if (proto.opset_import.length === 0) throw modelCorrupt(file, "it names no opset");
  const graph = new GraphReader(file, payloads).read(proto.graph);
  const versionOf = (of: string, version: Long): number => {
    const number = Number(version);
    if (number < 0 || !Number.isSafeInteger(number)) throw modelCorrupt(file, `the version of ${of} is ${number}`);
    return number;
  };
  const imported = new Map(proto.opset_import.map(({ domain, version }) => [domain, versionOf(`the opset '${domain}'`, version)]));
  return {
    graph,
    opsets: withRuntimeDomains(imported, graph),
    irVersion: versionOf("its format", proto.ir_version),
    metadata: metadataOf(proto.metadata_props),
    extra: new Leftovers(proto.$unknowns),
  };
}

/**
 * The graph in the bytes of an attribute, which a node reads `captures` through; undefined if it holds none. Its own nodes may hold graphs
 * in turn, which stay opaque. Throws what `readModel` throws.
 */
export function readSubgraph(bytes: Uint8Array, captures: readonly Port[]): Graph | undefined {
  const { g } = decode("AttributeProto", bytes);
  if (g.length === 0) return undefined;
  const around = new Map(captures.map(({ name, value }) => [name, value]));
  return new GraphReader("", new Payloads(), around).read(decode("GraphProto", g));
}

/** A node whose names are not yet values. */
interface RawNode {
  readonly node: Message<"NodeProto">;
  readonly attributes: ReadonlyMap<string, Attribute>;
  readonly captured: readonly string[];
  readonly extra: NodeExtra;
}

class GraphReader {
  private readonly tensors: TensorReader;
  private readonly values = new Map<string, Value>();
  private readonly infos = new Map<string, Info>();
  private readonly outputInfos = new Map<string, Info>();

  constructor(
    private readonly file: string,
    private readonly payloads: Skeleton["payloads"],
    /** Values of the graphs around this one. */
    private readonly around: ReadonlyMap<string, Value> = new Map(),
  ) {
    this.tensors = new TensorReader(file);
  }

  read(graph: Message<"GraphProto">): Graph {
    for (const info of graph.value_info) this.infos.set(info.name, info);
    for (const info of graph.input) this.infos.set(info.name, info);
    for (const info of graph.output) {
      if (this.outputInfos.has(info.name)) throw this.duplicate(info.name);
      this.outputInfos.set(info.name, info);
    }
    for (const [i, tensor] of graph.initializer.entries())
      this.define(this.value(tensor.name, this.tensors.read(tensor, this.payloads.at(i)), tensor));
    const inputs = graph.input.map(({ name }) => this.input(name));
    if (new Set(inputs).size < inputs.length) throw this.duplicate(inputs.find((value, i) => inputs.indexOf(value) !== i)?.name ?? "");
    const raw = [
      ...graph.sparse_initializer.map((bytes) => this.sparseInitializer(bytes)),
      ...graph.node.map((node, i) => this.rawNode(node, i)),
    ];
    const nodes = this.sorted(raw).map((node) => this.node(node));
    const outputs = graph.output.map(({ name }): Port => ({ name, value: this.valueNamed(name, {}) }));
    return { name: graph.name, inputs, outputs, nodes, marks: [], extra: new Leftovers(graph.$unknowns) };
  }

  /** An input that is also an initializer has a default: both are one value with data. */
  private input(name: string): Value {
    const known = this.values.get(name);
    return known ?? this.define(this.value(name));
  }

  private value(name: string, data?: TensorData, initializer?: Message<"TensorProto">): Value {
    const info = this.infos.get(name);
    const output = this.outputInfos.get(name);
    const type = data ? { elem: data.elem, shape: data.shape } : (this.typeOf(info) ?? this.typeOf(output));
    const extra = info || output || initializer?.$unknowns ? new ValueExtra(type, info, output, initializer?.$unknowns) : undefined;
    return { name, type, data, extra };
  }

  private define(value: Value): Value {
    if (this.values.has(value.name)) throw this.duplicate(value.name);
    this.values.set(value.name, value);
    return value;
  }

  private valueNamed(name: string, where: { readonly node?: string }): Value {
    const value = this.values.get(name) ?? this.around.get(name);
    if (!value) throw undefinedName(name, { file: this.file, ...where });
    return value;
  }

  private duplicate(name: string): CompilerError {
    return duplicateName(name, { file: this.file, value: name });
  }

  /** The type if it is that of a tensor. */
  private typeOf(info: Info | undefined): TensorType | undefined {
    const tensor = info?.type?.tensor_type;
    if (!tensor || tensor.elem_type === 0) return undefined;
    const elem = elementTypeOf(tensor.elem_type);
    if (!elem) throw unsupportedType(tensor.elem_type, { file: this.file, value: info.name });
    return { elem, shape: tensor.shape ? tensor.shape.dim.map(dimOf) : null };
  }

  private rawNode(node: Message<"NodeProto">, index: number): RawNode {
    if (node.op_type === "") throw modelCorrupt(this.file, `the node '${node.name}' has no operator`);
    const attributes = new Map<string, Attribute>();
    const extras = new Map<string, Draft<"AttributeProto">>();
    const captured = new Set<string>();
    for (const [i, bytes] of node.attribute.entries()) {
      const payload = this.payloads.at(index, i);
      const { name, attribute, extra } = readAttribute(bytes, this.tensors, payload);
      if (attributes.has(name)) throw modelCorrupt(this.file, `the node '${node.name}' has two attributes '${name}'`);
      // Its bytes would be written without the payload.
      if (attribute.kind === "opaque" && payload) throw modelCorrupt(this.file, `the node '${node.name}' has two values for '${name}'`);
      attributes.set(name, attribute);
      if (extra) extras.set(name, extra);
      if (attribute.kind === "opaque") for (const used of subgraphNames(bytes, this.file).captured) captured.add(used);
    }
    return { node, attributes, captured: [...captured], extra: new NodeExtra(node.$unknowns, extras) };
  }

  /** A sparse initializer as a `Constant` node, which the writer turns back. So the IR needs no further kind of value. */
  private sparseInitializer(bytes: Uint8Array): RawNode {
    const { values, indices } = decode("SparseTensorProto", bytes);
    const name = values?.name ?? "";
    for (const tensor of [values, indices]) if (tensor?.data_location === EXTERNAL) throw subgraphUnsupported(this.file, name);
    const type = ATTRIBUTE_TYPE.sparse_tensor;
    const attribute = encode("AttributeProto", { name: "sparse_value", type, sparse_tensor: bytes });
    return {
      node: decode("NodeProto", encode("NodeProto", { op_type: "Constant", output: [name] })),
      attributes: new Map([["sparse_value", { kind: "opaque", bytes: attribute }]]),
      captured: [],
      extra: new NodeExtra(undefined, new Map(), true),
    };
  }

  /** The nodes in topological order, which is the order of the file as far as possible. */
  private sorted(nodes: readonly RawNode[]): RawNode[] {
    const producers = new Map<string, RawNode>();
    for (const raw of nodes) {
      for (const name of raw.node.output) {
        if (name === "") continue;
        if (producers.has(name) || this.values.has(name)) throw this.duplicate(name);
        producers.set(name, raw);
      }
    }
    const order: RawNode[] = [];
    const state = new Map<RawNode, "open" | "done">();
    const path: { readonly raw: RawNode; readonly reads: readonly string[]; next: number }[] = [];
    const enter = (raw: RawNode): void => {
      state.set(raw, "open");
      path.push({ raw, reads: [...raw.node.input, ...raw.captured], next: 0 });
    };
    for (const start of nodes) {
      if (!state.has(start)) enter(start);
      for (let top = path.at(-1); top; top = path.at(-1)) {
        const name = top.reads[top.next++];
        if (name === undefined) {
          state.set(top.raw, "done");
          order.push(top.raw);
          path.pop();
          continue;
        }
        const producer = producers.get(name);
        if (!producer) continue;
        if (state.get(producer) === "open") throw graphCycle(this.file, top.raw.node.name, name);
        if (!state.has(producer)) enter(producer);
      }
    }
    return order;
  }

  private node({ node, attributes, captured, extra }: RawNode): Node {
    const where = { node: node.name };
    const metadata = metadataOf(node.metadata_props);
    const made = makeNode({
      domain: node.domain,
      opType: node.op_type,
      name: node.name,
      inputs: node.input.map((name) => (name === "" ? undefined : this.valueNamed(name, where))),
      outputs: node.output.map((name) => this.value(name)),
      attributes,
      captures: captured.map((name) => ({ name, value: this.valueNamed(name, where) })),
      metadata,
      scope: scopeOf(node.name, metadata),
      extra,
    });
    for (const value of made.outputs) if (value.name !== "") this.values.set(value.name, value);
    return made;
  }
}

function dimOf(dim: Message<"DimensionProto">): Dim {
  if (dim.dim_param !== "") return dim.dim_param;
  const size = Number(dim.dim_value);
  // Some exporters write −1 for a size that they do not know.
  return has(dim, "dim_value") && size >= 0 && Number.isSafeInteger(size) ? size : null;
}

function metadataOf(entries: readonly Message<"StringStringEntryProto">[]): ReadonlyMap<string, string> {
  return new Map(entries.map(({ key, value }) => [key, value]));
}

/** The module path, from torch.export's metadata (a Python list) or from a TorchScript name such as `/blocks.0/attn/MatMul`. */
function scopeOf(name: string, metadata: ReadonlyMap<string, string>): string | undefined {
  const scopes = metadata.get("pkg.torch.onnx.name_scopes");
  if (scopes !== undefined) {
    const entries = Array.from(scopes.matchAll(/'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"/g), ([, single, double]) => single ?? double ?? "");
    return entries.at(-2) || undefined;
  }
  if (!name.startsWith("/")) return undefined;
  const modules: string[] = [];
  for (const module of name.split("/").slice(1, -1)) {
    // The second module of a list `mlp` is called `mlp.1`, below `mlp` or in its place.
    const above = modules.at(-1);
    if (above !== undefined && module.startsWith(`${above}.`)) modules.pop();
    modules.push(module);
  }
  return modules.join(".") || undefined;
}
