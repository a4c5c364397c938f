/**
 * The rules of a well-formed graph. Each line is a rule: its name, then what must hold. Subgraphs follow the same rules, except those
 * for the names of inputs and outputs, which are only labels there. Values of the graphs around a subgraph are defined in it.
 *
 * Values
 *   value-kind         a value is not both a result and a constant
 *   value-defined      what a node reads, its subgraphs included, is an input of the graph, a constant or an output of an earlier node
 *   value-type         fixed dimensions of a type are whole numbers, not negative
 * Nodes
 *   node-twice         no node is in the lists twice
 *   node-output        an output of a node has that node as its producer, and is among its outputs once
 *   node-capture       the names by which a node's opaque attributes read values differ
 *   node-opset         the model has an opset of the node's domain
 *   node-type          the result types of a node that a pass made are those that its operator has for its operands, as far as known
 * Interface
 *   input-plain        an input is no result; data is its default; in a subgraph it has no data and is no value of an outer graph
 *   input-name         inputs have names, and they differ
 *   output-defined     what an output names is defined, as for nodes
 *   output-name        outputs have names, and they differ; an input and an output only share a name if they are the same value
 * Constants (of values and of attributes)
 *   constant-type      the type of a constant value is that of its data
 *   constant-size      the payload has the length that type and shape require
 * Marks
 *   mark-twice         a branch has one mark per step and call
 *   mark-step          steps are whole numbers from 0
 *   mark-defined       what a mark names is defined, as for nodes
 *   mark-kept          a mark on a value that the graph needs is on one that it needs after a pass, too, but where that is the pass's purpose
 * DiT view
 *   dit-port           latent, timestep and conditions are inputs, the prediction is an output
 *   dit-branch         sites differ, and each has a mark
 */
import { allNodes } from "./analysis.js";
import type { DitView } from "./dit.js";
import { modelMalformed } from "./diagnostics.js";
import type { Graph, Mark, Model, Node, Value } from "./graph.js";
import { sweep } from "./rewrite.js";
import { tensorBytes, type TensorData } from "./tensor.js";
import { excerpt, typeText } from "./print.js";
import { isFixed, resultTypes } from "./type-rules.js";
import { elementCount, sameType, type TensorType } from "./types.js";

/** The names of the rules at the head of this file. */
export type RuleName =
  | `value-${"kind" | "defined" | "type"}`
  | `node-${"twice" | "output" | "capture" | "opset" | "type"}`
  | `input-${"plain" | "name"}`
  | `output-${"defined" | "name"}`
  | `constant-${"type" | "size"}`
  | `mark-${"twice" | "step" | "defined" | "kept"}`
  | `dit-${"port" | "branch"}`;

/** A violated rule, and where. */
export interface Violation {
  readonly rule: RuleName;
  readonly message: string;
  readonly node?: Node | undefined;
  readonly value?: Value | undefined;
}

/** All violations in a model, in the order of the graph; an empty list if it is well-formed. Linear. */
export function check(model: Model): readonly Violation[] {
  const { graph } = model;
  const found: Violation[] = [];
  const report: Report = (rule, message, place = {}) => found.push({ rule, message, ...place });
  checkNames(graph, report);
  new Checker(model, report).graph(graph, () => false);
  if (model.dit) checkDit(model.dit, graph, report);
  return found;
}

/** Whether a value is defined before it is read. */
type IsDefined = (value: Value) => boolean;

/** The checks of every graph of a model, at any depth. */
class Checker {
  private readonly nodes = new Set<Node>();
  private readonly seen = new Set<Value>();

  constructor(
    private readonly model: Model,
    private readonly report: Report,
  ) {}

  /** `holder`: the node that the graph stands in. */
  graph(graph: Graph, isAround: IsDefined, holder?: Node): void {
    const defined = new Set<Value>(graph.inputs);
    const isDefined: IsDefined = (value) => value.data !== undefined || defined.has(value) || isAround(value);
    for (const value of graph.inputs) {
      this.value(value, holder);
      const subject = { node: holder, value };
      if (value.producer) this.report("input-plain", `the input '${value.name}' is a result`, subject);
      if (holder && (value.data !== undefined || isAround(value)))
        this.report("input-plain", `the input '${value.name}' of a graph in a node is a value from around it`, subject);
    }
    for (const node of graph.nodes) {
      this.node(node, isDefined);
      for (const value of node.outputs) defined.add(value);
    }
    for (const { name, value } of graph.outputs) {
      this.value(value, holder);
      if (!isDefined(value))
        this.report("output-defined", `the output '${name}' is '${value.name}', which nothing defines`, { node: holder, value });
    }
    checkMarks(graph, isDefined, this.report);
  }

