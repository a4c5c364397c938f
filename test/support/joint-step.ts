/**
 * A step as FLUX is, of any size and depth: blocks of two streams that attend to each other, then blocks of one joined stream. It is written
 * as exporters write it: folded, as dynamo's optimiser leaves it, or with its constants as nodes and its sizes worked out from shapes, as
 * TorchScript does. Layers and names of inputs: diffusers, models/transformers/transformer_flux.py.
 */
import { Builder, elemOf, shapeOf } from "../../ir/build.js";
import { type Attribute, constant, inputValue, makeNode, type Model, type Value } from "../../ir/graph.js";
import type { StandardOperator } from "../../ir/operators.js";
import { convertTensor, type TensorData, tensorOf } from "../../ir/tensor.js";
import { byteSize, ELEMENT_TYPES, elementCount, type ElementType, type FloatType, isFloatType } from "../../ir/types.js";

export interface JointSizes {
  readonly heads: number;
  /** Of each head, on the axes of positions; their sum is the width of a head. */
  readonly axes: readonly [number, number, number];
  readonly image: number;
  readonly text: number;
  /** Of the latent, of the text, and of the pooled text. */
  readonly channels: number;
  readonly textWidth: number;
  readonly pooledWidth: number;
}

export interface JointOptions {
  readonly sizes?: JointSizes | undefined;
  readonly isFolded?: boolean | undefined;
  /** What it computes in, but for positions and the turning of heads, which stay in float. Default: float. */
  readonly elem?: FloatType | undefined;
  /** The weight of this shape. Default: zeros in memory. */
  readonly weigh?: ((shape: readonly number[], elem: FloatType) => TensorData) | undefined;
}

const SMALL: JointSizes = { heads: 2, axes: [2, 2, 4], image: 4, text: 3, channels: 4, textWidth: 8, pooledWidth: 8 };

/** FLUX.1-dev at 1024²: 11.9 B parameters in 19 and 38 blocks. */
export const FLUX: JointSizes = {
  ...{ heads: 24, axes: [16, 56, 56], image: 4096, text: 512 },
  ...{ channels: 64, textWidth: 4096, pooledWidth: 768 },
};

/** About 160 nodes for each dual block and 75 for each single one; three times as many where it is not folded. */
export function jointStep(dual: number, single: number, options: JointOptions = {}): Model {
  const { sizes = SMALL, isFolded = true, elem = "float", weigh = zeros } = options;
  return new JointStep(sizes, isFolded, elem, weigh).model(dual, single);
}

function zeros(shape: readonly number[], elem: FloatType): TensorData {
  return { elem, shape, content: { kind: "bytes", bytes: new Uint8Array(byteSize(elem, elementCount(shape))) } };
}

type Streams = Record<"image" | "text", Value>;

class JointStep {
  private readonly build = new Builder();
  private readonly size: number;
  private readonly width: number;
  private readonly tokens: number;
  private path = "";

  constructor(
    private readonly sizes: JointSizes,
    private readonly isFolded: boolean,
    private readonly elem: FloatType,
    private readonly weigh: (shape: readonly number[], elem: FloatType) => TensorData,
  ) {
    this.size = sizes.axes[0] + sizes.axes[1] + sizes.axes[2];
    this.width = sizes.heads * this.size;
    this.tokens = sizes.image + sizes.text;
  }

