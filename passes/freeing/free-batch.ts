/**
 * Makes a run of any batch out of the same run at two batches. Both must be the same graph but for what counts latents: there a size is
 * a multiple of the batch in both, which is then named in place of its number. What nodes are told in numbers is told without them where
 * the operator allows it, else computed from the latent's shape: once, and shared by all readers.
 */
import { entryAt } from "../../ir/entries.js";
import {
  type Attribute,
  constant,
  type Graph,
  intAttribute,
  isOp,
  makeNode,
  makeOp,
  type Model,
  type Node,
  opsetOf,
  type Value,
} from "../../ir/graph.js";
import { isElementwise } from "../../ir/ops.js";
import type { StandardOperator } from "../../ir/operators.js";
import { tensorNumbers, tensorOf } from "../../ir/tensor.js";
import { type Dim, staticShape, type TensorType } from "../../ir/types.js";
import { batchFixed } from "../../schedules/diagnostics.js";
import { type ConstantAt, countedIn, isSame, isSameBytes, type Repeated, repeatedIn, type Rounds } from "./constants.js";

/** A run at a batch. */
export interface AtBatch {
  readonly model: Model;
  readonly batch: number;
}

/** The name of the batch in the types of a run. */
export const BATCH = "batch";

/** The size of an axis that has so many elements for each latent: `batch`, `2*batch`. */
function sizeOf(times: number): Dim {
  return times === 1 ? BATCH : `${times}*${BATCH}`;
}

/** The run of any batch that is these two; `latent` is the name of its input. Throws BATCH_FIXED. */
export function freeBatch(low: AtBatch, high: AtBatch, latent: string): Model {
  return { ...low.model, graph: new Freeing(low, high, latent).graph() };
}

/** A run of any batch with the sizes that it has at one. */
export function atBatch(model: Model, batch: number): Model {
  const { graph } = model;
  const made = new Map<Value, Value>();
  const at = (value: Value): Value => made.get(value) ?? value;
  const typed = <T extends { readonly type?: TensorType | undefined }>(value: T): T =>
    value.type?.shape ? { ...value, type: { ...value.type, shape: value.type.shape.map((size) => numberOf(size, batch)) } } : value;
  const keep = (value: Value, bound: Value): Value => {
    made.set(value, bound);
    return bound;
  };
  const inputs = graph.inputs.map((input) => keep(input, typed(input)));
  const nodes = graph.nodes.map((node) => {
    const captures = node.captures.map(({ name, value }) => ({ name, value: at(value) }));
    const bound = makeNode({ ...node, inputs: node.inputs.map((value) => value && at(value)), captures, outputs: node.outputs.map(typed) });
    for (const [i, value] of node.outputs.entries()) keep(value, entryAt(bound.outputs, i));
    return bound;
  });
  const outputs = graph.outputs.map(({ name, value }) => ({ name, value: at(value) }));
  return { ...model, graph: { ...graph, inputs, nodes, outputs, marks: graph.marks.map((mark) => ({ ...mark, value: at(mark.value) })) } };
}

/** What a size is at a batch. */
export function numberOf(size: Dim, batch: number): Dim {
  const times = typeof size === "string" ? /^(?:(\d+)\*)?batch$/.exec(size) : null;
  return times ? Number(times[1] ?? 1) * batch : size;
}

/** A size, or a multiple of the batch. */
type Size = number | { readonly times: number };

function dimOf(size: Size): Dim {
  return typeof size === "number" ? size : sizeOf(size.times);
}

class Freeing {
  private readonly nodes: Node[] = [];
  /** The value of the other run in the place of one of `low`. */
  private readonly twins = new Map<Value, Value>();
  private readonly made = new Map<Value, Value>();
  /** What is computed from the batch, by what it is. */
  private readonly shared = new Map<string, Value>();

  constructor(
    private readonly low: AtBatch,
    private readonly high: AtBatch,
    private readonly latent: string,
  ) {}

  graph(): Graph {
    const [low, high] = [this.low.model.graph, this.high.model.graph];
    if (low.inputs.length !== high.inputs.length || low.nodes.length !== high.nodes.length)
      throw batchFixed(`it has ${low.nodes.length} nodes at a batch of ${this.low.batch} and ${high.nodes.length} at ${this.high.batch}`);
    const inputs = low.inputs.map((input, i) => this.paired(input, high.inputs[i]));
    for (const [i, node] of low.nodes.entries()) this.place(node, high.nodes[i]);
    const at = (value: Value): Value => this.made.get(value) ?? value;
    const outputs = low.outputs.map(({ name, value }, i) => {
      const other = high.outputs[i]?.value;
      return { name, value: this.operand(value, other, undefined) };
    });
    return { ...low, inputs, outputs, nodes: this.nodes, marks: low.marks.map((mark) => ({ ...mark, value: at(mark.value) })) };
  }

