/**
 * A model as text: ONNX textual syntax (onnx/docs/Syntax.md), a subset, with our marks in comments.
 *
 * Comments that begin with these words, between the braces, say what the syntax has no words for; the official parser skips them:
 *
 *     # mark attn-0 @3 = value      the branch attn-0 has this value at step 3
 *     # output name = value         an output that has not the name of its value
 *     # capture name = value        a subgraph of the node above reads this value by this name
 *
 * Large payloads and the bytes of opaque attributes are left out: `{...}`. Neither printed nor read: node metadata, the DiT view, `extra`.
 */
import type { Attribute, Graph, Model, Node, Value } from "./graph.js";
import { readTensor, tensorBytes, type TensorData } from "./tensor.js";
import { elementCount, isElementType, type TensorType } from "./types.js";
import { ELIDED, NOT_TENSORS, scalarOf } from "./text-syntax.js";

/** The model as text; equal structure and labels give equal text. Constants of more than `limit` elements are elided. */
export function print(model: Model, limit = 64): string {
  const { graph } = model;
  const label = labels(graph);
  const name = (value: Value): string => identifier(label(value));
  const outputs = graph.outputs.map((port) => typed(port.value.type, identifier(port.name)));
  const aliases = graph.outputs.filter((port) => label(port.value) !== port.name);
  const declared = [
    ...constants(graph).map(([value, data]) => `${typeText(data)} ${name(value)} = ${payload(data, limit)}`),
    ...typedResults(graph, label).map((value) => typed(value.type, name(value))),
  ];
  const lines = [
    header(model),
    `${identifier(graph.name)} (${graph.inputs.map((value) => typed(value.type, name(value))).join(", ")}) => (${outputs.join(", ")})`,
  ];
  if (declared.length > 0) lines.push("<", declared.map((line) => `  ${line}`).join(",\n"), ">");
  lines.push("{");
  for (const node of graph.nodes) lines.push(...nodeLines(node, label, limit));
  for (const port of aliases) lines.push(`  # output ${identifier(port.name)} = ${name(port.value)}`);
  for (const { site, step, value } of graph.marks) lines.push(`  # mark ${siteText(site)} @${step} = ${name(value)}`);
  lines.push("}");
  return lines.join("\n");
}

/** The lines of those nodes that have notes, each with its notes under it; the names are those of `print`. */
export function excerpt(model: Model, notes: ReadonlyMap<Node, readonly string[]>, limit = 64): string {
  const label = labels(model.graph);
  const lines: string[] = [];
  for (const [node, remarks] of notes) {
    lines.push(...nodeLines(node, label, limit));
    for (const remark of remarks) lines.push(`  #   ^ ${remark}`);
  }
  return lines.join("\n");
}

/** The name of a value in the text. */
type Label = (value: Value) => string;

/** Interface names are kept; then the first value of a name has it, and later ones are numbered. Unnamed results that nothing reads stay unnamed. */
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
  for (const input of graph.inputs) claim(input);
  for (const { name, value } of graph.outputs) {
    if (!taken.has(name)) claim(value, name);
    taken.add(name);
  }
  for (const node of graph.nodes) {
    for (const value of node.inputs) if (value) claim(value);
    for (const { value } of node.captures) claim(value);
    for (const value of node.outputs) if (value.name !== "") claim(value);
  }
  for (const { value } of [...graph.outputs, ...graph.marks]) claim(value);
  return (value) => names.get(value) ?? value.name;
}

/** The constants that are read, in the order of first use. */
function constants(graph: Graph): [Value, TensorData][] {
  const found = new Map<Value, TensorData>();
  const see = (value: Value | undefined): void => {
    if (value?.data) found.set(value, value.data);
  };
  for (const node of graph.nodes) {
    for (const value of node.inputs) see(value);
    for (const { value } of node.captures) see(value);
  }
  for (const { value } of [...graph.outputs, ...graph.marks]) see(value);
  return [...found];
}

/** The results whose type stands neither in the list of outputs nor nowhere. */
function typedResults(graph: Graph, label: Label): Value[] {
  const said = new Set(graph.outputs.filter((port) => label(port.value) === port.name).map((port) => port.value));
  return graph.nodes.flatMap((node) => node.outputs.filter((value) => value.type && !said.has(value) && label(value) !== ""));
}

function header(model: Model): string {
  const pairs = (map: ReadonlyMap<string, unknown>, show: (value: unknown) => string): string =>
    [...map].map(([key, value]) => `${quoted(key)} : ${show(value)}`).join(", ");
  const fields = [`ir_version: ${model.irVersion}`, `opset_import: [${pairs(model.opsets, String)}]`];
  if (model.metadata.size > 0) fields.push(`metadata_props: [${pairs(model.metadata, (value) => quoted(String(value)))}]`);
  return `<${fields.join(", ")}>`;
}

function nodeLines(node: Node, label: Label, limit: number): string[] {
  const name = (value: Value | undefined): string => identifier(value ? label(value) : "");
  const op = [...(node.domain === "" ? [] : node.domain.split(".")), node.opType].map(identifier).join(".");
  const attributes = [...node.attributes].map(([key, value]) => attributeText(key, value, limit)).join(", ");
  const left = node.outputs.map(name).join(", ");
  const line = `  ${left}${left === "" ? "" : " "}= ${op}${attributes === "" ? "" : `<${attributes}>`}(${node.inputs.map(name).join(", ")})`;
  return [line, ...node.captures.map((port) => `  # capture ${identifier(port.name)} = ${name(port.value)}`)];
}

function attributeText(name: string, attribute: Attribute, limit: number): string {
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
  if (content.kind === "strings") return `{${content.strings.map((bytes) => quoted(new TextDecoder().decode(bytes))).join(", ")}}`;
  const { width, number } = scalarOf(data.elem);
  const bytes = readTensor(data);
  if (bytes.length !== tensorBytes(data)) return ELIDED;
  const scalars: string[] = [];
  for (let at = 0; at < bytes.length; at += width) scalars.push(scalarText(number, bytes.subarray(at, at + width)));
  return `{${scalars.join(", ")}}`;
}

function scalarText(number: "float" | "signed" | "unsigned", bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (number === "float") return bytes.length === 4 ? shortFloat(view.getFloat32(0, true)) : shortFloat(view.getFloat64(0, true), false);
  let pattern = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) pattern = (pattern << 8n) | BigInt(view.getUint8(i));
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

/** An attribute has no other sign of its type than the point. */
function pointedFloat(value: number): string {
  const text = shortFloat(Math.fround(value));
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}
