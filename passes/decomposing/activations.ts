/** Elementwise functions of ONNX Runtime, with what it adds to their operands first, and softmax. */
import { type Builder, elemOf, scalarLike, shapeOf } from "../../ir/build.js";
import { type Attribute, floatAttribute, intAttribute, type Node, type Value } from "../../ir/graph.js";
import { isStandardOperator } from "../../ir/operators.js";
import { binary, first, unary } from "./rule.js";

export function quickGelu(node: Node, build: Builder): readonly Value[] | undefined {
  const [x] = node.inputs;
  return x && [build.swish(x, floatAttribute(node, "alpha", 1.702), first(node).name)];
}

/** The Gelu of the sum of the operands. */
export function biasGelu(node: Node, build: Builder, opset: number): readonly Value[] | undefined {
  const x = biased(node, build);
  return x && [gelu(x, build, opset, first(node).name)];
}

/** x / 2 · (1 + erf(x / √2)) */
function gelu(x: Value, build: Builder, opset: number, name: string): Value {
  if (opset >= 20) return unary(build, "Gelu", x, name);
  const part = unary(build, "Erf", binary(build, "Mul", x, scalarLike(x, Math.SQRT1_2), `${name}/scaled`), `${name}/erf`);
  return halfOfOneAnd(part, x, build, name);
}

/** The tanh form of Gelu of the sum of the operands. */
export function fastGelu(node: Node, build: Builder, opset: number): readonly Value[] | undefined {
  const x = biased(node, build);
  return x && [tanhGelu(x, build, opset, first(node).name)];
}

/** x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) */
export function tanhGelu(x: Value, build: Builder, opset: number, name: string): Value {
  if (opset >= 20) return unary(build, "Gelu", x, name, { approximate: { kind: "string", value: "tanh" } });
  const square = binary(build, "Mul", x, x, `${name}/square`);
  const factor = binary(build, "Mul", square, scalarLike(x, 0.044715 * Math.sqrt(2 / Math.PI)), `${name}/cubic`);
  const inner = binary(
    build,
    "Mul",
    x,
    binary(build, "Add", factor, scalarLike(x, Math.sqrt(2 / Math.PI)), `${name}/factor`),
    `${name}/inner`,
  );
  return halfOfOneAnd(unary(build, "Tanh", inner, `${name}/tanh`), x, build, name);
}

function halfOfOneAnd(part: Value, x: Value, build: Builder, name: string): Value {
  const half = binary(build, "Mul", x, scalarLike(x, 0.5), `${name}/half`);
  return binary(build, "Mul", half, binary(build, "Add", part, scalarLike(x, 1), `${name}/one_and`), name);
}

/** The first operand, with the second added if there is one. */
function biased(node: Node, build: Builder): Value | undefined {
  const [x, bias] = node.inputs;
  return x && bias ? binary(build, "Add", x, bias, `${first(node).name}/biased`) : x;
}

/** X + bias + skip */
export function biasAdd(node: Node, build: Builder): readonly Value[] | undefined {
  const x = biased(node, build);
  const [, , skip] = node.inputs;
  return x && skip && [binary(build, "Add", x, skip, first(node).name)];
}

/** One half of the channels of X + bias, times the Gelu of the other. */
export function biasSplitGelu(node: Node, build: Builder, opset: number): readonly Value[] | undefined {
  const x = biased(node, build);
  if (!x) return undefined;
  const { name } = first(node);
  const axis = shapeOf(x).length - 1;
  const half = (shapeOf(x)[axis] ?? 0) / 2;
  const [left, right] = [build.slice(x, axis, 0, half, `${name}/left`), build.slice(x, axis, half, 2 * half, `${name}/right`)];
  return [binary(build, "Mul", left, gelu(right, build, opset, `${name}/gelu`), name)];
}

/** The softmax of data + bias, of the last axis alone: with more axes it is that of all of them together. */
export function biasSoftmax(node: Node, build: Builder): readonly Value[] | undefined {
  const x = biased(node, build);
  const axis = intAttribute(node, "axis", 1);
  const last = x && shapeOf(x).length - 1;
  if (!x || (axis !== -1 && axis !== last)) return undefined;
  return [unary(build, "Softmax", x, first(node).name, { axis: { kind: "int", value: BigInt(last ?? 0) } })];
}

/** The parameters of the activations that a product may have inside, in order. */
const PARAMETERS: Readonly<Record<string, readonly string[]>> = { HardSigmoid: ["alpha", "beta"], LeakyRelu: ["alpha"] };

/**
 * A standard function by the name that a product gives for its result, with the parameters in their order; undefined where there is no
 * such function. The bounds of a Clip are parameters, too.
 */
export function activated(build: Builder, x: Value, activation: string, parameters: readonly number[], name: string): Value | undefined {
  if (!isStandardOperator(activation)) return undefined;
  const type = { elem: elemOf(x), shape: shapeOf(x) };
  if (activation === "Clip") {
    const bounds = parameters.map((bound) => scalarLike(x, bound));
    return build.op("Clip", [x, ...bounds], name, type);
  }
  const attributes = (PARAMETERS[activation] ?? []).flatMap((key, i): readonly (readonly [string, Attribute])[] => {
    const value = parameters[i];
    return value === undefined ? [] : [[key, { kind: "float", value }]];
  });
  return build.op(activation, [x], name, type, Object.fromEntries(attributes));
}