  /** An input or a result, with its type. */
  private paired(value: Value, other: Value | undefined, made?: Value): Value {
    if (!other || value.name !== other.name) throw batchFixed(`'${value.name}' is there at one batch only`);
    const free = made ?? { ...value, type: this.typeOf(value, other) };
    this.twins.set(value, other);
    this.made.set(value, free);
    return free;
  }

  private typeOf(value: Value, other: Value, node?: Node): TensorType | undefined {
    const [shape, beside] = [staticShape(value.type), staticShape(other.type)];
    if (!value.type || !shape || !beside) return value.type;
    if (shape.length !== beside.length) throw batchFixed(`'${value.name}' has another rank at another batch`, node);
    return { ...value.type, shape: shape.map((size, axis) => dimOf(this.sizeIn(size, beside[axis] ?? 0, value.name, node))) };
  }

  /** What a number is that is `low` in the one run and `high` in the other. */
  private sizeIn(low: number, high: number, name: string, node: Node | undefined): Size {
    if (low === high) return low;
    const times = low / this.low.batch;
    if (!Number.isInteger(times) || times * this.high.batch !== high)
      throw batchFixed(`'${name}' has the size ${low} at a batch of ${this.low.batch} and ${high} at ${this.high.batch}`, node);
    return { times };
  }

  private place(node: Node, other: Node | undefined): void {
    if (!other || !isAlike(node, other)) throw batchFixed(`in its place there is ${other?.opType ?? "nothing"} at another batch`, node);
    if (node.subgraphs.length > 0) throw batchFixed("it holds graphs of its own", node);
    const read = node.inputs.map((value, i) => (value ? this.readBy(node, other, i) : undefined));
    const captures = node.captures.map(({ name, value }, i) => ({ name, value: this.operand(value, other.captures[i]?.value, node) }));
    const outputs = node.outputs.map((value, i) => ({ ...value, type: this.typeOf(value, other.outputs[i] ?? value, node) }));
    const [inputs, attributes] = this.withoutSizes(node, other, read);
    const made = makeNode({ ...node, inputs, captures, attributes, outputs });
    this.nodes.push(made);
    for (const [i, value] of node.outputs.entries()) this.paired(value, other.outputs[i], made.outputs[i]);
  }

  /** Equal parts of a Split are told by their number. */
  private withoutSizes(node: Node, other: Node, read: Node["inputs"]): readonly [Node["inputs"], Node["attributes"]] {
    if (!isEqualSplit(node) || !isEqualSplit(other) || read[1] === node.inputs[1]) return [read, node.attributes];
    const parts: Attribute = { kind: "int", value: BigInt(node.outputs.length) };
    // Before opset 18 the number of outputs says it.
    const attributes = opsetOf(this.low.model) < 18 ? node.attributes : new Map([...node.attributes, ["num_outputs", parts] as const]);
    return [read.slice(0, 1), attributes];
  }

  /** The operand of a node in place of its operand `i`. */
  private readBy(node: Node, other: Node, i: number): Value | undefined {
    const [value, beside] = [node.inputs[i], other.inputs[i]];
    if (!value) return undefined;
    const { data } = value;
    if (!data || !beside?.data || isSame(data, beside.data)) return this.operand(value, beside, node);
    if (i === 1 && isOp(node, "Reshape")) return this.reshaped(node, other) ?? this.computed(value, beside, node);
    if (i === 1 && isOp(node, "Expand")) return this.expanded(node, other) ?? this.computed(value, beside, node);
    // It is left out (`withoutSizes`).
    if (i === 1 && isEqualSplit(node) && isEqualSplit(other)) return undefined;
    return (isElementwise(node) ? this.broadcast(node, other, i) : undefined) ?? this.computed(value, beside, node);
  }

  private operand(value: Value, other: Value | undefined, node: Node | undefined): Value {
    const made = this.made.get(value);
    if (made && this.twins.get(value) === other) return made;
    if (value.data && other?.data) return isSame(value.data, other.data) ? value : this.computed(value, other, node);
    throw batchFixed(`it reads '${value.name}', and at another batch '${other?.name ?? "nothing"}'`, node);
  }

  /** The sizes of an int64 list; undefined if it is none of equal length. */
  private sizes(value: Value | undefined, other: Value | undefined, node: Node | undefined): readonly Size[] | undefined {
    if (!value?.data || !other?.data || value.data.elem !== "int64") return undefined;
    if (value.data.shape.length !== 1 || value.data.shape.join() !== other.data.shape.join()) return undefined;
    const beside = tensorNumbers(other.data);
    return tensorNumbers(value.data).map((size, i) => this.sizeIn(size, beside[i] ?? 0, value.name, node));
  }

