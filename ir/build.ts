/** Typed constructors for the few operators that passes add. Nodes are collected in the order in which they are made. */
import { type Attribute, constant, makeNode, type Node, only, type Value } from "./graph.js";
import type { StandardOperator } from "./operators.js";
import { tensorOf } from "./tensor.js";
import { ELEMENT_TYPES, type ElementType, staticShape, type TensorType } from "./types.js";

/** A factor: a known number, or a value of one element. */
export type Weight = number | Value;

export interface WeightedValue<W extends Weight = number> {
  readonly value: Value;
  readonly weight: W;
}

/** A list of nodes under construction, in topological order. All of them belong to the module `scope`, if one is given. */
export class Builder {
  readonly nodes: Node[] = [];

  constructor(private readonly scope?: string) {}

  /** A node of one output; its name is that of the output. */
  op(
    opType: StandardOperator,
    inputs: readonly (Value | undefined)[],
    name: string,
    type: TensorType,
    attributes: Readonly<Record<string, Attribute>> = {},
  ): Value {
    const outputs = [{ name, type }];
    const node = makeNode({ opType, name, inputs, outputs, attributes: new Map(Object.entries(attributes)), scope: this.scope });
    this.nodes.push(node);
    return only(node);
  }

  concat(values: readonly Value[], axis: number, name: string): Value {
    const [first] = values;
    if (!first) throw new Error("internal: nothing to concatenate");
    if (values.length === 1) return first;
    const shapes = values.map(shapeOf);
    const shape = shapeOf(first).map((dim, i) => (i === axis ? shapes.reduce((sum, other) => sum + (other[i] ?? 0), 0) : dim));
    return this.op("Concat", values, name, { elem: elemOf(first), shape }, { axis: { kind: "int", value: BigInt(axis) } });
  }

  /** Elements `start` to `end` (exclusive) of an axis. */
  slice(value: Value, axis: number, start: number, end: number, name: string): Value {
    const shape = shapeOf(value);
    if (start === 0 && end === shape[axis]) return value;
    const index = (what: string, at: number): Value => constant(`${what}_${at}`, tensorOf("int64", [1], [at]));
    return this.op("Slice", [value, index("index", start), index("index", end), index("axis", axis)], name, {
      elem: elemOf(value),
      shape: shape.map((dim, i) => (i === axis ? end - start : dim)),
    });
  }

  /** Rows along an axis, in the order of `rows`. */
  gather(value: Value, axis: number, rows: readonly number[], name: string): Value {
    const indices = constant(`${name}_rows`, tensorOf("int64", [rows.length], rows));
    const shape = shapeOf(value).map((dim, i) => (i === axis ? rows.length : dim));
    return this.op("Gather", [value, indices], name, { elem: elemOf(value), shape }, { axis: { kind: "int", value: BigInt(axis) } });
  }

  /** The numbers of the largest elements along an axis, the largest first. */
  largest(value: Value, axis: number, count: number, name: string): Value {
    const shape = shapeOf(value).map((dim, i) => (i === axis ? count : dim));
    const node = makeNode({
      opType: "TopK",
      name,
      inputs: [value, constant(`${name}_count`, tensorOf("int64", [1], [count]))],
      outputs: [
        { name: `${name}_values`, type: { elem: elemOf(value), shape } },
        { name, type: { elem: "int64", shape } },
      ],
      attributes: new Map([["axis", { kind: "int", value: BigInt(axis) }]]),
    });
    this.nodes.push(node);
    const [, numbers] = node.outputs;
    if (!numbers) throw new Error("internal: TopK without numbers");
    return numbers;
  }

  /** Of each row of the batch, axis 0, those elements of axis 1 that `chosen`, [batch, count, 1], numbers. */
  gatherChosen(value: Value, chosen: Value, name: string): Value {
    const [batch = 1, , ...behind] = shapeOf(value);
    const type: TensorType = { elem: elemOf(value), shape: [batch, shapeOf(chosen)[1] ?? 1, ...behind] };
    return this.op("GatherND", [value, chosen], name, type, { batch_dims: { kind: "int", value: 1n } });
  }

  /**
   * A value [batch, count, …] with other elements at those places of axis 1 that `chosen`, [batch, places, 1], numbers. `anyBatch` counts the rows of
   * the batch in the run, without a constant for each.
   */
  withChosen(value: Value, chosen: Value, others: Value, anyBatch: boolean, name: string): Value {
    const batches = anyBatch ? this.rowNumbers(chosen, `${name}_batches`) : batchNumbers(shapeOf(chosen), `${name}_batches`);
    const indices = this.concat([batches, chosen], 2, `${name}_places`);
    return this.op("ScatterND", [value, indices, others], name, { elem: elemOf(value), shape: shapeOf(value) });
  }

