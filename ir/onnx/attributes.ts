/** AttributeProto to Attribute and back, and the names that subgraphs share with the graph around them. */
import { isUtf8 } from "node:buffer";
import { fileMissing, modelCorrupt, subgraphUnsupported } from "../diagnostics.js";
import { type Attribute, DEPTH_LIMIT, type Graph } from "../graph.js";
import { ATTRIBUTE_TYPE, decode, type Draft, encode, EXTERNAL, fromBigInt, has, type Message, toBigInt } from "./schema.js";
import { ELIDED } from "../text-syntax.js";
import type { FileRange } from "./ranges.js";
import { payloadBytes, tensorDraft, type TensorReader } from "./tensors.js";

export interface ReadAttribute {
  readonly name: string;
  readonly attribute: Attribute;
  /** Fields of the proto that `Attribute` cannot hold. */
  readonly extra?: Draft<"AttributeProto"> | undefined;
}

/**
 * The attribute of the bytes of an AttributeProto. One that no pass can look into becomes opaque. `payload`: where the raw data of its
 * tensor is, if it was left on disk.
 */
export function readAttribute(bytes: Uint8Array, tensors: TensorReader, payload?: FileRange): ReadAttribute {
  const proto = decode("AttributeProto", bytes);
  const attribute = interpret(proto, tensors, payload);
  if (!attribute) return { name: proto.name, attribute: { kind: "opaque", bytes } };
  const { t } = proto;
  const tensor = t && (t.name !== "" || t.$unknowns) ? { name: t.name || undefined, $unknowns: t.$unknowns } : undefined;
  const extra = tensor || proto.$unknowns ? { t: tensor, $unknowns: proto.$unknowns } : undefined;
  return { name: proto.name, attribute, extra };
}

function interpret(proto: Message<"AttributeProto">, tensors: TensorReader, payload?: FileRange): Attribute | undefined {
  const strings = proto.strings.filter((value) => isUtf8(value)).map(text);
  switch (proto.type || impliedType(proto)) {
    case ATTRIBUTE_TYPE.int:
      return { kind: "int", value: toBigInt(proto.i) };
    case ATTRIBUTE_TYPE.float:
      return { kind: "float", value: proto.f };
    case ATTRIBUTE_TYPE.string:
      return isUtf8(bytesOrEmpty(proto.s)) ? { kind: "string", value: text(bytesOrEmpty(proto.s)) } : undefined;
    case ATTRIBUTE_TYPE.tensor:
      return proto.t ? { kind: "tensor", value: tensors.read(proto.t, payload) } : undefined;
    case ATTRIBUTE_TYPE.ints:
      return { kind: "ints", value: proto.ints.map(toBigInt) };
    case ATTRIBUTE_TYPE.floats:
      return { kind: "floats", value: proto.floats };
    case ATTRIBUTE_TYPE.strings:
      return strings.length === proto.strings.length ? { kind: "strings", value: strings } : undefined;
    default:
      return undefined;
  }
}

/** The type that follows from the fields: models before IR version 4 need not state it. */
function impliedType(proto: Message<"AttributeProto">): number | undefined {
  if (has(proto, "f")) return ATTRIBUTE_TYPE.float;
  if (has(proto, "i")) return ATTRIBUTE_TYPE.int;
  if (has(proto, "s")) return ATTRIBUTE_TYPE.string;
  if (has(proto, "t")) return ATTRIBUTE_TYPE.tensor;
  if (proto.floats.length > 0) return ATTRIBUTE_TYPE.floats;
  if (proto.ints.length > 0) return ATTRIBUTE_TYPE.ints;
  return proto.strings.length > 0 ? ATTRIBUTE_TYPE.strings : undefined;
}

/** An absent bytes field reads as an empty list. */
function bytesOrEmpty(value: Uint8Array): Uint8Array {
  return value.length === 0 ? new Uint8Array() : value;
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
}

/**
 * The bytes of an AttributeProto. Tensors on disk are read; `graphBytes` gives those of a GraphProto. Throws FILE_MISSING for tensors that
 * are gone, and for attributes that a text elides.
 */