  model(dual: number, single: number): Model {
    const { image, text, channels, textWidth, pooledWidth } = this.sizes;
    const input = (name: string, shape: readonly number[], elem = this.elem): Value => inputValue(name, { elem, shape });
    const latent = input("hidden_states", [1, image, channels]);
    const texts = input("encoder_hidden_states", [1, text, textWidth]);
    const pooled = input("pooled_projections", [1, pooledWidth]);
    const [time, guidance] = [input("timestep", [1]), input("guidance", [1])];
    const ids = [input("img_ids", [image, 3], "float"), input("txt_ids", [text, 3], "float")] as const;

    let streams: Streams = {
      image: this.linear("x_embedder", latent, this.width),
      text: this.linear("context_embedder", texts, this.width),
    };
    const embedding = this.add(
      this.add(this.embedded("timestep_embedder", time), this.embedded("guidance_embedder", guidance)),
      this.perceptron("text_embedder", pooled),
    );
    const turns = this.turns(this.join(ids[1], ids[0], 0));
    for (let i = 0; i < dual; i++) streams = this.within(`transformer_blocks.${i}`, () => this.dualBlock(streams, embedding, turns));
    for (let i = 0; i < single; i++)
      streams = this.within(`single_transformer_blocks.${i}`, () => this.singleBlock(streams, embedding, turns));
    const [scale, shift] = this.modulation("norm_out.linear", embedding, 2);
    const out = this.linear("proj_out", this.modulated(streams.image, given(shift), given(scale)), channels);
    const { nodes } = this.build;
    return {
      graph: {
        name: "main_graph",
        inputs: [latent, texts, pooled, time, ids[0], ids[1], guidance],
        outputs: [{ name: "prediction", value: out }],
        nodes,
        marks: [],
      },
      opsets: new Map([["", 17]]),
      irVersion: 8,
      metadata: new Map(),
    };
  }

  private dualBlock({ image, text }: Streams, embedding: Value, turns: readonly Value[]): Streams {
    const ofImage = this.modulation("norm1.linear", embedding, 6);
    const ofText = this.modulation("norm1_context.linear", embedding, 6);
    const [a, b] = [this.modulated(image, at(ofImage, 0), at(ofImage, 1)), this.modulated(text, at(ofText, 0), at(ofText, 1))];
    const [own, added] = [this.heads(a, ["to_q", "to_k", "to_v"]), this.heads(b, ["add_q_proj", "add_k_proj", "add_v_proj"])];
    const mixed = this.attention(
      own.map((value, i) => this.join(at(added, i), value, 1)),
      turns,
    );
    const after = (stream: Value, [from, to, out, feed]: readonly [number, number, string, string], parts: readonly Value[]): Value => {
      const branch = this.linear(`attn.${out}`, this.part(mixed, from, to), this.width);
      const attended = this.add(stream, this.times(this.row(at(parts, 2)), branch));
      const seen = this.modulated(attended, at(parts, 3), at(parts, 4));
      const hidden = this.activated(this.linear(`${feed}.net.0.proj`, seen, 4 * this.width));
      return this.add(attended, this.times(this.row(at(parts, 5)), this.linear(`${feed}.net.2`, hidden, this.width)));
    };
    return {
      text: after(text, [0, this.sizes.text, "to_add_out", "ff_context"], ofText),
      image: after(image, [this.sizes.text, this.tokens, "to_out.0", "ff"], ofImage),
    };
  }

  /** The streams are joined for each block, and taken apart behind it. */
  private singleBlock({ image, text }: Streams, embedding: Value, turns: readonly Value[]): Streams {
    const stream = this.join(text, image, 1);
    const [shift, scale, gate] = this.modulation("norm.linear", embedding, 3);
    const seen = this.modulated(stream, given(shift), given(scale));
    const hidden = this.activated(this.linear("proj_mlp", seen, 4 * this.width));
    const both = this.join(this.attention(this.heads(seen, ["to_q", "to_k", "to_v"]), turns), hidden, 2);
    const sum = this.add(stream, this.times(this.row(given(gate)), this.linear("proj_out", both, this.width)));
    return { text: this.part(sum, 0, this.sizes.text), image: this.part(sum, this.sizes.text, this.tokens) };
  }

  /** Of a number, as waves and through two layers. */
  private embedded(path: string, number: Value): Value {
    const column = this.op("Unsqueeze", [this.times(number, this.float(1000)), this.ints([1])], [1, 1]);
    const angles = this.op("Mul", [column, this.literal(this.elem, [1, 128], frequencies(256))], [1, 128]);
    const waves = (["Cos", "Sin"] as const).map((wave) => this.op(wave, [angles], [1, 128]));
    return this.perceptron(path, this.join(at(waves, 0), at(waves, 1), 1));
  }

  private perceptron(path: string, value: Value): Value {
    return this.gemm(`${path}.linear_2`, this.silu(this.gemm(`${path}.linear_1`, value, this.width)), this.width);
  }

