/** Writes a Model as an ONNX file: streamed, atomic, and the same bytes every time. */
import { rename, rm } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { cancelled, CompilerError, fileNotWritten, modelTooLarge } from "../diagnostics.js";
import type { Graph, Model, Node, Port, Value } from "../graph.js";
import type { TensorData } from "../tensor.js";
import { type Dim, ELEMENT_TYPES, sameType, type TensorType } from "../types.js";
import { attributeBytes } from "./attributes.js";
import { DataLayout, type Piece, SMALL_BYTES, WrittenData } from "./data-file.js";
import { Leftovers, NodeExtra, ValueExtra } from "./extra.js";
import { irVersionOf } from "./ir-version.js";
import { assignNames, type Naming } from "./names.js";
import { writePieces } from "./output.js";
import { problemOf } from "./ranges.js";
import { decode, type Draft, encode, header, type Message, MESSAGE_LIMIT, type Unknowns } from "./schema.js";
import { isWithin, payloadBytes, type Placement, tensorDraft } from "./tensors.js";

export interface EncodeOptions {
  /** File ranges in this folder become external data with a relative path; all other payloads are written into the model. */
  readonly base?: string | undefined;
  /** Whether to write the known types of intermediate values. Default: true. */
  readonly valueInfo?: boolean | undefined;
}