export function attributeBytes(
  name: string,
  attribute: Attribute,
  extra: Draft<"AttributeProto"> | undefined,
  graphBytes: (graph: Graph) => Uint8Array,
): Uint8Array {
  if (attribute.kind === "opaque") {
    if (attribute.bytes.length === 0) throw fileMissing(ELIDED, `the text that was parsed has not the attribute '${name}'`);
    return attribute.bytes;
  }
  const type = ATTRIBUTE_TYPE[attribute.kind];
  const rest = { $unknowns: extra?.$unknowns };
  switch (attribute.kind) {
    case "int":
      return encode("AttributeProto", { name, type, i: fromBigInt(attribute.value), ...rest });
    case "float":
      return encode("AttributeProto", { name, type, f: attribute.value, ...rest });
    case "string":
      return encode("AttributeProto", { name, type, s: Buffer.from(attribute.value), ...rest });
    case "ints":
      return encode("AttributeProto", { name, type, ints: attribute.value.map(fromBigInt), ...rest });
    case "floats":
      return encode("AttributeProto", { name, type, floats: attribute.value, ...rest });
    case "strings":
      return encode("AttributeProto", { name, type, strings: attribute.value.map((value) => Buffer.from(value)), ...rest });
    case "tensor": {
      const { value: data } = attribute;
      const bytes = data.content.kind === "strings" ? new Uint8Array() : payloadBytes(data.content);
      const t = { ...tensorDraft(extra?.t?.name, data, { kind: "inline", bytes }), $unknowns: extra?.t?.$unknowns };
      return encode("AttributeProto", { name, type, t, ...rest });
    }
    case "graph":
      return encode("AttributeProto", { name, type, g: graphBytes(attribute.value), ...rest });
    default:
      return attribute satisfies never;
  }
}

/** The names of values in the subgraphs of an opaque attribute, at any depth. */
export interface SubgraphNames {
  /** Used inside and defined outside, in the order of first use. */
  readonly captured: ReadonlySet<string>;
  readonly defined: ReadonlySet<string>;
}

interface SubgraphScope {
  readonly names: ReadonlySet<string>;
  readonly outer: SubgraphScope | undefined;
  readonly depth: number;
}

export function subgraphNames(bytes: Uint8Array, file?: string): SubgraphNames {
  const captured = new Set<string>();
  const defined = new Set<string>();
  const pending: { readonly bytes: Uint8Array; readonly outer: SubgraphScope | undefined }[] = [];
  const enter = (attribute: Uint8Array, outer: SubgraphScope | undefined): void => {
    const { g, graphs, t, tensors } = decode("AttributeProto", attribute);
    for (const tensor of [t, ...tensors]) refuseExternal(tensor, file);
    for (const graph of graphs) pending.push({ bytes: graph, outer });
    if (g.length > 0) pending.push({ bytes: g, outer });
  };
  enter(bytes, undefined);
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { outer } = next;
    const depth = (outer?.depth ?? 0) + 1;
    if (depth > DEPTH_LIMIT) throw modelCorrupt(file, `its subgraphs are nested more than ${DEPTH_LIMIT} deep`);
    const graph = decode("GraphProto", next.bytes);
    const names = new Set<string>();
    for (const { name } of graph.input) names.add(name);
    for (const tensor of graph.initializer) {
      refuseExternal(tensor, file);
      names.add(tensor.name);
    }
    for (const sparse of graph.sparse_initializer) {
      const { values } = decode("SparseTensorProto", sparse);
      refuseExternal(values, file);
      if (values) names.add(values.name);
    }
    for (const { output } of graph.node) for (const name of output) names.add(name);
    for (const name of names) defined.add(name);
    const scope: SubgraphScope = { names, outer, depth };
    const use = (name: string): void => {
      if (name !== "" && !isDefined(scope, name)) captured.add(name);
    };
    for (const node of graph.node) {
      for (const name of node.input) use(name);
      for (const attribute of node.attribute) enter(attribute, scope);
    }
    for (const { name } of graph.output) use(name);
  }
  return { captured, defined };
}

function isDefined(scope: SubgraphScope, name: string): boolean {
  for (let at: SubgraphScope | undefined = scope; at; at = at.outer) if (at.names.has(name)) return true;
  return false;
}

/** Refuses external data in a subgraph: its path would no longer hold once the model is written elsewhere. */
function refuseExternal(tensor: Message<"TensorProto"> | null, file: string | undefined): void {
  if (tensor?.data_location === EXTERNAL) throw subgraphUnsupported(file, tensor.name);
}