  /** The cosines and sines by which heads are turned, [1, tokens, 1, size]: of the three positions of each token. */
  private turns(ids: Value): readonly Value[] {
    const angles = this.sizes.axes.map((axis, i) => {
      const position = this.op("Gather", [ids, this.literal("int64", [1], [i])], [this.tokens, 1], { axis: int(1) });
      const turn = this.literal("float", [1, axis / 2], frequencies(axis));
      return this.op("Mul", [this.cast(position, "float"), turn], [this.tokens, axis / 2]);
    });
    return (["Cos", "Sin"] as const).map((wave) => {
      const each = angles.map((angle) => {
        const [, half = 0] = shapeOf(angle);
        const one = this.op("Unsqueeze", [this.op(wave, [angle], shapeOf(angle)), this.ints([2])], [this.tokens, half, 1]);
        const twice = this.op("Expand", [one, this.ints([this.tokens, half, 2])], [this.tokens, half, 2]);
        return this.op("Reshape", [twice, this.ints([this.tokens, 2 * half])], [this.tokens, 2 * half]);
      });
      const all = this.build.concat(each, 1, this.name("Concat"));
      return this.op("Unsqueeze", [all, this.ints([0, 2])], [1, this.tokens, 1, this.size]);
    });
  }

  /** Shifts, scales and gates, [1, width] each. */
  private modulation(path: string, embedding: Value, count: number): readonly Value[] {
    const all = this.gemm(path, this.silu(embedding), count * this.width);
    if (this.isFolded) return Array.from({ length: count }, (_, i) => this.slice(all, 1, i * this.width, (i + 1) * this.width));
    const length = this.op("Gather", [this.shapeOf(all), this.literal("int64", [1], [1])], [1]);
    const rounded = this.op("Add", [length, this.literal("int64", [1], [count - 1])], [1]);
    const part = this.op("Div", [rounded, this.literal("int64", [1], [count])], [1]);
    const ends = Array.from({ length: count }, (_, i) => this.op("Mul", [part, this.literal("int64", [1], [i + 1])], [1]));
    return ends.map((end, i) => this.op("Slice", [all, ends[i - 1] ?? this.ints([0]), end, this.ints([1])], [1, this.width]));
  }

  private modulated(stream: Value, shift: Value, scale: Value): Value {
    const same = (number: number): Value => this.literal(this.elem, [this.width], new Array<number>(this.width).fill(number));
    const norm = this.op("LayerNormalization", [stream, same(1), same(0)], shapeOf(stream), { axis: int(-1) });
    return this.add(this.times(norm, this.add(this.row(scale), this.float(1))), this.row(shift));
  }

  /** Query, key and value, [1, tokens, heads, size]; query and key are normalised. */
  private heads(stream: Value, paths: readonly string[]): readonly Value[] {
    const [, tokens = 0] = shapeOf(stream);
    return paths.map((path, i) => {
      const head = this.cutLast(this.linear(`attn.${path}`, stream, this.width), [1, tokens, this.sizes.heads, this.size]);
      return i === 2 ? head : this.normalised(head);
    });
  }

  /** Root mean square, spelled out. */
  private normalised(head: Value): Value {
    const squares = this.op("Pow", [head, this.float(2)], shapeOf(head));
    const mean = this.build.reduce("ReduceMean", squares, [3], 17, this.name("ReduceMean"));
    const root = this.op("Sqrt", [this.add(mean, this.float(1e-6))], shapeOf(mean));
    return this.times(this.op("Div", [head, root], shapeOf(head)), this.weight([this.size]));
  }

  /** Pairs of neighbours are turned, in float. */
  private rotated(head: Value, turns: readonly Value[]): Value {
    const [, tokens = 0, heads = 0, size = 0] = shapeOf(head);
    const half = [1, tokens, heads, size / 2];
    const pairs = this.op("Reshape", [head, this.ints([1, tokens, heads, -1, 2])], [...half, 2]);
    const split = this.node("Split", [pairs, this.ints([1, 1])], [0, 1].map(() => [...half, 1]), { axis: int(-1) }); // prettier-ignore
    const [first, second] = split.map((one) => this.op("Squeeze", [one, this.ints([-1])], half));
    const apart = [this.op("Neg", [given(second)], half), given(first)].map((one) =>
      this.op("Unsqueeze", [one, this.ints([-1])], [...half, 1]),
    );
    const turned = this.joinLast(this.join(at(apart, 0), at(apart, 1), 4), [1, tokens, heads, size]);
    const wide = [head, turned].map((one, i) => this.times(this.cast(one, "float"), at(turns, i)));
    return this.cast(this.add(at(wide, 0), at(wide, 1)), this.elem);
  }

