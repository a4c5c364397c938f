/** Parses the text form of a model, in the syntax of ir/print.ts. It accepts names of nodes, which print leaves out. */
import { textInvalid } from "./diagnostics.js";
import {
  type Attribute,
  constant,
  DEPTH_LIMIT,
  type Graph,
  type Mark,
  inputValue,
  makeNode,
  type Model,
  type Node,
  type Port,
  type Value,
} from "./graph.js";
import type { TensorData } from "./tensor.js";
import { byteSize, elementCount, isElementType, staticShape, type TensorType } from "./types.js";
import { withRuntimeDomains } from "./ops.js";
import { ELIDED, NOT_TENSORS, scalarOf } from "./text-syntax.js";

/** The bytes of a literal; undefined if it does not fit. */
function scalarBytes({ width, number }: ReturnType<typeof scalarOf>, literal: string): Uint8Array | undefined {
  const bytes = new Uint8Array(width);
  const view = new DataView(bytes.buffer);
  const [, bits] = /^nan\((.+)\)$/i.exec(literal) ?? [];
  if (number === "float" && bits === undefined) {
    if (width === 4) view.setFloat32(0, floatOf(literal), true);
    else view.setFloat64(0, floatOf(literal), true);
    return bytes;
  }
  if (number === "float" ? bits === undefined : !isInteger(literal)) return undefined;
  const wanted = BigInt(bits ?? literal);
  const fitting = number === "signed" ? BigInt.asIntN(8 * width, wanted) : BigInt.asUintN(8 * width, wanted);
  if (fitting !== wanted) return undefined;
  for (let i = 0; i < width; i++) view.setUint8(i, Number((wanted >> BigInt(8 * i)) & 255n));
  return bytes;
}

/** Longer ones fit no type, and take long to be read. */
function isInteger(literal: string): boolean {
  return /^-?\d{1,40}$/.test(literal);
}

function floatOf(literal: string): number {
  const word = literal.replace(/^-/, "").toLowerCase();
  const size = word === "inf" || word === "infinity" ? Infinity : word.startsWith("nan") ? NaN : Number(word);
  return literal.startsWith("-") ? -size : size;
}

/** The model of a text. Throws TEXT_INVALID with line and column. */
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

/** Of a value that may be defined later. */
interface MarkMention extends Omit<Mark, "value"> {
  readonly value: Mention;
}

interface Declaration extends Mention {
  readonly type: TensorType | undefined;
}

/** The names that are visible in a graph: its own and those of the graphs around it. */
class Scope {
  private readonly values = new Map<string, Value>();
  readonly types = new Map<string, TensorType>();

  constructor(private readonly outer?: Scope) {}

  get depth(): number {
    return this.outer ? this.outer.depth + 1 : 0;
  }

  at(name: string): Value | undefined {
    return this.values.get(name) ?? this.outer?.at(name);
  }

  define(name: string, value: Value): void {
    this.values.set(name, value);
  }
}

