/** The parts of onnx.proto that we interpret, as one table: the codec and the types are both made from it. */
import Long from "long";
import protobuf from "protobufjs/light.js";

/**
 * Field number and type, as in onnx.proto (v1.22, proto2: explicit zeros are kept). Fields that are not listed stay as their bytes.
 * Two kinds of fields are declared as bytes on purpose and decoded on demand: attributes and subgraphs, so that they can stay opaque;
 * and the packed numbers of tensors, which would need large arrays.
 */
const SCHEMA = {
  ModelProto: {
    ir_version: [1, "int64"],
    graph: [7, "GraphProto"],
    opset_import: [8, "OperatorSetIdProto[]"],
    metadata_props: [14, "StringStringEntryProto[]"],
  },
  OperatorSetIdProto: { domain: [1, "string"], version: [2, "int64"] },
  StringStringEntryProto: { key: [1, "string"], value: [2, "string"] },
  GraphProto: {
    node: [1, "NodeProto[]"],
    name: [2, "string"],
    initializer: [5, "TensorProto[]"],
    input: [11, "ValueInfoProto[]"],
    output: [12, "ValueInfoProto[]"],
    value_info: [13, "ValueInfoProto[]"],
    sparse_initializer: [15, "bytes[]"],
  },
  NodeProto: {
    input: [1, "string[]"],
    output: [2, "string[]"],
    name: [3, "string"],
    op_type: [4, "string"],
    attribute: [5, "bytes[]"],
    domain: [7, "string"],
    metadata_props: [9, "StringStringEntryProto[]"],
  },
  AttributeProto: {
    name: [1, "string"],
    f: [2, "float"],
    i: [3, "int64"],
    s: [4, "bytes"],
    t: [5, "TensorProto"],
    g: [6, "bytes"],
    floats: [7, "float[]"],
    ints: [8, "int64[]"],
    strings: [9, "bytes[]"],
    tensors: [10, "TensorProto[]"],
    graphs: [11, "bytes[]"],
    type: [20, "int32"],
    sparse_tensor: [22, "bytes"],
  },
  TensorProto: {
    dims: [1, "int64[]"],
    data_type: [2, "int32"],
    float_data: [4, "bytes[]"],
    int32_data: [5, "bytes[]"],
    string_data: [6, "bytes[]"],
    int64_data: [7, "bytes[]"],
    name: [8, "string"],
    raw_data: [9, "bytes"],
    double_data: [10, "bytes[]"],
    uint64_data: [11, "bytes[]"],
    external_data: [13, "StringStringEntryProto[]"],
    data_location: [14, "int32"],
  },
  SparseTensorProto: { values: [1, "TensorProto"], indices: [2, "TensorProto"], dims: [3, "int64[]"] },
  ValueInfoProto: { name: [1, "string"], type: [2, "TypeProto"] },
  TypeProto: { tensor_type: [1, "TensorTypeProto"] },
  TensorTypeProto: { elem_type: [1, "int32"], shape: [2, "TensorShapeProto"] },
  TensorShapeProto: { dim: [1, "DimensionProto[]"] },
  DimensionProto: { dim_value: [1, "int64"], dim_param: [2, "string"] },
} as const satisfies Record<string, Record<string, readonly [id: number, type: string]>>;

export type Schema = typeof SCHEMA;
export type MessageName = keyof Schema;

interface Scalars {
  int32: number;
  int64: Long;
  float: number;
  string: string;
  bytes: Uint8Array;
}

/** The fields of a type that we do not interpret, as tagged bytes. */
export type Unknowns = readonly Uint8Array[];

type Type<S extends MessageName, F extends keyof Schema[S]> = Schema[S][F] extends readonly [number, infer T] ? T : never;

type Decoded<T> = T extends `${infer E}[]`
  ? readonly Decoded<E>[]
  : T extends keyof Scalars
    ? Scalars[T]
    : T extends MessageName
      ? Message<T> | null
      : never;