  private attention(all: readonly Value[], turns: readonly Value[]): Value {
    const [query, key] = [this.rotated(at(all, 0), turns), this.rotated(at(all, 1), turns)];
    const root = (): Value => this.op("Sqrt", [this.float(this.size ** -0.5)], []);
    const left = this.times(this.transposed(query, [0, 2, 1, 3]), root());
    const value = this.transposed(at(all, 2), [0, 2, 1, 3]);
    const right = this.times(this.transposed(key, [0, 2, 3, 1]), root());
    const square = [1, this.sizes.heads, this.tokens, this.tokens];
    const weights = this.op("Softmax", [this.op("MatMul", [left, right], square)], square, { axis: int(-1) });
    const mixed = this.transposed(this.op("MatMul", [weights, value], shapeOf(value)), [0, 2, 1, 3]);
    return this.cast(this.joinLast(mixed, [1, this.tokens, this.width]), this.elem);
  }

  /** A value with its last axis cut in two. */
  private cutLast(value: Value, shape: readonly number[]): Value {
    if (this.isFolded) return this.op("Reshape", [value, this.ints(shape)], shape);
    const axis = this.op("Mod", [this.literal("int64", [], [-1]), this.literal("int64", [], [3])], []);
    const end = this.op("Reshape", [axis, this.ints([-1])], [1]);
    const behind = this.op("Reshape", [this.op("Add", [axis, this.literal("int64", [], [1])], []), this.ints([-1])], [1]); // prettier-ignore
    const all = this.shapeOf(value);
    const before = this.op("Slice", [all, this.ints([0]), end], [2]);
    const after = this.op("Slice", [all, behind, this.ints([2 ** 31])], [0]);
    const sizes = this.op("Concat", [before, this.ints([this.sizes.heads, -1]), after], [4], { axis: int(0) });
    return this.op("Reshape", [value, sizes], shape);
  }

  /** A value with its last two axes as one. */
  private joinLast(value: Value, shape: readonly number[]): Value {
    if (this.isFolded) return this.op("Reshape", [value, this.ints(shape)], shape);
    const before = this.op("Slice", [this.shapeOf(value), this.ints([0]), this.ints([-2]), this.ints([0])], [shape.length - 1]);
    const sizes = this.op("Concat", [before, this.ints([-1])], [shape.length], { axis: int(0) });
    return this.op("Reshape", [value, sizes], shape);
  }

  private activated(x: Value): Value {
    const cube = this.times(this.times(x, this.times(x, x)), this.float(0.044715));
    const wave = this.op("Tanh", [this.times(this.add(x, cube), this.float(Math.sqrt(2 / Math.PI)))], shapeOf(x));
    return this.times(this.times(x, this.add(wave, this.float(1))), this.float(0.5));
  }

  private silu(x: Value): Value {
    return this.times(x, this.op("Sigmoid", [x], shapeOf(x)));
  }

  private linear(path: string, value: Value, width: number): Value {
    return this.within(path, () => {
      const shape = shapeOf(value);
      const product = this.op("MatMul", [value, this.weight([shape.at(-1) ?? 0, width])], [...shape.slice(0, -1), width]);
      return this.op("Add", [this.weight([width]), product], shapeOf(product));
    });
  }

  /** A layer of a row, [1, width]. */
  private gemm(path: string, value: Value, width: number): Value {
    const [, from = 0] = shapeOf(value);
    return this.within(path, () =>
      this.op("Gemm", [value, this.weight([width, from]), this.weight([width])], [1, width], { transB: int(1) }),
    );
  }