/** Recursive descent over the characters; one method for each rule of the grammar. */
class Parser {
  private at = 0;
  private elidedBytes = 0;
  private scope = new Scope();

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
    return { graph, opsets: withRuntimeDomains(opsets, graph), irVersion, metadata };
  }

  /** A graph in a node sees what is defined so far. */
  private subgraph(): Graph {
    const { scope } = this;
    this.scope = new Scope(scope);
    if (this.scope.depth > DEPTH_LIMIT) throw this.error(`graphs are nested more than ${DEPTH_LIMIT} deep`);
    const graph = this.graph();
    this.scope = scope;
    return graph;
  }

  private graph(): Graph {
    const { name } = this.identifier();
    const inputs = this.list("(", ")", () => this.input());
    this.expect("=>");
    const ports = this.list("(", ")", () => this.declaration());
    for (const port of ports) if (port.type) this.scope.types.set(port.name, port.type);
    if (this.peeks("<"))
      this.list("<", ">", () => {
        this.entry();
      });
    const nodes: Node[] = [];
    const aliases = new Map<string, Mention>();
    const mentioned: MarkMention[] = [];
    this.expect("{");
    while (!this.accept("}")) {
      if (this.accept("# mark ")) mentioned.push(this.mark());
      else if (this.accept("# output ")) aliases.set(this.identifier().name, this.assigned());
      else nodes.push(this.node());
    }
    const outputs: Port[] = ports.map((port) => ({ name: port.name, value: this.value(aliases.get(port.name) ?? port) }));
    const marks = mentioned.map(({ value, ...mark }): Mark => ({ ...mark, value: this.value(value) }));
    return { name, inputs, outputs, nodes, marks };
  }

  /** An input, which may have a default. */
  private input(): Value {
    const input = this.declaration();
    const { name, type } = input;
    return this.define(input, this.accept("=") ? constant(name, this.tensor(type)) : inputValue(name, type));
  }

  private declaration(): Declaration {
    const type = this.type();
    return { ...this.identifier(), type };
  }

  /** An entry of the section between outputs and nodes: a constant, or the type of a result. */
  private entry(): void {
    const { name, at, type } = this.declaration();
    if (this.accept("=")) this.define({ name, at }, constant(name, this.tensor(type)));
    else if (type) this.scope.types.set(name, type);
  }

  private node(): Node {
    const name = this.accept("[") ? this.identifier().name : "";
    if (name !== "") this.expect("]");
    const outputs = this.mentions();
    this.expect("=");
    const path = [this.identifier().name];
    while (this.accept(".")) path.push(this.identifier().name);
    if (path.at(-1) === "") throw this.error("the name of an operator expected");
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
      outputs: outputs.map((output) => ({ name: output.name, type: this.scope.types.get(output.name) })),
      attributes,
      captures,
    });
    for (const [i, value] of node.outputs.entries()) {
      const output = outputs[i];
      if (output && output.name !== "") this.define(output, value);
    }
    return node;
  }

  /** Names separated by commas. A blank or `""` is a missing operand, and a trailing comma adds nothing. */
  private mentions(): Mention[] {
    const found: Mention[] = [];
    for (;;) {
      const mention = this.optionalIdentifier();
      if (!mention && !this.peeks(",")) return found;
      found.push(mention ?? { name: "", at: this.at });
      if (!this.accept(",")) return found;
    }
  }

  private mark(): MarkMention {
    this.skip();
    const site = this.take(/[\w.-]+/y) ?? this.string();
    const half = this.accept("uncond") ? "uncond" : "cond";
    this.expect("@");
    return { site, half, step: this.count(), value: this.assigned() };
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
    const start = this.at;
    const isGraph = this.optionalIdentifier() !== undefined && this.peeks("(");
    this.at = start;
    if (isGraph) return { kind: "graph", value: this.subgraph() };
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

  /** A type, or undefined if something else follows. */
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
    const text = this.take(/-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|nan\(0x[\da-f]{1,16}\)|(?:infinity|inf|nan)\b)/iy);
    if (text === undefined) throw this.error("a number or a string expected");
    return { kind: /^-?\d+$/.test(text) ? "int" : "float", text, at };
  }

  private only(kind: Literal["kind"], literal: Literal): string {
    if (literal.kind !== kind) throw this.error(`${kind} expected, ${literal.kind} found`, literal.at);
    return literal.text;
  }

  private int64(literal: Literal): bigint {
    const text = this.only("int", literal);
    const value = isInteger(text) ? BigInt(text) : undefined;
    if (value === undefined || BigInt.asIntN(64, value) !== value) throw this.error(`${literal.text} is no int64`, literal.at);
    return value;
  }

  private float(literal: Literal): number {
    if (literal.kind === "string") throw this.error("float expected, string found", literal.at);
    return floatOf(literal.text);
  }

  private count(): number {
    this.skip();
    const { at } = this;
    const text = this.take(/\d+/y);
    if (text === undefined) throw this.error("a whole number expected");
    if (!Number.isSafeInteger(Number(text))) throw this.error("the number is too large", at);
    return Number(text);
  }

  private string(): string {
    this.skip();
    if (this.text[this.at] !== '"') throw this.error("a string in double quotes expected");
    const start = this.at + 1;
    let end = start;
    for (let letter = this.text[end]; letter !== '"'; letter = this.text[end]) {
      if (letter === undefined) throw this.error("a string in double quotes expected");
      end += letter === "\\" ? 2 : 1;
    }
    this.at = end + 1;
    return this.text.slice(start, end).replace(/\\([^])/g, "$1");
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
    if (this.scope.at(name)) throw this.error(`'${name}' is defined twice`, at);
    this.scope.define(name, value);
    return value;
  }

  private value({ name, at }: Mention): Value {
    const value = this.scope.at(name);
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

  /** Skips spaces, and comments without a meaning here. */
  private skip(): void {
    for (;;) {
      this.take(/\s+/y);
      if (this.text[this.at] !== "#" || this.follows(/# (?:mark|output|capture) /y)) return;
      this.take(/[^\n]+/y);
    }
  }

  private take(pattern: RegExp): string | undefined {
    const text = this.follows(pattern);
    this.at += text?.length ?? 0;
    return text;
  }

  /** What of a sticky pattern stands here. Patterns repeat single letters alone, as others fail on long texts. */
  private follows(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    return pattern.exec(this.text)?.[0];
  }

  private error(problem: string, at = this.at): Error {
    const before = this.text.slice(0, at).split("\n");
    // It may quote a name or a number of any length.
    const said = problem.length > 200 ? `${problem.slice(0, 100)}…${problem.slice(-100)}` : problem;
    return textInvalid(before.length, (before.at(-1)?.length ?? 0) + 1, said);
  }
}
