/**
 * The written list of what makes a graph well-formed. Each line is a rule: its name, then what holds.
 *
 * Values
 *   value-kind         a value is not both a result and a constant
 *   value-defined      what a node reads, its subgraphs included, is an input of the graph, a constant or an output of an earlier node
 *   value-type         fixed dimensions of a type are whole numbers, not negative
 * Nodes
 *   node-twice         no node stands in the list twice
 *   node-output        an output of a node names that node as its producer, and stands among its outputs once
 *   node-capture       the names that a node's subgraphs read by differ
 *   node-opset         the model has an opset of the node's domain
 *   node-type          the types of a node that a pass has made are those that its operator gives for its operands, where that is known
 * Interface
 *   input-plain        an input of the graph is no result; one that has data is an input with a default
 *   input-name         inputs have names, and they differ
 *   output-defined     what an output names is defined, as for nodes
 *   output-name        outputs have names, and they differ; the name of an input is that of an output only if both are one value
 * Constants (of values and of attributes)
 *   constant-type      the type of a constant value is that of its data
 *   constant-size      the payload has the length that type and shape ask for
 * Marks
 *   mark-twice         a branch has one mark a step
 *   mark-step          steps are whole numbers from 0
 *   mark-defined       what a mark names is defined, as for nodes
 * DiT view
 *   dit-port           latent, timestep and conditions are inputs, the prediction is an output
 *   dit-branch         sites differ, and each has a mark
 */
import type { DitView } from "./dit.js";
import { modelMalformed } from "./diagnostics.js";
import type { Graph, Model, Node, Value } from "./graph.js";
import { tensorBytes, type TensorData } from "./tensor.js";
import { excerpt, typeText } from "./print.js";
import { isFixed, resultTypes } from "./type-rules.js";
import { elementCount, sameType, type TensorType } from "./types.js";

/** The names of the rules at the head of this file. */
export type Rule =
  | `value-${"kind" | "defined" | "type"}`
  | `node-${"twice" | "output" | "capture" | "opset" | "type"}`
  | `input-${"plain" | "name"}`
  | `output-${"defined" | "name"}`
  | `constant-${"type" | "size"}`
  | `mark-${"twice" | "step" | "defined"}`
  | `dit-${"port" | "branch"}`;

/** A rule that does not hold, and where. */
export interface Violation {
  readonly rule: Rule;
  readonly message: string;
  readonly node?: Node | undefined;
  readonly value?: Value | undefined;
}

/** Everything that is wrong with a model, in the order in which a reader meets it; nothing if it is well-formed. Linear. */
export function check(model: Model): readonly Violation[] {
  const { graph } = model;
  const found: Violation[] = [];
  const report: Report = (rule, message, place = {}) => found.push({ rule, message, ...place });
  const defined = new Set<Value>(graph.inputs);
  const seen = new Set<Value>();
  const see = (value: Value, node?: Node): void => {
    if (seen.has(value)) return;
    seen.add(value);
    checkValue(value, node, report);
  };
  const isDefined = (value: Value): boolean => value.data !== undefined || defined.has(value);

  checkInputs(graph, see, report);
  const nodes = new Set<Node>();
  for (const node of graph.nodes) {
    if (nodes.has(node)) report("node-twice", `${node.opType} stands in the list twice`, { node });
    nodes.add(node);
    if (!hasOpset(model, node.domain)) report("node-opset", `there is no opset of domain '${node.domain}'`, { node });
    for (const value of [...node.inputs, ...node.captures.map((port) => port.value)]) {
      if (!value) continue;
      see(value, node);
      if (!isDefined(value)) report("value-defined", `'${value.name}' is not defined before it is read`, { node, value });
    }
    for (const name of repeated(node.captures.map((port) => port.name)))
      report("node-capture", `a subgraph reads two values as '${name}'`, { node });
    for (const [name, attribute] of node.attributes) {
      if (attribute.kind === "tensor") checkPayload(attribute.value, `attribute '${name}'`, { node }, report);
    }
    const own = new Set<Value>();
    for (const value of node.outputs) {
      see(value, node);
      if (value.producer !== node) report("node-output", `its output '${value.name}' has another producer`, { node, value });
      if (own.has(value)) report("node-output", `'${value.name}' stands among its outputs twice`, { node, value });
      own.add(value);
      defined.add(value);
    }
  }
  checkOutputs(graph, see, isDefined, report);
  checkMarks(graph, isDefined, report);
  if (model.dit) checkDit(model.dit, graph, report);
  return found;
}