  private row(value: Value): Value {
    return this.op("Unsqueeze", [value, this.ints([1])], [1, 1, this.width]);
  }

  private join(a: Value, b: Value, axis: number): Value {
    return this.build.concat([a, b], axis, this.name("Concat"));
  }

  private part(stream: Value, from: number, to: number): Value {
    return this.slice(stream, 1, from, to);
  }

  private slice(value: Value, axis: number, from: number, to: number): Value {
    const shape = shapeOf(value).map((size, i) => (i === axis ? to - from : size));
    return this.op("Slice", [value, this.ints([from]), this.ints([to]), this.ints([axis])], shape);
  }

  private transposed(value: Value, perm: readonly number[]): Value {
    return this.build.transpose(value, perm, this.name("Transpose"));
  }

  private add(a: Value, b: Value): Value {
    return this.op("Add", [a, b], shapeOf(a));
  }

  private times(a: Value, b: Value): Value {
    return this.op("Mul", [a, b], shapeOf(a).length < shapeOf(b).length ? shapeOf(b) : this.broadcast(a, b));
  }

  private broadcast(a: Value, b: Value): readonly number[] {
    const other = shapeOf(b);
    return shapeOf(a).map((size, i) => Math.max(size, other[other.length - shapeOf(a).length + i] ?? 1));
  }

  /** Exporters also leave casts to the type that is there. */
  private cast(value: Value, elem: ElementType): Value {
    return this.op("Cast", [value], shapeOf(value), { to: int(ELEMENT_TYPES[elem].code) }, elem);
  }

  private shapeOf(value: Value): Value {
    return this.op("Shape", [value], [shapeOf(value).length], {}, "int64");
  }

  /** A node of one output, of the element type of its first input if none is given. */
  private op(
    opType: StandardOperator,
    inputs: readonly Value[],
    shape: readonly number[],
    attributes: Record<string, Attribute> = {},
    elem?: ElementType,
  ): Value {
    return at(this.node(opType, inputs, [shape], attributes, elem), 0);
  }

  private node(
    opType: StandardOperator,
    inputs: readonly Value[],
    shapes: readonly (readonly number[])[],
    attributes: Record<string, Attribute>,
    elem: ElementType = inputs[0] ? elemOf(inputs[0]) : this.elem,
  ): readonly Value[] {
    const name = this.name(opType);
    const outputs = shapes.map((shape, i) => ({ name: `${name}_output_${i}`, type: { elem, shape } }));
    const node = makeNode({ opType, name, inputs, outputs, attributes: new Map(Object.entries(attributes)) });
    this.build.nodes.push(node);
    return node.outputs;
  }

  private name(opType: string): string {
    return `/${[...this.path.split(".").filter(Boolean), opType].join("/")}_${this.build.nodes.length}`;
  }

  /** What is made inside a module. */
  private within<T>(path: string, make: () => T): T {
    const outer = this.path;
    this.path = outer === "" ? path : `${outer}.${path}`;
    const made = make();
    this.path = outer;
    return made;
  }

  private weight(shape: readonly number[]): Value {
    return constant(`${this.path}.weight`, this.weigh(shape, this.elem));
  }

  private float(value: number): Value {
    return this.literal(this.elem, [], [value]);
  }

  private ints(values: readonly number[]): Value {
    return this.literal("int64", [values.length], values);
  }

  /** A number, or several: a node of its own where nothing is folded. */
  private literal(elem: ElementType, shape: readonly number[], values: readonly number[]): Value {
    const value = isFloatType(elem) ? convertTensor(tensorOf("float", shape, values), elem) : tensorOf(elem, shape, values);
    return this.isFolded
      ? constant(this.name("constant"), value)
      : this.op("Constant", [], shape, { value: { kind: "tensor", value } }, elem);
  }
}

function frequencies(width: number): readonly number[] {
  return Array.from({ length: width / 2 }, (_, i) => 10000 ** ((-2 * i) / width));
}

function int(value: number): Attribute {
  return { kind: "int", value: BigInt(value) };
}

function at(values: readonly Value[], i: number): Value {
  return given(values[i]);
}

function given(value: Value | undefined): Value {
  if (!value) throw new Error("there is no such value");
  return value;
}
