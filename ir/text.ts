/**
 * The text form of a model: ONNX textual syntax (onnx/docs/Syntax.md), a subset, with our marks in comments.
 *
 * Comments that begin with these words, between the braces, say what the syntax has no words for; the official parser skips them:
 *
 *     # mark attn-0 @3 = value      the branch attn-0 has this value at step 3
 *     # output name = value         an output that has not the name of its value
 *     # capture name = value        a subgraph of the node above reads this value by this name
 *
 * Large payloads and the bytes of opaque attributes are left out: `{...}`. Read back, such a constant is an address that
 * leads nowhere: of its own, with a type and a shape, and without numbers. Everything else that is printed is ONNX.
 * Neither printed nor read: node metadata, the DiT view, `extra`. Read and not printed: names of nodes, which are labels.
 */
import { textInvalid } from "./diagnostics.js";
import { constant, inputValue, makeNode } from "./graph.js";
import type { Attribute, Graph, Mark, Model, Node, Port, Value } from "./graph.js";
import { readTensor, tensorBytes, type TensorData } from "./tensor.js";
import { byteSize, elementCount, ELEMENT_TYPES, isElementType, staticShape, type ElementType, type TensorType } from "./types.js";

/** The file that the addresses of elided payloads point into. */
const ELIDED = "{...}";

/** Words that the syntax reads as the start of a type. */
const NOT_TENSORS = new Set(["seq", "map", "optional", "sparse_tensor", "opaque", "float6e2m3", "float6e3m2"]);

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

