/** Quantised operators of ONNX Runtime: products of whole numbers, which are exact, and functions between dequantising and quantising. */
import { type Builder, elemOf, scalarLike, shapeOf } from "../../ir/build.js";
import { type Attribute, constant, floatAttribute, intAttribute, makeNode, type Node, type Value } from "../../ir/graph.js";
import type { StandardOperator } from "../../ir/operators.js";
import { tensorOf } from "../../ir/tensor.js";
import { broadcastShape, elementCount, type ElementType } from "../../ir/types.js";
import { channelsFirst, int } from "./products.js";
import { binary, first } from "./rule.js";

/** (A − its zero point) · (B − its zero point) · both scales + bias */
export function matMulIntegerToFloat(node: Node, build: Builder): readonly Value[] | undefined {
  const [a, b, aScale, bScale, aZero, bZero, bias] = node.inputs;
  if (!a || !b || !aScale || !bScale) return undefined;
  return dequantisedProduct(node, build, { a, b, aScale, bScale, aZero, bZero, bias });
}

/** The same with an operand that is quantised first. */
export function dynamicQuantizeMatMul(node: Node, build: Builder): readonly Value[] | undefined {
  const [x, b, bScale, bZero, bias] = node.inputs;
  if (!x || !b || !bScale || elemOf(x) !== "float") return undefined;
  const { name } = first(node);
  const types = [
    { elem: "uint8", shape: shapeOf(x) },
    { elem: "float", shape: [] },
    { elem: "uint8", shape: [] },
  ] as const;
  const outputs = ["quantised", "scale", "zero"].map((what, i) => ({ name: `${name}/${what}`, type: types[i] }));
  const quantised = makeNode({ opType: "DynamicQuantizeLinear", name: `${name}/quantised`, inputs: [x], outputs });
  build.nodes.push(quantised);
  const [a, aScale, aZero] = quantised.outputs;
  return a && aScale && dequantisedProduct(node, build, { a, b, aScale, bScale, aZero, bZero, bias });
}

interface QuantisedProduct {
  readonly a: Value;
  readonly b: Value;
  readonly aScale: Value;
  readonly bScale: Value;
  readonly aZero: Value | undefined;
  readonly bZero: Value | undefined;
  readonly bias: Value | undefined;
}

function dequantisedProduct(
  node: Node,
  build: Builder,
  { a, b, aScale, bScale, aZero, bZero, bias }: QuantisedProduct,
): readonly Value[] | undefined {
  const { name, type } = first(node);
  if (!type) return undefined;
  const whole = build.op("MatMulInteger", [a, b, aZero, bZero], `${name}/whole`, { ...type, elem: "int32" });
  const product = build.cast(whole, type.elem, `${name}/product`);
  const scaled = binary(build, "Mul", product, scaleOf(build, aScale, bScale, name), bias ? `${name}/scaled` : name);
  return [bias ? binary(build, "Add", scaled, bias, name) : scaled];
}

function scaleOf(build: Builder, a: Value, b: Value, name: string): Value {
  const shape = broadcastShape([shapeOf(a), shapeOf(b)]) ?? shapeOf(b);
  return build.op("Mul", [a, b], `${name}/scale`, { elem: elemOf(a), shape });
}

/** alpha · A · B + C of quantised matrices, where C counts in the product of their scales; the result is quantised where it has a scale. */
export function quantisedGemm(node: Node, build: Builder): readonly Value[] | undefined {
  const [a, aScale, aZero, b, bScale, bZero, added, scale, zero] = node.inputs;
  const out = first(node);
  const { name, type } = out;
  if (!a || !b || !aScale || !bScale || !type) return undefined;
  const turned = (value: Value, side: "A" | "B"): Value =>
    intAttribute(node, `trans${side}`, 0) === 0 ? value : build.transpose(value, [1, 0], `${name}/${side}_turned`);
  const whole = { ...type, elem: "int32" } as const;
  const product = build.op("MatMulInteger", [turned(a, "A"), turned(b, "B"), aZero, bZero], `${name}/whole`, whole);
  const sum = added ? binary(build, "Add", product, added, `${name}/sum`) : product;
  const alpha = floatAttribute(node, "alpha", 1);
  const factor = alpha === 1 ? aScale : binary(build, "Mul", aScale, scalarLike(aScale, alpha), `${name}/alpha`);
  const label = scale ? `${name}/scaled` : name;
  const scaled = binary(build, "Mul", build.cast(sum, "float", `${name}/product`), scaleOf(build, factor, bScale, name), label);
  return [scale ? quantised(build, scaled, scale, zero, name, out) : scaled];
}

/** The standard's quantised convolution, with the channels first or last. */
export function quantisedConvolution(node: Node, build: Builder): readonly Value[] | undefined {
  const [x, ...others] = node.inputs;
  const out = first(node);
  if (!x) return undefined;
  const attributes = [...node.attributes].filter(([key]) => key !== "channels_last");
  return [
    channelsFirst(node, build, x, out.name, (data, name, type) =>
      build.op("QLinearConv", [data, ...others], name, type, Object.fromEntries(attributes)),
    ),
  ];
}