  private node(node: Node, isDefined: IsDefined): void {
    if (this.nodes.has(node)) this.report("node-twice", `${node.opType} stands in the lists twice`, { node });
    this.nodes.add(node);
    if (!hasOpset(this.model, node.domain)) this.report("node-opset", `there is no opset of domain '${node.domain}'`, { node });
    const read = (value: Value): void => {
      this.value(value, node);
      if (!isDefined(value)) this.report("value-defined", `'${value.name}' is not defined before it is read`, { node, value });
    };
    for (const value of node.inputs) if (value) read(value);
    for (const { value } of node.captures) read(value);
    for (const name of repeated(node.captures.map((port) => port.name)))
      this.report("node-capture", `a subgraph reads two values as '${name}'`, { node });
    for (const [name, attribute] of node.attributes) {
      if (attribute.kind === "tensor") checkPayload(attribute.value, `attribute '${name}'`, { node }, this.report);
      if (attribute.kind === "graph") this.graph(attribute.value, isDefined, node);
    }
    for (const value of node.outputs) {
      this.value(value, node);
      if (value.producer !== node) this.report("node-output", `its output '${value.name}' has another producer`, { node, value });
    }
    for (const value of repeated(node.outputs))
      this.report("node-output", `'${value.name}' stands among its outputs twice`, { node, value });
  }

  private value(value: Value, node: Node | undefined): void {
    if (this.seen.has(value)) return;
    this.seen.add(value);
    checkValue(value, node, this.report);
  }
}

/** The rule `node-type`: violations in nodes that the model `before` does not have. Linear. */
export function checkTypes(model: Model, before: Model): readonly Violation[] {
  const found: Violation[] = [];
  const known = new Set(allNodes(before.graph));
  for (const node of allNodes(model.graph))
    if (!known.has(node)) checkResults(node, (rule, message, place = {}) => found.push({ rule, message, ...place }));
  return found;
}

/** The rule `mark-kept`: marks on values that the graph of `before` needs and that this one has not, or on values that nothing needs. Linear. */
export function checkMarksKept(model: Model, before: Model): readonly Violation[] {
  const keyOf = ({ half, site, step }: Mark): string => `${half} ${site} @${step}`;
  const kept = new Set(sweep(model.graph).marks.map(keyOf));
  return sweep(before.graph).marks.flatMap((mark): Violation[] => {
    const message = `the mark of '${mark.site}' at step ${mark.step}, on '${mark.value.name}', is gone, or on a value that nothing needs`;
    return kept.has(keyOf(mark)) ? [] : [{ rule: "mark-kept", message }];
  });
}

function checkResults(node: Node, report: Report): void {
  for (const [i, type] of resultTypes(node).entries()) {
    const value = node.outputs[i];
    if (!type || !isFixed(value?.type)) continue;
    if (type === "misfit") report("node-type", `${node.opType} takes no operands of these types`, { node, value });
    else if (!sameType(type, value.type))
      report("node-type", `'${value.name}' is said to be ${typeText(value.type)}, and ${node.opType} gives ${typeText(type)}`, {
        node,
        value,
      });
  }
}

/** What a graph is compared with: the model before the pass that made it, for the rules in which that counts. */
export interface Compared {
  readonly types?: Model | undefined;
  readonly marks?: Model | undefined;
}

/**
 * For graphs that the compiler made: throws an `internal:` error that shows the violations in the text of the graph. Against `before`, it
 * also checks the types of the nodes that are new, and that no mark is lost.
 */
export function assertWellFormed(model: Model, before: Compared = {}): void {
  const violations = [
    ...check(model),
    ...(before.types ? checkTypes(model, before.types) : []),
    ...(before.marks ? checkMarksKept(model, before.marks) : []),
  ];
  if (violations.length > 0) throw new Error(`internal: the graph '${model.graph.name}' is malformed\n${explain(model, violations)}`);
}

/** For graphs that came from outside. Throws MODEL_MALFORMED. */
export function requireWellFormed(model: Model, file?: string): void {
  const violations = check(model);
  const [first] = violations;
  if (first) throw modelMalformed(explain(model, violations), { file, node: first.node?.name, value: first.value?.name });
}

/** The most violations that are shown. */
const SHOWN = 20;

/** Violations as text: those of a node under that node's line, the others after. */
export function explain(model: Model, violations: readonly Violation[]): string {
  const notes = new Map<Node, string[]>();
  const lines: string[] = [];
  for (const { rule, message, node } of violations.slice(0, SHOWN)) {
    const line = `${rule}: ${message}`;
    const list = node && notes.get(node);
    if (list) list.push(line);
    else if (node) notes.set(node, [line]);
    else lines.push(line);
  }
  if (violations.length > SHOWN) lines.push(`and ${violations.length - SHOWN} more`);
  return [...(notes.size > 0 ? [excerpt(model, notes)] : []), ...lines].join("\n");
}

