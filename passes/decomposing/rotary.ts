/**
 * Rotary embedding as ONNX Runtime has it: x · cos + rotated(x) · sin, with tables that have a row for each position and an element for
 * each pair of channels. It is spelled as exporters do, which the fuse pass knows.
 */
import { type Builder, elemOf, shapeOf } from "../../ir/build.js";
import { constant, floatAttribute, intAttribute, makeNode, type Node, type Value } from "../../ir/graph.js";
import { tensorOf } from "../../ir/tensor.js";
import { binary, first, unary } from "./rule.js";

export function rotaryEmbedding(node: Node, build: Builder, opset: number): readonly Value[] | undefined {
  const [x, positions, cos, sin] = node.inputs;
  if (opset < SPLITTING || !x || !positions || !cos || !sin || floatAttribute(node, "scale", 1) !== 1) return undefined;
  const { name } = first(node);
  const shape = shapeOf(x);
  const pairs = shapeOf(cos)[1] ?? 0;
  const size = intAttribute(node, "rotary_embedding_dim", 0) === 0 ? 2 * pairs : (shape.at(-1) ?? 0) / intAttribute(node, "num_heads", 1);
  const isByHead = shape.length === 4;
  const [batch = 1, length = 1, width = 1] = shape;
  const split = isByHead ? shape : [batch, length, width / size, size];
  const tables = { cos, sin, positions, isInterleaved: intAttribute(node, "interleaved", 0) !== 0 };
  const heads = isByHead ? x : build.reshape(x, split, `${name}/heads`);
  const turned = rotated(build, heads, isByHead ? 2 : 1, tables, isByHead ? name : `${name}/turned`);
  return [isByHead ? turned : build.reshape(turned, shape, name)];
}

/** The opset from which sizes of a Split are an operand. */
export const SPLITTING = 13;

export interface Tables {
  /** [positions, pairs] */
  readonly cos: Value;
  readonly sin: Value;
  /** Of the first token, or [batch, length]. */
  readonly positions: Value;
  /** Whether the channels of a pair are neighbours; else they are half of the channels apart. */
  readonly isInterleaved: boolean;
}

/** A value of four axes, the tokens along one of the two in the middle, with as many channels turned as the tables have pairs. */
export function rotated(build: Builder, x: Value, tokens: 1 | 2, tables: Tables, name: string): Value {
  const shape = shapeOf(x);
  const turning = 2 * (shapeOf(tables.cos)[1] ?? 0);
  const rest = (shape[3] ?? 0) - turning;
  const part = build.slice(x, 3, 0, turning, `${name}/part`);
  const spread = (table: Value, what: string): Value => ofTokens(build, table, shape[tokens] ?? 1, tokens, tables, `${name}/${what}`);
  const label = rest === 0 ? name : `${name}/rotated`;
  const straight = binary(build, "Mul", part, spread(tables.cos, "cos"), `${name}/straight`);
  const crossed = binary(build, "Mul", exchanged(build, part, tables.isInterleaved, name), spread(tables.sin, "sin"), `${name}/crossed`);
  const whole = binary(build, "Add", straight, crossed, label);
  return rest === 0 ? whole : build.concat([whole, build.slice(x, 3, turning, turning + rest, `${name}/rest`)], 3, name);
}

/** The rows of a table at the positions of the tokens, with each element twice, to be broadcast over heads. */
function ofTokens(build: Builder, table: Value, length: number, tokens: 1 | 2, { positions, isInterleaved }: Tables, name: string): Value {
  const pairs = shapeOf(table)[1] ?? 0;
  const elem = elemOf(table);
  const isStart = shapeOf(positions).length < 2;
  const count = Array.from({ length }, (_, i) => i);
  const places = isStart
    ? build.op("Add", [positions, constant(`${name}/count`, tensorOf(elemOf(positions), [length], count))], `${name}/places`, {
        elem: elemOf(positions),
        shape: [length],
      })
    : positions;
  const batch = isStart ? 1 : (shapeOf(positions)[0] ?? 1);
  const gathered = build.op("Gather", [table, places], `${name}/rows`, { elem, shape: [...shapeOf(places), pairs] });
  const between = tokens === 1 ? [batch, length, 1] : [batch, 1, length];
  if (!isInterleaved) {
    const rows = build.reshape(gathered, [...between, pairs], `${name}/view`);
    return build.concat([rows, rows], 3, name);
  }
  const apart = build.reshape(gathered, [...between, pairs, 1], `${name}/view`);
  const twice = [...between, pairs, 2];
  const sizes = constant(`${name}/twice`, tensorOf("int64", [5], twice));
  return build.reshape(build.op("Expand", [apart, sizes], `${name}/pairs`, { elem, shape: twice }), [...between, 2 * pairs], name);
}

/** The channels of each pair exchanged, and the first of them negated. */
function exchanged(build: Builder, x: Value, isInterleaved: boolean, name: string): Value {
  const shape = shapeOf(x);
  const pairs = (shape[3] ?? 0) / 2;
  const source = isInterleaved ? build.reshape(x, [...shape.slice(0, 3), pairs, 2], `${name}/pairs`) : x;
  const axis = isInterleaved ? 4 : 3;
  const type = { elem: elemOf(x), shape: shapeOf(source).with(axis, isInterleaved ? 1 : pairs) };
  const sizes = constant(`${name}/sizes`, tensorOf("int64", [2], [type.shape[axis] ?? 1, type.shape[axis] ?? 1]));
  const split = makeNode({
    opType: "Split",
    name: `${name}/split`,
    inputs: [source, sizes],
    outputs: ["first", "second"].map((which) => ({ name: `${name}/${which}`, type })),
    attributes: new Map([["axis", { kind: "int", value: BigInt(axis) }]]),
  });
  build.nodes.push(split);
  const [one = x, other = x] = split.outputs;
  const joined = build.concat([unary(build, "Neg", other, `${name}/negated`), one], axis, `${name}/exchanged`);
  return isInterleaved ? build.reshape(joined, shape, `${name}/joined`) : joined;
}
