/** The graph IR: immutable models, graphs, nodes and values, and the marks on values of branches. */
import type { CacheKey, DitView } from "./dit.js";
import type { RuntimeOperator, StandardOperator } from "./operators.js";
import type { TensorData } from "./tensor.js";
import type { TensorType } from "./types.js";

/**
 * The result of a node (`producer`), a constant (`data`), or else an input of the graph. A value is identified by its object;
 * `name` is only a label, which the writer makes unique.
 */
export interface Value {
  readonly name: string;
  readonly type?: TensorType | undefined;
  readonly producer?: Node | undefined;
  readonly data?: TensorData | undefined;
  /** What the file says about this value beyond the fields of the IR; kept for writing it back. */
  readonly extra?: unknown;
}

/**
 * An attribute of a node. The nodes of a `graph` attribute may read values of the graphs around it. Subgraphs that were read from
 * a file, types, and everything else that no pass looks into stay `opaque`: the bytes of the file.
 */
export type Attribute =
  | { readonly kind: "int"; readonly value: bigint }
  | { readonly kind: "float"; readonly value: number }
  | { readonly kind: "string"; readonly value: string }
  | { readonly kind: "ints"; readonly value: readonly bigint[] }
  | { readonly kind: "floats"; readonly value: readonly number[] }
  | { readonly kind: "strings"; readonly value: readonly string[] }
  | { readonly kind: "tensor"; readonly value: TensorData }
  | { readonly kind: "graph"; readonly value: Graph }
  | { readonly kind: "opaque"; readonly bytes: Uint8Array };

export interface Node {
  readonly domain: string;
  readonly opType: string;
  readonly name: string;
  readonly inputs: readonly (Value | undefined)[];
  readonly outputs: readonly Value[];
  readonly attributes: ReadonlyMap<string, Attribute>;
  /** The graphs among the attributes, which every walk asks for. */
  readonly subgraphs: readonly Graph[];
  /** Values that the node's opaque attributes read by name. */
  readonly captures: readonly Port[];
  /** The exporter's metadata, module scopes among it. */
  readonly metadata: ReadonlyMap<string, string>;
  /** The module path that the exporter left, such as `blocks.3.attn`. Only a label: no decision depends on it. */
  readonly scope?: string | undefined;
  readonly extra?: unknown;
}

/** A value and the name by which the outside knows it. */
export interface Port {
  readonly name: string;
  readonly value: Value;
}

/** The value of a branch (`site`) at a step, in a call of the network (`half`). A mark keeps no node alive. */
export interface Mark extends CacheKey {
  readonly step: number;
  readonly value: Value;
}

/**
 * `nodes` is topologically sorted. There is no list of constants: a graph has those that its nodes read. In a subgraph the names of
 * inputs and outputs are only labels, as its node knows them by position.
 */
export interface Graph {
  readonly name: string;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Port[];
  readonly nodes: readonly Node[];
  readonly marks: readonly Mark[];
  readonly extra?: unknown;
}

export interface Model {
  readonly graph: Graph;
  /** Domain ("" is the standard one) to opset version. */
  readonly opsets: ReadonlyMap<string, number>;
  /** The version of the format in the model's file. It is written with the lowest that it needs (`ir/onnx/ir-version.ts`). */
  readonly irVersion: number;
  readonly metadata: ReadonlyMap<string, string>;
  readonly dit?: DitView | undefined;
  readonly extra?: unknown;
}

/** How deep subgraphs may be nested: deeper than in any known model, and as deep as other readers of the format go. */
export const DEPTH_LIMIT = 30;

const NONE: ReadonlyMap<string, never> = new Map<string, never>();
const NO_GRAPHS: readonly Graph[] = [];

export function inputValue(name: string, type?: TensorType, extra?: unknown): Value {
  return { name, type, extra };
}

export function constant(name: string, data: TensorData, extra?: unknown): Value {
  return { name, type: { elem: data.elem, shape: data.shape }, data, extra };
}

export interface OutputSpec {
  readonly name: string;
  readonly type?: TensorType | undefined;
  readonly extra?: unknown;
}