  /** For each element of an integer value its place on axis 0. */
  private rowNumbers(value: Value, name: string): Value {
    const type: TensorType = { elem: elemOf(value), shape: shapeOf(value) };
    const ones = this.op("Add", [this.op("Sub", [value, value], `${name}_zeros`, type), scalarLike(value, 1)], `${name}_ones`, type);
    const axis = constant(`${name}_axis`, tensorOf("int64", [], [0]));
    return this.op("CumSum", [ones, axis], name, type, { exclusive: { kind: "int", value: 1n } });
  }

  /** Rows of axis 0 in the order of `rows`. */
  gatherRows(value: Value, rows: readonly number[], name: string): Value {
    return this.gather(value, 0, rows, name);
  }

  /**
   * The value with other rows in the place of some along an axis. ScatterND takes half the time of joining and picking (measured on CPUs, 256 to 1024
   * rows), but its indices count the rows of the batch; `anyBatch` does without them.
   */
  withRows(value: Value, axis: number, rows: readonly number[], others: Value, anyBatch: boolean, name: string): Value {
    const shape = shapeOf(value);
    if (!anyBatch && axis < shape.length - 1) {
      const indices = indicesOf([...shape.slice(0, axis), rows.length]).map((index) => [
        ...index.slice(0, -1),
        rows[index.at(-1) ?? 0] ?? 0,
      ]);
      const data = tensorOf("int64", [...shape.slice(0, axis), rows.length, axis + 1], indices.flat());
      return this.op("ScatterND", [value, constant(`${name}_places`, data), others], name, { elem: elemOf(value), shape });
    }
    const order = Array.from({ length: shape[axis] ?? 0 }, (_, row) => rows.length + row);
    for (const [place, row] of rows.entries()) order[row] = place;
    return this.gather(this.concat([others, value], axis, `${name}_both`), axis, order, name);
  }

  /** Axis 0 cut into `count` equal parts. */
  splitRows(value: Value, count: number, name: string): readonly Value[] {
    const [rows = 0, ...rest] = shapeOf(value);
    const sizes = constant(`${name}_sizes`, tensorOf("int64", [count], new Array<number>(count).fill(rows / count)));
    const type: TensorType = { elem: elemOf(value), shape: [rows / count, ...rest] };
    const outputs = Array.from({ length: count }, (_, i) => ({ name: `${name}_${i}`, type }));
    const node = makeNode({
      opType: "Split",
      name,
      inputs: [value, sizes],
      outputs,
      attributes: new Map([["axis", { kind: "int", value: 0n }]]),
    });
    this.nodes.push(node);
    return node.outputs;
  }

  /**
   * A reduction along axes, which stay with size 1.
   * Not for ReduceSum, whose axes became an operand in another version of the operator set.
   */
  reduce(opType: StandardOperator, value: Value, axes: readonly number[], opset: number, name: string): Value {
    const type: TensorType = { elem: elemOf(value), shape: shapeOf(value).map((dim, axis) => (axes.includes(axis) ? 1 : dim)) };
    // The axes became an operand in opset 18.
    if (opset < 18) return this.op(opType, [value], name, type, { axes: { kind: "ints", value: axes.map(BigInt) } });
    return this.op(opType, [value, constant(`${name}/axes`, tensorOf("int64", [axes.length], axes))], name, type);
  }

  cast(value: Value, elem: ElementType, name: string): Value {
    if (elemOf(value) === elem) return value;
    const to: Attribute = { kind: "int", value: BigInt(ELEMENT_TYPES[elem].code) };
    return this.op("Cast", [value], name, { elem, shape: shapeOf(value) }, { to });
  }

  /** A value whose axis i is axis `perm[i]` of the given one. */
  transpose(value: Value, perm: readonly number[], name: string): Value {
    const from = shapeOf(value);
    const type: TensorType = { elem: elemOf(value), shape: perm.map((axis) => from[axis] ?? 1) };
    return this.op("Transpose", [value], name, type, { perm: { kind: "ints", value: perm.map(BigInt) } });
  }

  /** The elements of a value in another shape of as many. */
  reshape(value: Value, shape: readonly number[], name: string): Value {
    const sizes = constant(`${name}/shape`, tensorOf("int64", [shape.length], shape));
    return this.op("Reshape", [value, sizes], name, { elem: elemOf(value), shape });
  }