interface Subject {
  readonly node?: Node | undefined;
  readonly value?: Value | undefined;
}

type Report = (rule: RuleName, message: string, subject?: Subject) => void;

function checkValue(value: Value, node: Node | undefined, report: Report): void {
  const subject = { node, value };
  const { name, type, data } = value;
  if (value.producer && data) report("value-kind", `'${name}' is a result and a constant`, subject);
  if (!hasWholeDims(type)) report("value-type", `'${name}' has a dimension that is no whole number`, subject);
  if (!data) return;
  if (!sameType(type, data)) report("constant-type", `'${name}' has not the type of its data`, subject);
  checkPayload(data, `'${name}'`, subject, report);
}

function hasWholeDims(type: TensorType | undefined): boolean {
  return (type?.shape ?? []).every((dim) => typeof dim !== "number" || isWhole(dim));
}

function isWhole(n: number): boolean {
  return Number.isSafeInteger(n) && n >= 0;
}

function checkPayload(data: TensorData, what: string, subject: Subject, report: Report): void {
  const { content, elem, shape } = data;
  const isText = content.kind === "strings";
  if (isText !== (elem === "string")) {
    report("constant-size", `${what} is ${elem} and holds ${content.kind}`, subject);
    return;
  }
  const wanted = isText ? elementCount(shape) : tensorBytes(data);
  const held = isText ? content.strings.length : content.kind === "bytes" ? content.bytes.byteLength : content.length;
  const unit = isText ? "strings" : "bytes";
  if (held !== wanted) report("constant-size", `${what} holds ${held} ${unit}, its type and shape ask for ${wanted}`, subject);
}

function hasOpset({ opsets }: Model, domain: string): boolean {
  return opsets.has(domain) || (domain === "" && opsets.has("ai.onnx")) || (domain === "ai.onnx" && opsets.has(""));
}

/** The rules `input-name` and `output-name`. */
function checkNames({ inputs, outputs }: Graph, report: Report): void {
  const named = new Map(inputs.map((value) => [value.name, value]));
  for (const value of inputs) if (value.name === "") report("input-name", "an input has no name", { value });
  for (const name of repeated(inputs.map((value) => value.name))) report("input-name", `two inputs have the name '${name}'`);
  for (const { name, value } of outputs) {
    if (name === "") report("output-name", "an output has no name", { value });
    const input = named.get(name);
    if (input && input !== value)
      report("output-name", `'${name}' is the name of an input and of an output that is another value`, { value });
  }
  for (const name of repeated(outputs.map((port) => port.name))) report("output-name", `two outputs have the name '${name}'`);
}

function checkMarks(graph: Graph, isDefined: IsDefined, report: Report): void {
  const steps = new Map<string, Set<number>>();
  for (const { site, half, step, value } of graph.marks) {
    const key = `${half} ${site}`;
    const known = steps.get(key) ?? new Set<number>();
    if (known.has(step)) report("mark-twice", `'${site}' is marked twice at step ${step}`, { value });
    if (!isWhole(step)) report("mark-step", `'${site}' is marked at step ${step}`, { value });
    if (!isDefined(value))
      report("mark-defined", `the mark of '${site}' at step ${step} is '${value.name}', which nothing defines`, { value });
    steps.set(key, known.add(step));
  }
}

function checkDit(dit: DitView, graph: Graph, report: Report): void {
  const inputs = new Set(graph.inputs.map((value) => value.name));
  const needed: (readonly [string, string])[] = [["latent", dit.latent]];
  for (const name of dit.conditions) needed.push(["condition", name]);
  if (dit.timestep !== undefined) needed.push(["timestep", dit.timestep]);
  for (const [what, name] of needed) if (!inputs.has(name)) report("dit-port", `the ${what} '${name}' is no input`);
  if (!graph.outputs.some((port) => port.name === dit.prediction)) report("dit-port", `the prediction '${dit.prediction}' is no output`);
  const marked = new Set(graph.marks.map((mark) => mark.site));
  for (const { site } of dit.branches) if (!marked.has(site)) report("dit-branch", `the branch '${site}' has no mark`);
  for (const site of repeated(dit.branches.map((branch) => branch.site))) report("dit-branch", `two branches have the site '${site}'`);
}

/** Every repetition of something that occurred before. */
function repeated<T>(list: readonly T[]): readonly T[] {
  if (list.length < 2) return [];
  const seen = new Set<T>();
  return list.filter((entry) => seen.size === seen.add(entry).size);
}