export interface WriteOptions {
  /**
   * `none`: everything in the model file.
   * Else tensors of `threshold` bytes (default: 1024) go to `file` beside it (default: `<model file>.data`).
   */
  readonly external?: "none" | { readonly file?: string | undefined; readonly threshold?: number | undefined } | undefined;
  readonly valueInfo?: boolean | undefined;
  /** What earlier calls wrote to data files of the same folder; this call adds its own contents. */
  readonly written?: WrittenData | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface WriteResult {
  readonly modelBytes: number;
  /** 0 if no data file was needed, so that none was written. */
  readonly dataBytes: number;
  readonly dataFile?: string | undefined;
  /** The names of the data files that the model reads, this one and those that were there. */
  readonly reads: ReadonlySet<string>;
  /** SHA-256 of what was written, in hexadecimal digits, by the name of the file. */
  readonly digests: ReadonlyMap<string, string>;
}

/** Tells the temporaries of one process apart. */
let attempts = 0;

/**
 * Writes `file`, and the data file before it. Both appear whole or not at all.
 * Throws FILE_NOT_WRITTEN, NAME_CLASH, MODEL_TOO_LARGE, CANCELLED, and FILE_MISSING or EXTERNAL_DATA_SHORT for weights that are gone.
 */
export async function writeModel(model: Model, file: string, options: WriteOptions = {}): Promise<WriteResult> {
  const { external = {}, written = new WrittenData(), signal } = options;
  const target = resolve(file);
  const folder = dirname(target);
  const dataName = external === "none" ? "" : (external.file ?? `${basename(target)}.data`);
  const data = join(folder, dataName);
  if (dataName !== basename(dataName) || data === target)
    throw fileNotWritten(data, "the data file must lie beside the model, under another name");
  const layout = new DataLayout(dataName, external === "none" ? Infinity : (external.threshold ?? SMALL_BYTES), written);
  const pieces = modelPieces(model, { valueInfo: options.valueInfo, place: (tensor) => layout.place(tensor) });
  const modelBytes = checkedLength(pieces, target);

  const suffix = `tmp-${process.pid}-${attempts++}`;
  const parts = [{ file: target, pieces }];
  if (layout.size > 0) parts.unshift({ file: data, pieces: layout.pieces });
  const digests = new Map<string, string>();
  try {
    for (const part of parts) digests.set(basename(part.file), await writePieces(`${part.file}.${suffix}`, part.pieces, signal));
    if (signal?.aborted) throw cancelled();
    for (const part of parts) await rename(`${part.file}.${suffix}`, part.file);
  } catch (error) {
    for (const part of parts) await rm(`${part.file}.${suffix}`, { force: true });
    throw error instanceof CompilerError ? error : fileNotWritten(target, problemOf(error) ?? String(error));
  }
  written.add(layout);
  return { modelBytes, dataBytes: layout.size, dataFile: layout.size > 0 ? data : undefined, reads: layout.locations, digests };
}

/**
 * The model as a byte string, to be handed to a runtime.
 * Throws NAME_CLASH, MODEL_TOO_LARGE, and FILE_MISSING or EXTERNAL_DATA_SHORT for weights that are gone.
 */
export function encodeModel(model: Model, options: EncodeOptions = {}): Uint8Array {
  const base = options.base === undefined ? undefined : resolve(options.base);
  const place = ({ content }: TensorData): Placement => {
    if (base === undefined || content.kind !== "file" || content.length <= SMALL_BYTES || !isWithin(content.file, base))
      return { kind: "appended" };
    return { kind: "external", location: relative(base, content.file), offset: content.offset, length: content.length };
  };
  const pieces = modelPieces(model, { valueInfo: options.valueInfo, place });
  const bytes = Buffer.alloc(checkedLength(pieces, undefined));
  let at = 0;
  for (const piece of pieces) {
    const part = piece instanceof Uint8Array ? piece : typeof piece === "number" ? new Uint8Array(piece) : payloadBytes(piece);
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function checkedLength(pieces: readonly Piece[], file: string | undefined): number {
  const length = lengthOf(pieces);
  if (length > MESSAGE_LIMIT) throw modelTooLarge(file, length);
  return length;
}

function lengthOf(pieces: readonly Piece[]): number {
  return pieces.reduce<number>((sum, piece) => sum + (typeof piece === "number" ? piece : piece.length), 0);
}

interface Settings {
  readonly valueInfo: boolean | undefined;
  readonly place: (data: TensorData) => Placement;
}

/** The ModelProto: the messages encoded, the payloads where they are. */
function modelPieces(model: Model, settings: Settings): Piece[] {
  const { graph } = model;
  const naming = assignNames(graph);
  const frame = encode("GraphProto", {
    name: graph.name,
    ...nodeDrafts(graph, naming),
    input: graph.inputs.map((value) => infoDraft(value.name, value, extraOf(value)?.info)),
    output: graph.outputs.map(({ name, value }) => infoDraft(name, value, extraOf(value)?.output)),
    value_info: settings.valueInfo === false ? [] : valueInfos(model, naming),
    $unknowns: leftovers(graph.extra),
  });
  const pieces: Piece[] = [frame];
  let length = frame.length;
  for (const value of naming.constants) {
    const tensor = tensorPieces(naming.nameOf(value), value, settings);
    const size = lengthOf(tensor);
    const head = header("GraphProto", "initializer", size);
    pieces.push(head, ...tensor);
    length += head.length + size;
  }
  const head = encode("ModelProto", {
    ir_version: irVersionOf(model),
    opset_import: Array.from(model.opsets, ([domain, version]) => ({ domain, version })),
    metadata_props: entries(model.metadata),
    $unknowns: leftovers(model.extra),
  });
  return [head, header("ModelProto", "graph", length), ...pieces];
}

function tensorPieces(name: string, value: Value, { place }: Settings): Piece[] {
  const { data } = value;
  if (!data) throw new Error(`internal: '${name}' is no constant`);
  const placement = place(data);
  const message = encode("TensorProto", { ...tensorDraft(name, data, placement), $unknowns: extraOf(value)?.initializer });
  if (placement.kind !== "appended" || data.content.kind === "strings") return [message];
  const payload = data.content.kind === "bytes" ? data.content.bytes : data.content;
  return [message, header("TensorProto", "raw_data", payload.length), payload];
}

function nodeDrafts(graph: Graph, naming: Naming): Pick<Draft<"GraphProto">, "node" | "sparse_initializer"> {
  const nodes: Draft<"NodeProto">[] = [];
  const sparse: Uint8Array[] = [];
  const identity = ({ name, value }: Port): Draft<"NodeProto"> => ({
    input: [naming.nameOf(value)],
    output: [name],
    op_type: "Identity",
  });
  for (const node of graph.nodes) {
    for (const alias of naming.aliases.get(node) ?? []) nodes.push(identity(alias));
    const tensor = sparseInitializer(node, naming);
    if (tensor) sparse.push(tensor);
    else nodes.push(nodeDraft(node, naming));
  }
  for (const alias of naming.aliases.get(graph) ?? []) nodes.push(identity(alias));
  return { node: nodes, sparse_initializer: sparse };
}

/** A node, under the names that it and its values have. */
function nodeDraft(node: Node, naming: Naming): Draft<"NodeProto"> {
  const extra = node.extra instanceof NodeExtra ? node.extra : undefined;
  return {
    input: node.inputs.map((value) => (value ? naming.nameOf(value) : "")),
    output: node.outputs.map(naming.nameOf),
    name: naming.nodeName(node) || undefined,
    op_type: node.opType,
    attribute: Array.from(node.attributes, ([name, attribute]) =>
      attributeBytes(name, attribute, extra?.attributes.get(name), (graph) => subgraphBytes(graph, naming)),
    ),
    domain: node.domain || undefined,
    metadata_props: entries(node.metadata),
    $unknowns: extra?.unknowns,
  };
}

/** A graph in a node. The types of its intermediate values are left to the reader. */
function subgraphBytes(graph: Graph, naming: Naming): Uint8Array {
  return encode("GraphProto", {
    name: graph.name,
    ...nodeDrafts(graph, naming),
    input: graph.inputs.map((value) => infoDraft(naming.nameOf(value), value)),
    output: naming.outputsOf(graph).map(({ name, value }) => infoDraft(name, value)),
  });
}

/** The SparseTensorProto that a node was read from. */
function sparseInitializer(node: Node, naming: Naming): Uint8Array | undefined {
  const attribute = node.attributes.get("sparse_value");
  const [output] = node.outputs;
  if (!(node.extra instanceof NodeExtra) || !node.extra.isSparseInitializer || attribute?.kind !== "opaque" || !output) return undefined;
  const tensor = decode("SparseTensorProto", decode("AttributeProto", attribute.bytes).sparse_tensor);
  const values = { ...tensor.values, name: naming.nameOf(output), $unknowns: tensor.values?.$unknowns };
  return encode("SparseTensorProto", { values, indices: tensor.indices, dims: tensor.dims, $unknowns: tensor.$unknowns });
}

/** The value_info entries: values that are neither inputs nor outputs, and constants for which the file had an entry. */
function valueInfos({ graph }: Model, naming: Naming): Draft<"ValueInfoProto">[] {
  const ports = new Set(graph.outputs.map(({ name }) => name));
  const inputs = new Set(graph.inputs);
  const infos: Draft<"ValueInfoProto">[] = [];
  for (const value of naming.constants) {
    const info = extraOf(value)?.info;
    if (info && !inputs.has(value)) infos.push(infoDraft(naming.nameOf(value), value, info));
  }
  for (const node of graph.nodes) {
    for (const value of node.outputs) {
      const name = naming.nameOf(value);
      const info = extraOf(value)?.info;
      if (name === "" || (ports.has(name) && !info)) continue;
      const draft = infoDraft(name, value, info);
      if (draft.type) infos.push(draft);
    }
  }
  return infos;
}

/** A value's name and type, with the file's own description as far as it still holds. */
function infoDraft(name: string, value: Value, said?: Message<"ValueInfoProto">): Draft<"ValueInfoProto"> {
  const extra = extraOf(value);
  const known = said ?? extra?.output ?? extra?.info;
  const type = known?.type && sameType(value.type, extra?.type) ? known.type : value.type && typeDraft(value.type);
  return { name, type, $unknowns: said?.$unknowns };
}

function typeDraft({ elem, shape }: TensorType): Draft<"TypeProto"> {
  return { tensor_type: { elem_type: ELEMENT_TYPES[elem].code, shape: shape && { dim: shape.map(dimDraft) } } };
}

function dimDraft(dim: Dim): Draft<"DimensionProto"> {
  if (dim === null) return {};
  return typeof dim === "number" ? { dim_value: dim } : { dim_param: dim };
}

function entries(map: ReadonlyMap<string, string>): Draft<"StringStringEntryProto">[] {
  return Array.from(map, ([key, value]) => ({ key, value }));
}

function extraOf(value: Value): ValueExtra | undefined {
  return value.extra instanceof ValueExtra ? value.extra : undefined;
}

function leftovers(extra: unknown): Unknowns | undefined {
  return extra instanceof Leftovers ? extra.unknowns : undefined;
}
