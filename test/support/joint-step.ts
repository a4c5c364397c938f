/** A step shaped as FLUX is, of any depth: blocks of two streams that attend to each other, then blocks of one joined stream. */
import { Builder, shapeOf } from "../../ir/build.js";
import { type Attribute, constant, inputValue, type Model, type Value } from "../../ir/graph.js";
import type { StandardOperator } from "../../ir/operators.js";
import { tensorOf } from "../../ir/tensor.js";

const WIDTH = 8;
const HEADS = 2;
const IMAGE = 4;
const TEXT = 3;

/** About 110 nodes for each dual block and 60 for each single one; inputs: `x`, `t`, `text`. */
export function jointStep(dual: number, single: number): Model {
  const step = new JointStep();
  return step.model(dual, single);
}

class JointStep {
  private readonly build = new Builder();
  private embedding = constant("nothing", tensorOf("float", [1, WIDTH], new Array<number>(WIDTH).fill(0)));

  model(dual: number, single: number): Model {
    const x = inputValue("x", { elem: "float", shape: [1, IMAGE, WIDTH] });
    const t = inputValue("t", { elem: "float", shape: [1] });
    const text = inputValue("text", { elem: "float", shape: [1, TEXT, WIDTH] });
    const wave = this.op("Sin", [this.op("Mul", [t, this.weight([1, WIDTH])], [1, WIDTH])], [1, WIDTH]);
    this.embedding = this.linear(wave, WIDTH);
    let streams = { image: this.linear(x, WIDTH), text: this.linear(text, WIDTH) };
    for (let i = 0; i < dual; i++) streams = this.dualBlock(streams);
    let joined = this.join(streams.text, streams.image, 1);
    for (let i = 0; i < single; i++) joined = this.singleBlock(joined);
    const out = this.linear(this.part(joined, TEXT, TEXT + IMAGE), WIDTH);
    const { nodes } = this.build;
    return {
      graph: { name: "joint", inputs: [x, t, text], outputs: [{ name: "out", value: out }], nodes, marks: [] },
      opsets: new Map([["", 20]]),
      irVersion: 10,
      metadata: new Map(),
    };
  }

  private dualBlock({ image, text }: Record<"image" | "text", Value>): Record<"image" | "text", Value> {
    const [forImage, forText] = [this.modulation(6), this.modulation(6)];
    const [a, b] = [this.heads(this.modulated(image, forImage)), this.heads(this.modulated(text, forText))];
    const mixed = this.attention([0, 1, 2].map((i) => this.join(at(b, i), at(a, i), 2)));
    const after = (stream: Value, from: number, to: number, modulation: readonly Value[]): Value => {
      const attended = this.add(stream, this.times(this.linear(this.part(mixed, from, to), WIDTH), at(modulation, 2)));
      const hidden = this.linear(this.modulated(attended, modulation.slice(3)), 4 * WIDTH);
      return this.add(attended, this.times(this.linear(this.activated(hidden), WIDTH), at(modulation, 5)));
    };
    return { image: after(image, TEXT, TEXT + IMAGE, forImage), text: after(text, 0, TEXT, forText) };
  }

  private singleBlock(joined: Value): Value {
    const modulation = this.modulation(3);
    const seen = this.modulated(joined, modulation);
    const both = this.join(this.attention(this.heads(seen)), this.activated(this.linear(seen, 4 * WIDTH)), 2);
    return this.add(joined, this.times(this.linear(both, WIDTH), at(modulation, 2)));
  }

  /** Shift, scale and gate, once or twice, [1, 1, width] each. */
  private modulation(count: number): readonly Value[] {
    const active = this.times(this.embedding, this.op("Sigmoid", [this.embedding], [1, WIDTH]));
    const all = this.linear(active, count * WIDTH);
    return Array.from({ length: count }, (_, i) => {
      const one = this.build.slice(all, 1, i * WIDTH, (i + 1) * WIDTH, this.name("Slice"));
      return this.op("Unsqueeze", [one, this.ints([1])], [1, 1, WIDTH]);
    });
  }

  private modulated(stream: Value, [shift, scale]: readonly Value[]): Value {
    const norm = this.op("LayerNormalization", [stream, this.weight([WIDTH])], shapeOf(stream));
    const one = constant("one", tensorOf("float", [], [1]));
    return this.add(this.times(norm, this.add(scale ?? stream, one)), shift ?? stream);
  }

