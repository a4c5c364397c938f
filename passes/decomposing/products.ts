/** Products of ONNX Runtime: with operands that are transposed, with the channels last, and with a function of the result inside. */
import { type Builder, elemOf, lastTwoExchanged, scalarLike, shapeOf } from "../../ir/build.js";
import { type Attribute, floatAttribute, intAttribute, type Node, type Value } from "../../ir/graph.js";
import { isStandardOperator } from "../../ir/operators.js";
import type { TensorType } from "../../ir/types.js";
import { activated, tanhGelu } from "./activations.js";
import { binary, first } from "./rule.js";

/**
 * alpha · A · B, with A or B transposed, and the function of it that an attribute names. A is multiplied by alpha, as the operand is
 * smaller than attention's scores and overflows later.
 */
export function fusedMatMul(node: Node, build: Builder): readonly Value[] | undefined {
  const [a, b] = node.inputs;
  const { name, type } = first(node);
  const activation = activationOf(node);
  if (!a || !b || !type || activation === "") return undefined;
  const alpha = floatAttribute(node, "alpha", 1);
  const scaled = alpha === 1 ? a : binary(build, "Mul", a, scalarLike(a, alpha), `${name}/scaled`);
  const label = activation === undefined ? name : `${name}/product`;
  const product = build.op("MatMul", [turned(node, scaled, "A", build), turned(node, b, "B", build)], label, type);
  return activation === undefined ? [product] : withActivation(node, build, product, activation);
}

/** A stack of matrices as the product takes it: the first axis of the operand may be the rows, and the matrices may be transposed. */
function turned(node: Node, value: Value, side: "A" | "B", build: Builder): Value {
  const rank = shapeOf(value).length;
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  const isStacked = intAttribute(node, `transBatch${side}`, 0) !== 0;
  const isTurned = intAttribute(node, `trans${side}`, 0) !== 0;
  if (rank < 2 || (!isStacked && !isTurned)) return value;
  const stacked = isStacked ? [...axes.slice(1, -1), 0, rank - 1] : axes;
  const perm = isTurned ? lastTwoExchanged(rank).map((axis) => stacked[axis] ?? axis) : stacked;
  return build.transpose(value, perm, `${first(node).name}/${side}_turned`);
}

/** activation(alpha · A · B + beta · C): a Gemm and the standard operator that the activation names, with its attributes. */
export function fusedGemm(node: Node, build: Builder): readonly Value[] | undefined {
  const { name, type } = first(node);
  const activation = activationOf(node);
  if (!type || activation === undefined || activation === "") return undefined;
  const attributes = [...node.attributes].filter(([key]) => !key.startsWith("activation"));
  const product = build.op("Gemm", node.inputs, `${name}/product`, type, Object.fromEntries(attributes));
  return withActivation(node, build, product, activation);
}

/** The function of a product that an attribute names: undefined where there is none, "" where it is not of the standard. */
function activationOf(node: Node): string | undefined {
  const activation = node.attributes.get("activation");
  if (activation?.kind !== "string" || activation.value === "") return undefined;
  return isStandardOperator(activation.value) ? activation.value : "";
}

/** The prefix of the activation's attributes. */
const ITS = "activation_";

function withActivation(node: Node, build: Builder, product: Value, activation: string): readonly Value[] | undefined {
  const { name, type } = first(node);
  const attributes = [...node.attributes].flatMap(([key, value]) => (key.startsWith(ITS) ? [[key.slice(ITS.length), value] as const] : []));
  return type && isStandardOperator(activation) ? [build.op(activation, [product], name, type, Object.fromEntries(attributes))] : undefined;
}

/** The tanh form of Gelu of X · W + bias. */
export function gemmFastGelu(node: Node, build: Builder, opset: number): readonly Value[] | undefined {
  const [x, weight, bias] = node.inputs;
  const { name, type } = first(node);
  if (!x || !weight || !type) return undefined;
  const product = build.op("MatMul", [x, weight], `${name}/product`, type);
  const biased = bias ? binary(build, "Add", product, bias, `${name}/biased`) : product;
  return [tanhGelu(biased, build, opset, name)];
}

/** activation(X ∗ W + bias + Z), with the channels first or last. */
export function convolution(node: Node, build: Builder): readonly Value[] | undefined {
  const [x, kernel, bias, added] = node.inputs;
  const out = first(node);
  if (!x || !kernel || !out.type) return undefined;
  const { name } = out;
  const activation = activationOf(node);
  const parameters = node.attributes.get("activation_params");
  const attributes = [...node.attributes].filter(([key]) => !key.startsWith("activation"));
  const label = activation === undefined && !added ? name : `${name}/product`;
  const rank = shapeOf(kernel).length;
  // Of all operators only this one has the channels of its weights last, too.
  const weights =
    node.opType === "NhwcConv"
      ? build.transpose(kernel, [0, rank - 1, ...Array.from({ length: rank - 2 }, (_, i) => i + 1)], `${name}/weights`)
      : kernel;
  const product = channelsFirst(node, build, x, label, (data, label, type) =>
    build.op("Conv", bias ? [data, weights, bias] : [data, weights], label, type, Object.fromEntries(attributes)),
  );
  const sum = added ? binary(build, "Add", product, added, activation === undefined ? name : `${name}/sum`) : product;
  if (activation === undefined) return [sum];
  const active = activated(build, sum, activation, parameters?.kind === "floats" ? parameters.value : [], name);
  return active && [active];
}

/** What `make` makes of an operand with its channels first; where the node has them last, between two transposes. */
export function channelsFirst(
  node: Node,
  build: Builder,
  x: Value,
  name: string,
  make: (data: Value, name: string, type: TensorType) => Value,
): Value {
  const isLast = node.opType.startsWith("Nhwc") || intAttribute(node, "channels_last", 0) !== 0;
  const shape = shapeOf(first(node));
  const elem = elemOf(first(node));
  if (!isLast) return make(x, name, { elem, shape });
  const places = shape.slice(2).map((_, i) => i + 1);
  const toFirst = [0, places.length + 1, ...places];
  const made = make(build.transpose(x, toFirst, `${name}/channels_first`), `${name}/made`, {
    elem,
    shape: toFirst.map((axis) => shape[axis] ?? 1),
  });
  return build.transpose(made, [0, ...places.map((axis) => axis + 1), 1], name);
}

/** An attribute that is a whole number. */
export function int(value: number): Attribute {
  return { kind: "int", value: BigInt(value) };
}