/** The rule `node-type`: what is wrong with the types of the nodes that are not those of the model before. Linear. */
export function checkTypes(model: Model, before: Model): readonly Violation[] {
  const found: Violation[] = [];
  const known = new Set(before.graph.nodes);
  for (const node of model.graph.nodes)
    if (!known.has(node)) checkResults(node, (rule, message, place = {}) => found.push({ rule, message, ...place }));
  return found;
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

/**
 * For graphs that we made: throws an `internal:` error that shows the violations in the text of the graph. With the model that it
 * was made of, the types of what is new in it are looked at too.
 */
export function assertWellFormed(model: Model, before?: Model): void {
  const violations = [...check(model), ...(before ? checkTypes(model, before) : [])];
  if (violations.length > 0) throw new Error(`internal: the graph '${model.graph.name}' is malformed\n${explain(model, violations)}`);
}

/** For graphs that came from outside. Throws MODEL_MALFORMED. */
export function requireWellFormed(model: Model, file?: string): void {
  const violations = check(model);
  const [first] = violations;
  if (first) throw modelMalformed(explain(model, violations), { file, node: first.node?.name, value: first.value?.name });
}

/** More than these help nobody. */
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

type Report = (rule: Rule, message: string, subject?: Subject) => void;

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

type See = (value: Value, node?: Node) => void;

function checkInputs(graph: Graph, see: See, report: Report): void {
  for (const value of graph.inputs) {
    see(value);
    if (value.producer) report("input-plain", `the input '${value.name}' is a result`, { value });
    if (value.name === "") report("input-name", "an input has no name", { value });
  }
  for (const name of repeated(graph.inputs.map((value) => value.name))) report("input-name", `two inputs have the name '${name}'`);
}

function checkOutputs(graph: Graph, see: See, isDefined: (value: Value) => boolean, report: Report): void {
  const inputs = new Map(graph.inputs.map((value) => [value.name, value]));
  for (const { name, value } of graph.outputs) {
    see(value);
    if (!isDefined(value)) report("output-defined", `the output '${name}' is '${value.name}', which nothing defines`, { value });
    if (name === "") report("output-name", "an output has no name", { value });
    const input = inputs.get(name);
    if (input && input !== value)
      report("output-name", `'${name}' is the name of an input and of an output that is another value`, { value });
  }
  for (const name of repeated(graph.outputs.map((port) => port.name))) report("output-name", `two outputs have the name '${name}'`);
}

function checkMarks(graph: Graph, isDefined: (value: Value) => boolean, report: Report): void {
  const steps = new Map<string, Set<number>>();
  for (const { site, step, value } of graph.marks) {
    const known = steps.get(site) ?? new Set<number>();
    if (known.has(step)) report("mark-twice", `'${site}' is marked twice at step ${step}`, { value });
    if (!isWhole(step)) report("mark-step", `'${site}' is marked at step ${step}`, { value });
    if (!isDefined(value))
      report("mark-defined", `the mark of '${site}' at step ${step} is '${value.name}', which nothing defines`, { value });
    steps.set(site, known.add(step));
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

/** The strings that occur again, as often as they do. */
function repeated(names: readonly string[]): string[] {
  const seen = new Set<string>();
  return names.filter((name) => seen.size === seen.add(name).size);
}
