/**
 * A model as text: ONNX textual syntax (onnx/docs/Syntax.md), a subset, with our marks in comments.
 *
 * Comments between the braces that begin with one of these words hold what the syntax cannot express; the official parser skips them:
 *
 *     # mark attn-0 @3 = value      the branch attn-0 has this value at step 3; `attn-0 uncond`: in a call of that half alone
 *     # output name = value         an output whose name is not that of its value
 *     # capture name = value        a subgraph of the node above reads this value by this name
 *
 * Constants that a subgraph reads are declared in the section of the outermost graph, and no two values of a text share a name.
 * Large payloads and the bytes of opaque attributes are elided as `{...}`. Node metadata, the DiT view and `extra` are neither printed
 * nor read.
 */
import { isUtf8 } from "node:buffer";
import { operands } from "./analysis.js";
import type { Attribute, Graph, Model, Node, Port, Value } from "./graph.js";
import { readTensor, tensorBytes, type TensorData } from "./tensor.js";
import { elementCount, isElementType, type TensorType } from "./types.js";
import { ELIDED, NOT_TENSORS, scalarOf } from "./text-syntax.js";

/** The model as text; equal structure and labels give equal text. Constants of more than `limit` elements are elided. */
export function print(model: Model, limit = 64): string {
  const { graph } = model;
  const writer = new Writer(labels(graph), limit);
  return [header(model), ...writer.graph(graph, graph.outputs, constants(graph), "")].join("\n");
}

/** Only the lines of nodes that have notes, each with its notes below it, under the names that `print` gives. */
export function excerpt(model: Model, notes: ReadonlyMap<Node, readonly string[]>, limit = 64): string {
  const writer = new Writer(labels(model.graph), limit);
  const lines: string[] = [];
  for (const [node, remarks] of notes) {
    lines.push(...writer.node(node, "  "));
    for (const remark of remarks) lines.push(`  #   ^ ${remark}`);
  }
  return lines.join("\n");
}

/** Lines of graphs and nodes, under the names that their values have in the text. */
class Writer {
  constructor(
    private readonly label: Label,
    private readonly limit: number,
  ) {}

  /** Prints `outputs` under their names and `declared` constants in the graph's section. The first line is not indented. */
  graph(graph: Graph, outputs: readonly Port[], declared: readonly (readonly [Value, TensorData])[], indent: string): readonly string[] {
    const isAlias = ({ name, value }: Port): boolean => this.label(value) !== name;
    const said = new Set(outputs.filter((port) => !isAlias(port)).map(({ value }) => value));
    const results = graph.nodes.flatMap((node) =>
      node.outputs.filter((value) => value.type && !said.has(value) && this.label(value) !== ""),
    );
    const section = [
      ...declared.map(([value, data]) => `${typeText(data)} ${this.name(value)} = ${payload(data, this.limit)}`),
      ...results.map((value) => this.typed(value)),
    ];
    const inputs = graph.inputs
      .map((value) => `${this.typed(value)}${value.data ? ` = ${payload(value.data, this.limit)}` : ""}`)
      .join(", ");
    const ports = outputs.map(({ name, value }) => typed(value.type, identifier(name))).join(", ");
    const lines = [`${identifier(graph.name)} (${inputs}) => (${ports})`];
    if (section.length > 0) lines.push(`${indent}<`, section.map((line) => `${indent}  ${line}`).join(",\n"), `${indent}>`);
    lines.push(`${indent}{`);
    for (const node of graph.nodes) for (const line of this.node(node, `${indent}  `)) lines.push(line);
    for (const port of outputs.filter(isAlias)) lines.push(`${indent}  # output ${identifier(port.name)} = ${this.name(port.value)}`);
    for (const { site, half, step, value } of graph.marks)
      lines.push(`${indent}  # mark ${siteText(site)}${half === "cond" ? "" : ` ${half}`} @${step} = ${this.name(value)}`);
    lines.push(`${indent}}`);
    return lines;
  }