export interface NodeSpec extends Partial<Omit<Node, "outputs" | "opType" | "inputs" | "subgraphs">> {
  readonly opType: string;
  readonly inputs: readonly (Value | undefined)[];
  readonly outputs: readonly OutputSpec[];
}

/** A node and the values that it produces. */
export function makeNode(spec: NodeSpec): Node {
  const outputs: Value[] = [];
  const node: Node = {
    domain: spec.domain ?? "",
    opType: spec.opType,
    name: spec.name ?? "",
    inputs: spec.inputs,
    outputs,
    attributes: spec.attributes ?? NONE,
    subgraphs: graphsOf(spec.attributes ?? NONE),
    captures: spec.captures ?? [],
    metadata: spec.metadata ?? NONE,
    scope: spec.scope,
    extra: spec.extra,
  };
  for (const { name, type, extra } of spec.outputs) outputs.push({ name, type, producer: node, extra });
  return node;
}

function graphsOf(attributes: Node["attributes"]): readonly Graph[] {
  let graphs: Graph[] | undefined;
  for (const attribute of attributes.values()) if (attribute.kind === "graph") (graphs ??= []).push(attribute.value);
  return graphs ?? NO_GRAPHS;
}

/** A node with one output, and that output. */
export function makeOp(
  opType: StandardOperator,
  inputs: readonly (Value | undefined)[],
  output: OutputSpec,
  attributes: Readonly<Record<string, Attribute>> = {},
): { readonly node: Node; readonly value: Value } {
  const node = makeNode({ opType, name: output.name, inputs, outputs: [output], attributes: new Map(Object.entries(attributes)) });
  return { node, value: only(node) };
}

/** The only output of a node. */
export function only(node: Node): Value {
  const [value] = node.outputs;
  if (!value || node.outputs.length !== 1)
    throw new Error(`internal: ${node.opType} '${node.name}' has ${node.outputs.length} outputs, not one`);
  return value;
}

/** Whether a node is in the default domain of the ONNX standard, which has two spellings. */
export function isOfStandardDomain({ domain }: Pick<Node, "domain">): boolean {
  return domain === "" || domain === "ai.onnx";
}

/** Whether a node is one of these standard operators. */
export function isOp(node: Node | undefined, ...opTypes: readonly StandardOperator[]): boolean {
  const names: readonly string[] = opTypes;
  return node !== undefined && isOfStandardDomain(node) && names.includes(node.opType);
}

/** Whether a node is one of these operators of ONNX Runtime. */
export function isRuntimeOp(node: Node, ...opTypes: readonly RuntimeOperator[]): boolean {
  const names: readonly string[] = opTypes;
  // The runtime registers this one in the standard domain.
  const isOfRuntime = node.domain === "com.microsoft" || (isOfStandardDomain(node) && node.opType === "SimplifiedLayerNormalization");
  return isOfRuntime && names.includes(node.opType);
}

export function intAttribute(node: Node, name: string, otherwise: number): number {
  const attribute = node.attributes.get(name);
  return attribute?.kind === "int" ? Number(attribute.value) : otherwise;
}

export function floatAttribute(node: Node, name: string, otherwise: number): number {
  const attribute = node.attributes.get(name);
  return attribute?.kind === "float" ? attribute.value : otherwise;
}

export function intsAttribute(node: Node, name: string): readonly number[] | undefined {
  const attribute = node.attributes.get(name);
  return attribute?.kind === "ints" ? attribute.value.map(Number) : undefined;
}

/** The version of the standard operator set; 0 where the model has none. */
export function opsetOf({ opsets }: Model): number {
  return opsets.get("") ?? opsets.get("ai.onnx") ?? 0;
}

/** The model with another graph; the same object if that is the graph it already has. */
export function withGraph(model: Model, graph: Graph): Model {
  return graph === model.graph ? model : { ...model, graph };
}

/** The view of a lifted model. */
export function ditView(model: Model): DitView {
  if (!model.dit) throw new Error("internal: the model has not been lifted");
  return model.dit;
}