/** Types that the standard quantises to, with the opset from which it does. */
const SINCE: Readonly<Partial<Record<ElementType, number>>> = {
  uint8: 10,
  int8: 10,
  int32: 10,
  uint16: 21,
  int16: 21,
  uint4: 21,
  int4: 21,
};

/** Quantising and dequantising as the standard does, for the types that it knows. */
export function requantisation(opType: "QuantizeLinear" | "DequantizeLinear") {
  return (node: Node, build: Builder, opset: number): readonly Value[] | undefined => {
    const [x, scale, zero] = node.inputs;
    const { name, type } = first(node);
    if (!x || !scale || !type) return undefined;
    const since = SINCE[opType === "QuantizeLinear" ? type.elem : elemOf(x)] ?? Infinity;
    const isOfHalf = [elemOf(scale), elemOf(x), type.elem].includes("float16");
    const isByAxis = elementCount(shapeOf(scale)) > 1;
    if (opset < Math.max(since, isOfHalf ? 19 : 0, isByAxis ? 13 : 0)) return undefined;
    // The runtime's operator takes no scale by axis where there is no attribute.
    const axis = node.attributes.get("axis");
    const inputs = zero ? [x, scale, zero] : [x, scale];
    return [build.op(opType, inputs, name, type, isByAxis && axis ? { axis } : {})];
  };
}

/** What a function of quantised operands does in the standard's operators: three operands for each, then scale and zero point of the result. */
export function between(
  opType: StandardOperator,
  operands: number,
  attributesOf: (node: Node) => Readonly<Record<string, Attribute>> = () => ({}),
) {
  return (node: Node, build: Builder): readonly Value[] | undefined => {
    const out = first(node);
    const { name } = out;
    const given = Array.from({ length: operands }, (_, i) => node.inputs.slice(3 * i, 3 * i + 3));
    const [scale, zero] = node.inputs.slice(3 * operands);
    const floats = given.flatMap(([x, scale, zero], i) => (x && scale ? [dequantised(build, x, scale, zero, `${name}/operand${i}`)] : []));
    if (!scale || floats.length !== operands) return undefined;
    const result = build.op(opType, floats, `${name}/result`, { elem: "float", shape: shapeOf(out) }, attributesOf(node));
    return [quantised(build, result, scale, zero, name, out)];
  };
}

/**
 * A + B, counted in steps of the result, so that a sum in the middle of two steps is exact and is rounded as the runtime's kernel does it:
 * with the zero point already in it. Such sums are frequent, as in 1 + tanh(x).
 */
export function quantisedSum(node: Node, build: Builder): readonly Value[] | undefined {
  const [a, aScale, aZero, b, bScale, bZero, scale, zero] = node.inputs;
  const out = first(node);
  const { name } = out;
  if (!a || !aScale || !b || !bScale || !scale) return undefined;
  const steps = (x: Value, own: Value, zero: Value | undefined, which: string): Value => {
    const ratio = build.op("Div", [own, scale], `${name}/ratio${which}`, { elem: "float", shape: shapeOf(own) });
    return dequantised(build, x, ratio, zero, `${name}/operand${which}`);
  };
  const type = { elem: "float", shape: shapeOf(out) } as const;
  const sum = build.op("Add", [steps(a, aScale, aZero, "0"), steps(b, bScale, bZero, "1")], `${name}/steps`, type);
  const [one, none] = [constant(`${name}/one`, tensorOf("float", [], [1])), constant(`${name}/none`, tensorOf(elemOf(out), [], [0]))];
  const start = zero && build.cast(zero, "float", `${name}/zero`);
  const whole = start ? binary(build, "Add", sum, start, `${name}/whole`) : sum;
  return [quantised(build, whole, one, none, name, out)];
}

/** Operands, each behind its scale and zero point, joined along an axis. */
export function quantisedConcat(node: Node, build: Builder): readonly Value[] | undefined {
  const [scale, zero, ...operands] = node.inputs;
  const out = first(node);
  const { name } = out;
  if (!scale) return undefined;
  const floats = operands.flatMap((x, i) => {
    const own = operands[i + 1];
    return i % 3 === 0 && x && own ? [dequantised(build, x, own, operands[i + 2], `${name}/operand${i / 3}`)] : [];
  });
  const axis = intAttribute(node, "axis", 0);
  const joined = build.op("Concat", floats, `${name}/result`, { elem: "float", shape: shapeOf(out) }, { axis: int(axis) });
  return [quantised(build, joined, scale, zero, name, out)];
}

function dequantised(build: Builder, x: Value, scale: Value, zero: Value | undefined, name: string): Value {
  return build.op("DequantizeLinear", zero ? [x, scale, zero] : [x, scale], name, { elem: "float", shape: shapeOf(x) });
}

function quantised(build: Builder, x: Value, scale: Value, zero: Value | undefined, name: string, like: Value): Value {
  return build.op("QuantizeLinear", zero ? [x, scale, zero] : [x, scale], name, { elem: elemOf(like), shape: shapeOf(x) });
}