  node(node: Node, indent: string): readonly string[] {
    const op = [...(node.domain === "" ? [] : node.domain.split(".")), node.opType].map(identifier).join(".");
    const left = node.outputs.map((value) => this.name(value)).join(", ");
    const head = `${indent}${left}${left === "" ? "" : " "}= ${op}`;
    const tail = `(${node.inputs.map((value) => this.name(value)).join(", ")})`;
    const captures = node.captures.map((port) => `${indent}# capture ${identifier(port.name)} = ${this.name(port.value)}`);
    const attributes = Array.from(node.attributes, ([name, attribute]) => this.attribute(name, attribute, `${indent}  `));
    if (node.subgraphs.length === 0) return [`${head}${attributes.length > 0 ? `<${attributes.join(", ")}>` : ""}${tail}`, ...captures];
    return [`${head}<`, attributes.map((text) => `${indent}  ${text}`).join(",\n"), `${indent}>${tail}`, ...captures];
  }

  private attribute(name: string, attribute: Attribute, indent: string): string {
    if (attribute.kind !== "graph") return attributeText(name, attribute, this.limit);
    const outputs = attribute.value.outputs.map(({ value }) => ({ name: this.label(value), value }));
    return `${identifier(name)} = ${this.graph(attribute.value, outputs, [], indent).join("\n")}`;
  }

  private name(value: Value | undefined): string {
    return identifier(value ? this.label(value) : "");
  }

  private typed(value: Value): string {
    return typed(value.type, this.name(value));
  }
}

/** The name of a value in the text. */
type Label = (value: Value) => string;

/**
 * Inputs and outputs keep their names. Of other values with equal names the first keeps it and later ones are numbered, in subgraphs
 * too. Unnamed results that nothing reads stay unnamed.
 */
function labels(graph: Graph): Label {
  const names = new Map<Value, string>();
  const taken = new Set<string>([""]);
  const next = new Map<string, number>();
  const claim = (value: Value, wanted = value.name || "v"): void => {
    if (names.has(value)) return;
    let name = wanted;
    for (let n = next.get(wanted) ?? 1; taken.has(name); n++) {
      name = `${wanted}_${n}`;
      next.set(wanted, n + 1);
    }
    taken.add(name);
    names.set(value, name);
  };
  const claimAll = ({ inputs, nodes, outputs, marks }: Graph): void => {
    for (const input of inputs) claim(input);
    for (const node of nodes) {
      for (const value of node.inputs) if (value) claim(value);
      for (const { value } of node.captures) claim(value);
      for (const inner of node.subgraphs) claimAll(inner);
      for (const value of node.outputs) if (value.name !== "") claim(value);
    }
    for (const { value } of [...outputs, ...marks]) claim(value);
  };
  for (const input of graph.inputs) claim(input);
  for (const { name, value } of graph.outputs) {
    if (!taken.has(name)) claim(value, name);
    taken.add(name);
  }
  claimAll(graph);
  return (value) => names.get(value) ?? value.name;
}

/** The constants that are read, in the order of first use; those that are defaults stand with their inputs. */
function constants(graph: Graph): [Value, TensorData][] {
  const found = new Map<Value, TensorData>();
  const inputs = new Set(graph.inputs);
  const see = (value: Value): void => {
    if (value.data && !inputs.has(value)) found.set(value, value.data);
  };
  for (const node of graph.nodes) for (const value of operands(node)) see(value);
  for (const { value } of [...graph.outputs, ...graph.marks]) see(value);
  return [...found];
}

function header(model: Model): string {
  const pairs = (map: ReadonlyMap<string, unknown>, show: (value: unknown) => string): string =>
    [...map].map(([key, value]) => `${quoted(key)} : ${show(value)}`).join(", ");
  const fields = [`ir_version: ${model.irVersion}`, `opset_import: [${pairs(model.opsets, String)}]`];
  if (model.metadata.size > 0) fields.push(`metadata_props: [${pairs(model.metadata, (value) => quoted(String(value)))}]`);
  return `<${fields.join(", ")}>`;
}

