/** Keys of contents: two attributes, constants or graphs with equal keys are equal. */
import { createHash, type Hash } from "node:crypto";
import type { Attribute, Graph, Model, Value } from "./graph.js";
import type { ConvertedRange, FileRange, TensorData } from "./tensor.js";

/** A key spells out payloads up to this size and hashes larger ones; it names a payload on disk by its file and offset. */
const SPELLED_BYTES = 64;

/** Equal keys mean equal tensors. Nothing is read from disk. */
export function constantKey(data: TensorData): string {
  const { content } = data;
  switch (content.kind) {
    case "bytes": {
      const bytes = Buffer.from(content.bytes.buffer, content.bytes.byteOffset, content.bytes.byteLength);
      return `${shapeKey(data)}:${bytes.byteLength <= SPELLED_BYTES ? bytes.toString("hex") : createHash("sha256").update(bytes).digest("hex")}`;
    }
    case "file":
      return `${shapeKey(data)}@${rangeKey(content)}`;
    case "converted":
      return `${shapeKey(data)}@${convertedKey(content)}`;
    case "strings":
      return `${shapeKey(data)}:${content.strings.map((s) => Buffer.from(s).toString("hex")).join()}`;
    default:
      return content satisfies never;
  }
}

/** Equal keys mean the same range of a file. */
export function rangeKey({ file, offset, length }: FileRange): string {
  return `${offset}+${length}@${file}`;
}

/** Equal keys mean the same conversion of the same range. */
export function convertedKey({ source, from, to }: ConvertedRange): string {
  return `${to}<${from}:${rangeKey(source)}`;
}

/** Equal keys mean equal attributes. A graph is only equal to itself. */
export function attributeKey(attribute: Attribute): string {
  switch (attribute.kind) {
    case "int":
      return `int:${attribute.value}`;
    case "float":
      return `float:${floatKey(attribute.value)}`;
    case "string":
      return `string:${JSON.stringify(attribute.value)}`;
    case "ints":
      return `ints:${attribute.value.join()}`;
    case "floats":
      return `floats:${attribute.value.map(floatKey).join()}`;
    case "strings":
      return `strings:${JSON.stringify(attribute.value)}`;
    case "tensor":
      return constantKey(attribute.value);
    case "graph":
      return `graph:${numberOf(attribute.value)}`;
    case "opaque":
      return `opaque:${createHash("sha256").update(attribute.bytes).digest("hex")}`;
    default:
      return attribute satisfies never;
  }
}

const numbers = new WeakMap<Graph, number>();
let numbered = 0;

function numberOf(graph: Graph): number {
  const number = numbers.get(graph) ?? numbered++;
  numbers.set(graph, number);
  return number;
}

function floatKey(value: number): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

/**
 * A digest of what a graph computes, without its weights: operators, attributes, edges, types of inputs and small constants.
 * It ignores the batch and the names of values and graphs. As `sha256:<hex>`.
 */
export function structureDigest({ graph, opsets }: Model): string {
  const hash = createHash("sha256");
  for (const [domain, version] of [...opsets].sort(([a], [b]) => (a < b ? -1 : 1))) line(hash, domain, version);
  const ids = new Map<Value, string>();
  const idOf = (value: Value | undefined): string => {
    if (!value) return "-";
    const known = ids.get(value);
    if (known !== undefined) return known;
    const id = value.data ? structuralKey(value.data) : `v${ids.size}`;
    ids.set(value, id);
    return id;
  };
  const add = (graph: Graph): void => {
    for (const input of graph.inputs) line(hash, "input", idOf(input), input.type?.elem, input.type?.shape?.length);
    for (const node of graph.nodes) {
      const attributes = [...node.attributes]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, attribute]) => `${name}=${keyOf(attribute)}`);
      line(hash, node.domain, node.opType, node.inputs.map(idOf).join(), node.outputs.map(idOf).join(), ...attributes);
    }
    for (const { value } of graph.outputs) line(hash, "output", idOf(value));
  };
  /** The lines of a subgraph come before the line of the node that holds it. */
  const keyOf = (attribute: Attribute): string => {
    if (attribute.kind === "tensor") return structuralKey(attribute.value);
    if (attribute.kind !== "graph") return attributeKey(attribute);
    line(hash, "graph");
    add(attribute.value);
    line(hash, "end");
    return "graph";
  };
  add(graph);
  return `sha256:${hash.digest("hex")}`;
}

/** Small constants belong to the structure (shapes, scales), large ones are weights. */
function structuralKey(data: TensorData): string {
  return data.content.kind === "bytes" && data.content.bytes.byteLength <= SPELLED_BYTES ? constantKey(data) : shapeKey(data);
}

function shapeKey(data: TensorData): string {
  return `${data.elem}[${data.shape.join()}]`;
}

function line(hash: Hash, ...fields: readonly (string | number | undefined)[]): void {
  hash.update(`${fields.join("|")}\n`);
}

/** A digest of a text, as `sha256:<hex>`. */
export function textDigest(text: string): string {
  return `sha256:${createHash("sha256").update(text).digest("hex")}`;
}