  /** Query, key and value, [1, heads, tokens, size]; query and key are normalised and turned. */
  private heads(stream: Value): readonly Value[] {
    const [, tokens = 0] = shapeOf(stream);
    return ["query", "key", "value"].map((what) => {
      const shape = [1, tokens, HEADS, WIDTH / HEADS];
      const cut = this.op("Reshape", [this.linear(stream, WIDTH), this.ints(shape)], shape);
      const head = this.transposed(cut, [0, 2, 1, 3]);
      return what === "value" ? head : this.rotated(this.normalised(head));
    });
  }

  /** Root mean square, spelled out. */
  private normalised(head: Value): Value {
    const mean = this.build.reduce("ReduceMean", this.times(head, head), [3], 20, this.name("ReduceMean"));
    const positive = this.add(mean, constant("epsilon", tensorOf("float", [], [1e-6])));
    const unit = this.op("Div", [head, this.op("Sqrt", [positive], shapeOf(positive))], shapeOf(head));
    return this.times(unit, this.weight([WIDTH / HEADS]));
  }

  private rotated(head: Value): Value {
    const shape = shapeOf(head);
    const half = WIDTH / HEADS / 2;
    const [a, b] = [0, half].map((from) => this.build.slice(head, 3, from, from + half, this.name("Slice")));
    const turned = a && b ? this.join(this.op("Neg", [b], shapeOf(b)), a, 3) : head;
    return this.add(this.times(head, this.weight(shape.slice(2))), this.times(turned, this.weight(shape.slice(2))));
  }

  private attention([query, key, value]: readonly Value[]): Value {
    if (!query || !key || !value) throw new Error("attention takes three");
    const [, , tokens = 0] = shapeOf(query);
    const scores = this.op("MatMul", [query, this.transposed(key, [0, 1, 3, 2])], [1, HEADS, tokens, tokens]);
    const mixed = this.op("MatMul", [this.op("Softmax", [scores], shapeOf(scores)), value], shapeOf(value));
    const shape = [1, tokens, WIDTH];
    return this.op("Reshape", [this.transposed(mixed, [0, 2, 1, 3]), this.ints(shape)], shape);
  }

  private activated(hidden: Value): Value {
    return this.op("Gelu", [hidden], shapeOf(hidden));
  }

  private linear(value: Value, width: number): Value {
    const [last = 0] = shapeOf(value).slice(-1);
    const product = this.op("MatMul", [value, this.weight([last, width])], [...shapeOf(value).slice(0, -1), width]);
    return this.add(product, this.weight([width]));
  }

  private join(a: Value, b: Value, axis: number): Value {
    return this.build.concat([a, b], axis, this.name("Concat"));
  }

  private part(stream: Value, from: number, to: number): Value {
    return this.build.slice(stream, 1, from, to, this.name("Slice"));
  }

  private transposed(value: Value, perm: readonly number[]): Value {
    const shape = perm.map((axis) => shapeOf(value)[axis] ?? 1);
    return this.op("Transpose", [value], shape, { perm: { kind: "ints", value: perm.map(BigInt) } });
  }

  private add(a: Value, b: Value): Value {
    return this.op("Add", [a, b], shapeOf(a));
  }

  private times(a: Value, b: Value): Value {
    return this.op("Mul", [a, b], shapeOf(a));
  }

  private op(
    opType: StandardOperator,
    inputs: readonly Value[],
    shape: readonly number[],
    attributes: Record<string, Attribute> = {},
  ): Value {
    return this.build.op(opType, inputs, this.name(opType), { elem: "float", shape }, attributes);
  }

  private name(opType: string): string {
    return `${opType}_${this.build.nodes.length}`;
  }

  private weight(shape: readonly number[]): Value {
    const count = shape.reduce((product, dim) => product * dim, 1);
    return constant("weight", tensorOf("float", shape, new Float32Array(count)));
  }

  private ints(values: readonly number[]): Value {
    return constant("ints", tensorOf("int64", [values.length], values));
  }
}

function at(values: readonly Value[], i: number): Value {
  const value = values[i];
  if (!value) throw new Error(`there is no value ${i}`);
  return value;
}