  /** x · sigmoid(alpha · x) */
  swish(x: Value, alpha: number, name: string): Value {
    const type: TensorType = { elem: elemOf(x), shape: shapeOf(x) };
    const scaled = alpha === 1 ? x : this.op("Mul", [x, scalarLike(x, alpha)], `${name}/scaled`, type);
    return this.op("Mul", [x, this.op("Sigmoid", [scaled], `${name}/sigmoid`, type)], name, type);
  }

  /** Multiplies out the weights of float terms: what comes back has weights of 1 and −1 only. */
  products(terms: readonly WeightedValue[], name: string): readonly WeightedValue[] {
    return terms.map(({ value, weight }, i) => {
      if (Math.abs(weight) === 1) return { value, weight };
      const type: TensorType = { elem: elemOf(value), shape: shapeOf(value) };
      return { value: this.op("Mul", [value, floatScalar(weight)], `${name}_term${i}`, type), weight: 1 };
    });
  }

  /**
   * Σ weight · value over values of one type and shape.
   * The sum is computed in float whatever the type; weights of 1 and −1 cost no product.
   */
  weightedSum(terms: readonly WeightedValue<Weight>[], name: string): Value {
    const [single] = terms;
    if (single && terms.length === 1 && single.weight === 1) return single.value;
    const narrow = single && elemOf(single.value) !== "float" ? elemOf(single.value) : undefined;
    if (narrow) {
      const wide = terms.map(({ value, weight }, i) => ({ weight, value: this.cast(value, "float", `${name}_wide${i}`) }));
      return this.cast(this.weightedSum(wide, `${name}_sum`), narrow, name);
    }
    const counted = terms.some(({ weight }) => weight !== 0) ? terms.filter(({ weight }) => weight !== 0) : terms.slice(0, 1);
    const parts = [...counted].sort((a, b) => Number(a.weight === -1) - Number(b.weight === -1));
    const [first] = parts;
    if (!first) throw new Error("internal: a sum without terms");
    const type: TensorType = { elem: elemOf(first.value), shape: shapeOf(first.value) };
    // The first term is always added; later terms of weight −1 are subtracted.
    const added = parts.filter(({ weight }, i) => i === 0 || weight !== -1);
    const taken = parts.slice(added.length);
    const scaled = added.map(({ value, weight }, i) =>
      weight === 1 ? value : this.op("Mul", [value, factorOf(weight)], added.length + taken.length === 1 ? name : `${name}_term${i}`, type),
    );
    const label = (isLast: boolean, i: number): string => (isLast ? name : `${name}_sum${i}`);
    let sum = scaled[0] ?? first.value;
    if (scaled.length > 1) sum = this.op(scaled.length === 2 ? "Add" : "Sum", scaled, label(taken.length === 0, 1), type);
    for (const [i, { value }] of taken.entries()) sum = this.op("Sub", [sum, value], label(i === taken.length - 1, i + 2), type);
    return sum;
  }
}

/** The place on axis 0 of each element of a shape [batch, places, 1]. */
function batchNumbers([batch = 1, places = 1]: readonly number[], name: string): Value {
  const numbers = Array.from({ length: batch * places }, (_, i) => Math.floor(i / places));
  return constant(name, tensorOf("int64", [batch, places, 1], numbers));
}

/** The indices of all elements of a shape, in order. */
function indicesOf(shape: readonly number[]): readonly (readonly number[])[] {
  return shape.reduce<readonly (readonly number[])[]>(
    (all, size) => all.flatMap((index) => Array.from({ length: size }, (_, i) => [...index, i])),
    [[]],
  );
}

function factorOf(weight: Weight): Value {
  return typeof weight === "number" ? floatScalar(weight) : weight;
}

export function floatScalar(value: number): Value {
  return scalar("float", value);
}

/** A number of the element type of another value. */
export function scalarLike(like: Value, value: number): Value {
  return scalar(elemOf(like), value);
}

function scalar(elem: ElementType, value: number): Value {
  return constant(`scalar_${value}`, tensorOf(elem, [], [value]));
}

/** The order of axes that exchanges the last two. */
export function lastTwoExchanged(rank: number): readonly number[] {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  return [...axes.slice(0, -2), ...axes.slice(-2).reverse()];
}

/** The fixed shape of a value. Every value has one once a model is bound. */
export function shapeOf(value: Value): readonly number[] {
  const shape = staticShape(value.type);
  if (!shape) throw new Error(`internal: '${value.name}' has no fixed shape`);
  return shape;
}

export function elemOf(value: Value): ElementType {
  if (!value.type) throw new Error(`internal: '${value.name}' has no type`);
  return value.type.elem;
}