function attributeText(name: string, attribute: Exclude<Attribute, { readonly kind: "graph" }>, limit: number): string {
  const is = (value: string): string => `${identifier(name)} = ${value}`;
  const list = (values: readonly string[]): string =>
    values.length > 0 ? is(`[${values.join(", ")}]`) : `${identifier(name)}: ${attribute.kind} = []`;
  switch (attribute.kind) {
    case "int":
      return is(String(attribute.value));
    case "float":
      return is(pointedFloat(attribute.value));
    case "string":
      return is(quoted(attribute.value));
    case "ints":
      return list(attribute.value.map(String));
    case "floats":
      return list(attribute.value.map(pointedFloat));
    case "strings":
      return list(attribute.value.map(quoted));
    case "tensor":
      return is(`${typeText(attribute.value)} ${payload(attribute.value, limit)}`);
    case "opaque":
      return is(ELIDED);
    default:
      return attribute satisfies never;
  }
}

export function identifier(name: string): string {
  return /^[A-Za-z_]\w*$/.test(name) && !isElementType(name) && !NOT_TENSORS.has(name) ? name : quoted(name);
}

function siteText(site: string): string {
  return /^[\w.-]+$/.test(site) ? site : quoted(site);
}

function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}

function typed(type: TensorType | undefined, name: string): string {
  return type ? `${typeText(type)} ${name}` : name;
}

/** A type in the syntax of the text: `float` is a scalar, `float[]` has no known rank. */
export function typeText({ elem, shape }: TensorType): string {
  if (!shape) return `${elem}[]`;
  if (shape.length === 0) return elem;
  return `${elem}[${shape.map((dim) => (dim === null ? "?" : typeof dim === "number" ? String(dim) : identifier(dim))).join(",")}]`;
}

function payload(data: TensorData, limit: number): string {
  const { content } = data;
  if (elementCount(data.shape) > limit || (content.kind === "file" && content.file === ELIDED)) return ELIDED;
  if (content.kind === "strings")
    return content.strings.every(isUtf8) ? `{${content.strings.map((bytes) => quoted(Buffer.from(bytes).toString())).join(", ")}}` : ELIDED;
  const { width, number } = scalarOf(data.elem);
  const bytes = readTensor(data);
  if (bytes.length !== tensorBytes(data)) return ELIDED;
  const scalars: string[] = [];
  for (let at = 0; at < bytes.length; at += width) scalars.push(scalarText(number, bytes.subarray(at, at + width)));
  return `{${scalars.join(", ")}}`;
}

/** The bits of the NaN that the text calls `nan`, by the size of the float; those of others are spelled out, as in C. */
const PLAIN_NAN: Readonly<Record<number, bigint>> = { 4: 0x7fc00000n, 8: 0x7ff8000000000000n };

function scalarText(number: "float" | "signed" | "unsigned", bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let pattern = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) pattern = (pattern << 8n) | BigInt(view.getUint8(i));
  if (number === "float") {
    const value = bytes.length === 4 ? view.getFloat32(0, true) : view.getFloat64(0, true);
    return Number.isNaN(value) && pattern !== PLAIN_NAN[bytes.length]
      ? `nan(0x${pattern.toString(16)})`
      : shortFloat(value, bytes.length === 4);
  }
  return String(number === "signed" ? BigInt.asIntN(8 * bytes.length, pattern) : pattern);
}

/** The shortest decimal that reads back as the same float32 (or double). */
function shortFloat(value: number, single = true): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Object.is(value, -0)) return "-0";
  const digits = single ? [1, 2, 3, 4, 5, 6, 7, 8, 9].find((n) => Math.fround(Number(value.toPrecision(n))) === value) : undefined;
  return String(digits === undefined ? value : Number(value.toPrecision(digits)));
}

/** A float with a point: without one, an attribute would be read as an integer. */
function pointedFloat(value: number): string {
  const text = shortFloat(Math.fround(value));
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}