  /** The shape of a Reshape without the batch: an axis is copied, or follows from the others. */
  private reshaped(node: Node, other: Node): Value | undefined {
    const sizes = this.sizes(node.inputs[1], other.inputs[1], node);
    const isExact = intAttribute(node, "allowzero", 0) !== 0;
    const [from, to] = [this.madeType(node.inputs[0]), this.typeOf(entryAt(node.outputs, 0), entryAt(other.outputs, 0), node)];
    if (!sizes || !to?.shape) return undefined;
    const open = sizes.flatMap((size, axis) => (typeof size === "number" || (!isExact && from?.[axis] === to.shape?.[axis]) ? [] : [axis]));
    if (open.length > 1) return undefined;
    const numbers = sizes.map((size, axis): Dim => {
      if (open.includes(axis)) return -1;
      if (typeof size !== "number") return 0;
      return size === -1 && open.length > 0 ? (to.shape?.[axis] ?? null) : size;
    });
    return numbers.every((number) => typeof number === "number") ? this.list(`${node.name}/shape`, numbers) : undefined;
  }

  /** The shape of an Expand without the batch, where its operand has the batch. */
  private expanded(node: Node, other: Node): Value | undefined {
    const sizes = this.sizes(node.inputs[1], other.inputs[1], node);
    const from = this.madeType(node.inputs[0]);
    if (!sizes || !from) return undefined;
    const numbers = sizes.map((size, axis) => {
      if (typeof size === "number") return size;
      return from[axis - sizes.length + from.length] === sizeOf(size.times) ? 1 : undefined;
    });
    return numbers.every((number) => number !== undefined) ? this.list(`${node.name}/shape`, numbers) : undefined;
  }

  private madeType(value: Value | undefined): readonly Dim[] | undefined {
    return (value && this.made.get(value)?.type?.shape) ?? undefined;
  }

  private list(name: string, numbers: readonly number[]): Value {
    return this.once(`list ${numbers.join()}`, () => constant(name, tensorOf("int64", [numbers.length], numbers)));
  }

  /** One row of an operand that is the same for all latents, for an elementwise node that gets all rows from another operand. */
  private broadcast(node: Node, other: Node, i: number): Value | undefined {
    const [value, beside] = [node.inputs[i], other.inputs[i]];
    const both = value && beside && this.atBoth(value, beside);
    const repeated = both && repeatedIn(...both);
    if (!value?.data || repeated?.times !== 1) return undefined;
    const behind = value.data.shape.length - repeated.axis;
    const hasAll = node.inputs.some((operand, j) => j !== i && !operand?.data && this.madeType(operand)?.at(-behind) === sizeOf(1));
    return hasAll ? this.row(value, repeated) : undefined;
  }

  private row(value: Value, { one }: Repeated): Value {
    const known = this.made.get(value) ?? constant(value.name, one);
    this.made.set(value, known);
    return known;
  }

  /** A constant that depends on the batch, as a value that is computed from it. */
  private computed(value: Value, other: Value, node: Node | undefined): Value {
    const sizes = this.sizes(value, other, node);
    if (sizes) return this.shape(sizes);
    const both = this.atBoth(value, other);
    const repeated = both && repeatedIn(...both);
    if (repeated) return this.spread(value, repeated);
    const rounds = both && countedIn(...both);
    if (rounds) return this.counted(rounds);
    throw batchFixed(`'${value.name}' is a constant of other numbers for each latent, or of other numbers at another batch`, node);
  }

  /** Sizes as an int64 list. */
  private shape(sizes: readonly Size[]): Value {
    const text = sizes.map((size) => (typeof size === "number" ? size : sizeOf(size.times))).join();
    const parts = sizes.map((size) => (typeof size === "number" ? this.list(`size_${size}`, [size]) : this.multiple(size.times)));
    const [first] = parts;
    if (first && parts.length === 1) return first;
    const axis: Attribute = { kind: "int", value: 0n };
    return this.once(`shape ${text}`, () => this.op("Concat", parts, "batch/shape", "int64", [parts.length], { axis }));
  }

  /** A multiple of the batch, int64 [1]. */
  private multiple(times: number): Value {
    return this.once(`times ${times}`, () => {
      if (times !== 1)
        return this.op("Mul", [this.multiple(1), this.list(`times_${times}`, [times])], `batch/times_${times}`, "int64", [1]);
      const latent = this.low.model.graph.inputs.find(({ name }) => name === this.latent);
      if (!latent) throw new Error("internal: a run without a latent");
      const shape = this.op("Shape", [this.made.get(latent) ?? latent], "batch/latent", "int64", [staticShape(latent.type)?.length ?? 1]);
      return this.op("Slice", [shape, this.list("from", [0]), this.list("to", [1])], "batch/size", "int64", [1]);
    });
  }