function identifier(name: string): string {
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

/** `float` is a scalar, `float[]` has no known rank. */
function typeText({ elem, shape }: TensorType): string {
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

/**
 * How the text spells the numbers of a type: complex numbers as two floats, types that JavaScript lacks as bit patterns,
 * types narrower than a byte as packed bytes.
 */
function scalarOf(elem: ElementType): { readonly width: number; readonly number: "float" | "signed" | "unsigned" } {
  if (elem === "float" || elem === "complex64") return { width: 4, number: "float" };
  if (elem === "double" || elem === "complex128") return { width: 8, number: "float" };
  const { bits } = ELEMENT_TYPES[elem];
  return { width: Math.max(1, bits / 8), number: elem.startsWith("int") && bits >= 8 ? "signed" : "unsigned" };
}

function scalarText(number: "float" | "signed" | "unsigned", bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (number === "float") return bytes.length === 4 ? shortFloat(view.getFloat32(0, true)) : shortFloat(view.getFloat64(0, true), false);
  let pattern = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) pattern = (pattern << 8n) | BigInt(view.getUint8(i));
  return String(number === "signed" ? BigInt.asIntN(8 * bytes.length, pattern) : pattern);
}

/** The bytes of a literal, or nothing if it does not fit. */
function scalarBytes({ width, number }: ReturnType<typeof scalarOf>, literal: string): Uint8Array | undefined {
  const bytes = new Uint8Array(width);
  const view = new DataView(bytes.buffer);
  if (number === "float") {
    if (width === 4) view.setFloat32(0, floatOf(literal), true);
    else view.setFloat64(0, floatOf(literal), true);
    return bytes;
  }
  if (!/^-?\d+$/.test(literal)) return undefined;
  const wanted = BigInt(literal);
  const fitting = number === "signed" ? BigInt.asIntN(8 * width, wanted) : BigInt.asUintN(8 * width, wanted);
  if (fitting !== wanted) return undefined;
  for (let i = 0; i < width; i++) view.setUint8(i, Number((wanted >> BigInt(8 * i)) & 255n));
  return bytes;
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

function floatOf(literal: string): number {
  const word = literal.replace(/^-/, "").toLowerCase();
  const size = word === "inf" || word === "infinity" ? Infinity : word === "nan" ? NaN : Number(word);
  return literal.startsWith("-") ? -size : size;
}

/** The model that a text says. Throws TEXT_INVALID with line and column. */
export function parse(text: string): Model {
  return new Parser(text).model();
}

interface Literal {
  readonly kind: "int" | "float" | "string";
  readonly text: string;
  readonly at: number;
}

/** A name in the text, and where it stands. */
interface Mention {
  readonly name: string;
  readonly at: number;
}

interface Declaration extends Mention {
  readonly type: TensorType | undefined;
}

/** Recursive descent over the characters; one method for each rule of the grammar. */
class Parser {
  private at = 0;
  private elidedBytes = 0;
  private readonly values = new Map<string, Value>();
  private readonly types = new Map<string, TensorType>();
  private readonly aliases = new Map<string, Mention>();
  private readonly marks: { readonly site: string; readonly step: number; readonly value: Mention }[] = [];

  constructor(private readonly text: string) {}

  model(): Model {
    let irVersion: number | undefined;
    let opsets: Map<string, number> | undefined;
    let metadata = new Map<string, string>();
    this.list("<", ">", () => {
      const field = this.identifier();
      this.expect(":");
      if (field.name === "ir_version") irVersion = this.count();
      else if (field.name === "opset_import") opsets = this.pairs(() => this.count());
      else if (field.name === "metadata_props") metadata = this.pairs(() => this.string());
      else if (["producer_name", "producer_version", "domain", "doc_string", "model_version"].includes(field.name)) this.literal();
      else throw this.error(`'${field.name}' is no field of a model`, field.at);
    });
    if (irVersion === undefined || opsets === undefined) throw this.error("a model needs ir_version and opset_import");
    const graph = this.graph();
    this.skip();
    if (this.at < this.text.length) throw this.error("the end of the text expected (local functions are not read)");
    return { graph, opsets, irVersion, metadata };
  }

  private graph(): Graph {
    const { name } = this.identifier();
    const inputs = this.list("(", ")", () => this.declaration()).map((input) => this.define(input, inputValue(input.name, input.type)));
    this.expect("=>");
    const ports = this.list("(", ")", () => this.declaration());
    for (const port of ports) if (port.type) this.types.set(port.name, port.type);
    if (this.peeks("<"))
      this.list("<", ">", () => {
        this.entry();
      });
    const nodes: Node[] = [];
    this.expect("{");
    while (!this.accept("}")) {
      if (this.accept("# mark ")) this.mark();
      else if (this.accept("# output ")) this.alias();
      else nodes.push(this.node());
    }
    const outputs: Port[] = ports.map((port) => ({ name: port.name, value: this.value(this.aliases.get(port.name) ?? port) }));
    const marks: Mark[] = this.marks.map(({ site, step, value }) => ({ site, step, value: this.value(value) }));
    return { name, inputs, outputs, nodes, marks };
  }

  private declaration(): Declaration {
    const type = this.type();
    return { ...this.identifier(), type };
  }

  /** An entry of the section between outputs and nodes: a constant, or the type of a result. */
  private entry(): void {
    const { name, at, type } = this.declaration();
    if (this.accept("=")) this.define({ name, at }, constant(name, this.tensor(type)));
    else if (type) this.types.set(name, type);
  }

  private node(): Node {
    const name = this.accept("[") ? this.identifier().name : "";
    if (name !== "") this.expect("]");
    const outputs = this.mentions();
    this.expect("=");
    const path = [this.identifier().name];
    while (this.accept(".")) path.push(this.identifier().name);
    const before = this.attributes();
    this.expect("(");
    const inputs = this.mentions().map((input) => (input.name === "" ? undefined : this.value(input)));
    this.expect(")");
    const attributes = before.size > 0 ? before : this.attributes();
    const captures: Port[] = [];
    while (this.accept("# capture ")) captures.push({ name: this.identifier().name, value: this.value(this.assigned()) });
    const node = makeNode({
      domain: path.slice(0, -1).join("."),
      opType: path.at(-1) ?? "",
      name,
      inputs,
      outputs: outputs.map((output) => ({ name: output.name, type: this.types.get(output.name) })),
      attributes,
      captures,
    });
    for (const [i, value] of node.outputs.entries()) {
      const output = outputs[i];
      if (output && output.name !== "") this.define(output, value);
    }
    return node;
  }

  /** Names with commas between them; one that is blank or `""` is missing, and a comma at the end adds nothing. */
  private mentions(): Mention[] {
    const found: Mention[] = [];
    for (;;) {
      const mention = this.optionalIdentifier();
      if (!mention && !this.peeks(",")) return found;
      found.push(mention ?? { name: "", at: this.at });
      if (!this.accept(",")) return found;
    }
  }

  private mark(): void {
    this.skip();
    const site = this.take(/[\w.-]+/y) ?? this.string();
    this.expect("@");
    this.marks.push({ site, step: this.count(), value: this.assigned() });
  }

  private alias(): void {
    this.aliases.set(this.identifier().name, this.assigned());
  }

  private assigned(): Mention {
    this.expect("=");
    return this.identifier();
  }

  private attributes(): Map<string, Attribute> {
    const found = new Map<string, Attribute>();
    if (!this.peeks("<")) return found;
    this.list("<", ">", () => {
      const { name, at } = this.identifier();
      if (found.has(name)) throw this.error(`the attribute '${name}' is given twice`, at);
      const annotation = this.accept(":") ? this.identifier().name : undefined;
      this.expect("=");
      const attribute = this.attribute(annotation);
      if (annotation !== undefined && attribute.kind !== "opaque" && attribute.kind !== annotation)
        throw this.error(`the attribute '${name}' is said to be ${annotation} and is ${attribute.kind}`, at);
      found.set(name, attribute);
    });
    return found;
  }

  private attribute(annotation: string | undefined): Attribute {
    if (this.accept(ELIDED)) return { kind: "opaque", bytes: new Uint8Array() };
    const type = this.type();
    if (type) {
      this.optionalIdentifier();
      this.accept("=");
      return { kind: "tensor", value: this.tensor(type) };
    }
    if (!this.peeks("[")) {
      const literal = this.literal();
      const kind = annotation === "float" && literal.kind === "int" ? "float" : literal.kind;
      if (kind === "string") return { kind, value: literal.text };
      return kind === "int" ? { kind, value: this.int64(literal) } : { kind, value: Math.fround(floatOf(literal.text)) };
    }
    const literals = this.list("[", "]", () => this.literal());
    const kind = annotation ?? (literals[0] && `${literals[0].kind}s`);
    if (kind === "ints") return { kind, value: literals.map((literal) => this.int64(literal)) };
    if (kind === "floats") return { kind, value: literals.map((literal) => Math.fround(this.float(literal))) };
    if (kind === "strings") return { kind, value: literals.map((literal) => this.only("string", literal)) };
    throw this.error("an empty list needs its type, as in 'axes: ints = []'");
  }

  /** A type, unless something else comes. */
  private type(): TensorType | undefined {
    this.skip();
    const start = this.at;
    const word = this.take(/[A-Za-z_]\w*/y) ?? "";
    if (NOT_TENSORS.has(word)) throw this.error(`only tensors of the types that have a data type are read, not '${word}'`, start);
    if (!isElementType(word)) {
      this.at = start;
      return undefined;
    }
    if (!this.peeks("[")) return { elem: word, shape: [] };
    const shape = this.list("[", "]", () => (this.accept("?") ? null : (this.optionalIdentifier()?.name ?? this.count())));
    return { elem: word, shape: shape.length > 0 ? shape : null };
  }

  private tensor(type: TensorType | undefined): TensorData {
    const shape = staticShape(type);
    if (!type || !shape) throw this.error("a constant needs a type with a fixed shape");
    const { elem } = type;
    this.skip();
    const start = this.at;
    if (this.accept(ELIDED)) {
      const length = byteSize(elem, elementCount(shape));
      const offset = this.elidedBytes;
      this.elidedBytes += length;
      return { elem, shape, content: { kind: "file", file: ELIDED, offset, length } };
    }
    const literals = this.list("{", "}", () => this.literal());
    const strings = literals.filter((literal) => literal.kind === "string");
    if (strings.length !== (elem === "string" ? literals.length : 0)) throw this.error(`these are no elements of type ${elem}`, start);
    const scalar = scalarOf(elem);
    const wanted = elem === "string" ? elementCount(shape) : byteSize(elem, elementCount(shape)) / scalar.width;
    if (literals.length !== wanted) throw this.error(`${wanted} elements expected, ${literals.length} found`, start);
    if (elem === "string")
      return { elem, shape, content: { kind: "strings", strings: strings.map(({ text }) => new TextEncoder().encode(text)) } };
    const bytes = new Uint8Array(wanted * scalar.width);
    for (const [i, { text, at }] of literals.entries()) {
      const element = scalarBytes(scalar, text);
      if (!element) throw this.error(`${text} is no ${elem}`, at);
      bytes.set(element, i * scalar.width);
    }
    return { elem, shape, content: { kind: "bytes", bytes } };
  }

  private literal(): Literal {
    this.skip();
    const at = this.at;
    if (this.peeks('"')) return { kind: "string", text: this.string(), at };
    const text = this.take(/-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|(?:infinity|inf|nan)\b)/iy);
    if (text === undefined) throw this.error("a number or a string expected");
    return { kind: /^-?\d+$/.test(text) ? "int" : "float", text, at };
  }

  private only(kind: Literal["kind"], literal: Literal): string {
    if (literal.kind !== kind) throw this.error(`${kind} expected, ${literal.kind} found`, literal.at);
    return literal.text;
  }

  private int64(literal: Literal): bigint {
    const value = BigInt(this.only("int", literal));
    if (BigInt.asIntN(64, value) !== value) throw this.error(`${literal.text} is no int64`, literal.at);
    return value;
  }

  private float(literal: Literal): number {
    if (literal.kind === "string") throw this.error("float expected, string found", literal.at);
    return floatOf(literal.text);
  }

  private count(): number {
    this.skip();
    const text = this.take(/\d+/y);
    if (text === undefined) throw this.error("a whole number expected");
    return Number(text);
  }

  private string(): string {
    this.skip();
    const text = this.take(/"(?:[^"\\]|\\[^])*"/y);
    if (text === undefined) throw this.error("a string in double quotes expected");
    return text.slice(1, -1).replace(/\\([^])/g, "$1");
  }

  private identifier(): Mention {
    const found = this.optionalIdentifier();
    if (!found) throw this.error("a name expected");
    return found;
  }

  private optionalIdentifier(): Mention | undefined {
    this.skip();
    const at = this.at;
    const name = this.text[at] === '"' ? this.string() : this.take(/[A-Za-z_]\w*/y);
    return name === undefined ? undefined : { name, at };
  }

  private pairs<T>(value: () => T): Map<string, T> {
    const found = new Map<string, T>();
    this.list("[", "]", () => {
      const key = this.string();
      this.expect(":");
      found.set(key, value());
    });
    return found;
  }

  private list<T>(open: string, close: string, item: () => T): T[] {
    const found: T[] = [];
    this.expect(open);
    if (this.accept(close)) return found;
    do found.push(item());
    while (this.accept(","));
    this.expect(close);
    return found;
  }

  private define({ name, at }: Mention, value: Value): Value {
    if (this.values.has(name)) throw this.error(`'${name}' is defined twice`, at);
    this.values.set(name, value);
    return value;
  }

  private value({ name, at }: Mention): Value {
    const value = this.values.get(name);
    if (!value) throw this.error(`nothing before this defines '${name}'`, at);
    return value;
  }

  private expect(token: string): void {
    if (!this.accept(token)) throw this.error(`'${token}' expected`);
  }

  private accept(token: string): boolean {
    const found = this.peeks(token);
    if (found) this.at += token.length;
    return found;
  }

  private peeks(token: string): boolean {
    this.skip();
    return this.text.startsWith(token, this.at);
  }

  /** Spaces, and comments that say nothing to us. */
  private skip(): void {
    this.take(/(?:\s+|#(?! (?:mark|output|capture) )[^\n]*)*/y);
  }

  private take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const text = pattern.exec(this.text)?.[0];
    this.at += text?.length ?? 0;
    return text;
  }

  private error(problem: string, at = this.at): Error {
    const before = this.text.slice(0, at).split("\n");
    return textInvalid(before.length, (before.at(-1)?.length ?? 0) + 1, problem);
  }
}