type Encoded<T> = T extends `${infer E}[]`
  ? readonly Encoded<E>[]
  : T extends keyof Scalars
    ? Scalars[T] | (T extends "int64" ? number : never)
    : T extends MessageName
      ? Draft<T> | null
      : never;

/** A decoded message. Absent fields read as their defaults; `has` tells them apart. */
export type Message<S extends MessageName> = { readonly [F in keyof Schema[S]]: WithoutNulls<Decoded<Type<S, F>>> } & {
  readonly $unknowns?: Unknowns;
};

/** A message to be encoded: a decoded one, or any of its fields. */
export type Draft<S extends MessageName> = { readonly [F in keyof Schema[S]]?: WithoutNulls<Encoded<Type<S, F>>> | undefined } & {
  readonly $unknowns?: Unknowns | undefined;
};

/** The elements of a list are never null. */
type WithoutNulls<T> = T extends readonly (infer E)[] ? readonly NonNullable<E>[] : T;

const TABLE: Readonly<Record<string, Readonly<Record<string, readonly [id: number, type: string]>>>> = SCHEMA;

const root = new protobuf.Root();
for (const [name, fields] of Object.entries(TABLE)) {
  const message = new protobuf.Type(name);
  for (const [field, [id, type]] of Object.entries(fields)) {
    const isList = type.endsWith("[]");
    message.add(new protobuf.Field(field, id, isList ? type.slice(0, -2) : type, isList ? "repeated" : "optional"));
  }
  root.add(message);
}

const codecs = new Map<string, protobuf.Type>();
for (const name of Object.keys(TABLE)) codecs.set(name, root.lookupType(name));

function codecOf(name: MessageName): protobuf.Type {
  const codec = codecs.get(name);
  if (!codec) throw new Error(`internal: no message type ${name}`);
  return codec;
}

/** A message whose bytes fields are views of `bytes`. Throws a plain Error if the bytes are not one. */
export function decode<S extends MessageName>(name: S, bytes: Uint8Array): Message<S> {
  const reader = protobuf.Reader.create(bytes);
  reader.discardUnknown = false;
  const message: unknown = codecOf(name).decode(reader);
  if (!isMessage(name, message)) throw new Error(`internal: ${name} was not decoded`);
  return message;
}

/** The codec is made from the same table as the types, so it ensures that the fields have these types. */
function isMessage<S extends MessageName>(name: S, message: unknown): message is Message<S> {
  return message instanceof codecOf(name).ctor;
}

export function encode<S extends MessageName>(name: S, message: Draft<S>): Uint8Array {
  return codecOf(name).encode(message).finish();
}

/** Whether a field was there. */
export function has<S extends MessageName>(message: Message<S>, field: keyof Schema[S]): boolean {
  return Object.hasOwn(message, field);
}

/** The tag of a length-delimited field and the length that follows it. */
export function header<S extends MessageName>(name: S, field: keyof Schema[S], length: number): Uint8Array {
  const id = codecOf(name).fields[String(field)]?.id;
  if (id === undefined) throw new Error(`internal: ${name} has no ${String(field)}`);
  const writer = protobuf.Writer.create();
  return writer
    .uint32((id << 3) | 2)
    .uint32(length)
    .finish();
}

export function toBigInt(value: Long): bigint {
  return (BigInt(value.high) << 32n) | BigInt(value.low >>> 0);
}

export function fromBigInt(value: bigint): Long {
  return new Long(Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)));
}

/** The one limit of the format: no message has 2 GiB or more. */
export const MESSAGE_LIMIT = 2 ** 31 - 1;

/** AttributeProto.AttributeType, as far as it is interpreted. */
export const ATTRIBUTE_TYPE = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
  sparse_tensor: 11,
} as const;

/** TensorProto.DataLocation. */
export const EXTERNAL = 1;