  /** A constant at both batches. */
  private atBoth({ data }: Value, { data: other }: Value): readonly [ConstantAt, ConstantAt] | undefined {
    return (
      data &&
      other && [
        { data, batch: this.low.batch },
        { data: other, batch: this.high.batch },
      ]
    );
  }

  /** A constant of elements that are the same for all latents, for as many as there are. */
  private spread(value: Value, { one, axis, times, order }: Repeated): Value {
    const known = this.made.get(value);
    if (known?.producer) return known;
    const { shape, elem } = one;
    const [before, after] = [shape.slice(0, axis), shape.slice(axis + 1)];
    /** The axis for the elements of one latent, where there are several, and the axis for the latents. */
    const both = <T>(elements: T, latents: T): readonly T[] =>
      times === 1 ? [latents] : order === "each" ? [elements, latents] : [latents, elements];
    const each = constant(value.name, { ...one, shape: [...before, ...both(times, 1), ...after] });
    const ones = (sizes: readonly number[]): readonly Size[] => sizes.map(() => 1);
    const all = this.shape([...ones(before), ...both<Size>(1, { times: 1 }), ...ones(after)]);
    const expanded = this.op("Expand", [each, all], `${value.name}/rows`, elem, [...before, ...both<Dim>(times, sizeOf(1)), ...after]);
    const made = times === 1 ? expanded : this.flattened(expanded, [...before, { times }, ...after], axis, `${value.name}/together`);
    this.made.set(value, made);
    return made;
  }

  /** A value in another shape, in which the size of an axis follows from the others. */
  private flattened(value: Value, sizes: readonly Size[], open: number, name: string): Value {
    const numbers = sizes.map((size, axis) => (typeof size !== "number" || axis === open ? -1 : size));
    return this.op(
      "Reshape",
      [value, this.list("shape", numbers)],
      name,
      value.type?.elem ?? "float",
      sizes.map((size) => dimOf(size)),
    );
  }

  /** A list that counts, as a value that is computed from the batch. */
  private counted({ stride, each, times }: Rounds): Value {
    return this.once(`counted ${stride} ${each} ${times}`, () => {
      const scalar = (number: number): Value => constant(`scalar_${number}`, tensorOf("int64", [], [number]));
      const name = `batch/counted_${each}`;
      if (times === 1) {
        const end = this.op("Reshape", [this.multiple(stride * each), this.list("scalar", [])], `${name}_end`, "int64", []);
        return this.op("Range", [scalar(0), end, scalar(stride)], name, "int64", [sizeOf(each)]);
      }
      const operands = [this.counted({ stride, each, times: 1 }), this.shape([times, { times: each }])];
      const all = this.op("Expand", operands, `${name}_${times}`, "int64", [times, sizeOf(each)]);
      return this.flattened(all, [{ times: each * times }], 0, `${name}_${times}_together`);
    });
  }

  private once(what: string, make: () => Value): Value {
    const made = this.shared.get(what) ?? make();
    this.shared.set(what, made);
    return made;
  }

  private op(
    opType: StandardOperator,
    inputs: readonly Value[],
    name: string,
    elem: TensorType["elem"],
    shape: readonly Dim[],
    attributes: Readonly<Record<string, Attribute>> = {},
  ): Value {
    const { node, value } = makeOp(opType, inputs, { name, type: { elem, shape } }, attributes);
    this.nodes.push(node);
    return value;
  }
}

/** Whether nodes are the same but for what they read. */
function isAlike(node: Node, other: Node): boolean {
  const counts = ({ inputs, outputs, captures }: Node): string =>
    [...inputs.map((value) => (value ? (value.data ? "c" : "v") : "-")), outputs.length, captures.length].join();
  if (node.opType !== other.opType || node.domain !== other.domain || counts(node) !== counts(other)) return false;
  if (node.attributes.size !== other.attributes.size) return false;
  return [...node.attributes].every(([name, attribute]) => isSameAttribute(attribute, other.attributes.get(name)));
}

function isSameAttribute(attribute: Attribute, other: Attribute | undefined): boolean {
  if (attribute.kind === "opaque") return other?.kind === "opaque" && isSameBytes(attribute.bytes, other.bytes);
  if (attribute.kind === "tensor") return other?.kind === "tensor" && isSame(attribute.value, other.value);
  // Graphs are compared by `place`, which refuses them.
  if (attribute.kind === "graph") return other?.kind === "graph";
  if (!other || other.kind === "opaque" || other.kind === "tensor" || other.kind === "graph") return false;
  const text = ({ value }: typeof attribute): string => [value].flat().join("\0");
  return attribute.kind === other.kind && text(attribute) === text(other);
}

/** Whether a Split has sizes that are all the same. */
function isEqualSplit(node: Node): boolean {
  const data = node.inputs[1]?.data;
  return isOp(node, "Split") && data !== undefined && new Set(tensorNumbers(data)).size === 1;
}
