/**
 * The types of a node's results, from the types of its operands and from constants. Declared types are checked against them. This is
 * no type inference for whole models: an operator that is not in the table, or not in this form, has an unknown result.
 * Formulas: onnx, docs/Operators.md.
 */
import { constantData, constantOf } from "./constants.js";
import { equationOf } from "./equation.js";
import { intAttribute, intsAttribute, isOfStandardDomain, type Node, type Value } from "./graph.js";
import type { RuntimeOperator, StandardOperator } from "./operators.js";
import { tensorNumbers } from "./tensor.js";
import { broadcastShape, elementCount, elementTypeOf, type ElementType, sameShape, type TensorType } from "./types.js";

/** A type with a fixed shape. */
export interface FixedType extends TensorType {
  readonly shape: readonly number[];
}

/** Whether every dimension of a type is a number. */
export function isFixed(type: TensorType | undefined): type is FixedType {
  return type?.shape?.every((dim) => typeof dim === "number") ?? false;
}

/** The type of a result; undefined where it is not known; `misfit` where the operator does not accept operands of these types. */
export type ResultType = FixedType | "misfit" | undefined;

/** The types of a node's results, in order; results beyond the end of the list are not known. */
export function resultTypes(node: Node): readonly ResultType[] {
  const { domain, opType } = node;
  const rule = isOfStandardDomain(node) ? (TYPE_RULES.get(opType) ?? IN_STANDARD_DOMAIN.get(opType)) : undefined;
  const types = (rule ?? (domain === "com.microsoft" ? RUNTIME_TYPE_RULES.get(opType) : undefined))?.(node) ?? [];
  // What is no size is left to the runtime, which says what is wrong with the node.
  return types.map((type) => (type && type !== "misfit" && !type.shape.every(isSize) ? undefined : type));
}

function isSize(dim: number): boolean {
  return Number.isSafeInteger(dim) && dim >= 0;
}

type TypeRule = (node: Node) => readonly ResultType[];

const SAME: readonly StandardOperator[] = [
  "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "BitwiseNot", "Ceil", "Celu", "Clip", "Cos", "Cosh", "CumSum", "Dropout",
  "Elu",
  "Erf", "Exp", "Floor", "Gelu", "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "LeakyRelu", "Log",
  "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Mish", "Neg", "Not", "PRelu", "Reciprocal", "Relu", "RotaryEmbedding", "Round",
  "ScatterElements", "ScatterND", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
  "ThresholdedRelu", "Trilu",
]; // prettier-ignore
const ARITHMETIC: readonly StandardOperator[] = [
  "Add", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Max", "Mean", "Min", "Mod", "Mul", "Sub", "Sum",
]; // prettier-ignore
const LOGIC: readonly StandardOperator[] = ["And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor"];
const REDUCTIONS: readonly StandardOperator[] = [
  "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
]; // prettier-ignore

const TYPE_RULES: ReadonlyMap<string, TypeRule> = new Map<StandardOperator, TypeRule>([
  ...each(
    SAME,
    ofFirst((x) => x),
  ),
  ...each(
    ARITHMETIC,
    broadcasting((elems) => (isUniform(elems) ? elems[0] : "misfit")),
  ),
  ...each(
    LOGIC,
    broadcasting((elems) => (isUniform(elems) ? "bool" : "misfit")),
  ),
  ...each(REDUCTIONS, ofFirst(reduced)),
  ...each(
    ["ArgMax", "ArgMin"],
    ofFirst(({ shape }, node) => reducedBy("int64", shape, [axisOf(node, 0, shape.length)], node)),
  ),
  ...each(
    ["IsInf", "IsNaN"],
    ofFirst(({ shape }) => typeOf("bool", shape)),
  ),
  ["Attention", attention],
  ["Cast", ofFirst(({ shape }, node) => typeOf(elementTypeOf(intAttribute(node, "to", 0)), shape))],
  ["CastLike", ofFirst(({ shape }, { inputs: [, like] }) => typeOf(like?.type?.elem, shape))],
  ["Compress", ofFirst(compressed)],
  ["Concat", concat],
  ["Constant", (node) => [typeOf(constantData(node)?.elem, constantData(node)?.shape)]],
  ["ConstantOfShape", constantOfShape],
  ["Conv", (node) => conv(node, 0, 1, uniformElem(node, 0, 1))],
  ["ConvInteger", (node) => conv(node, 0, 1, "int32")],
  ["ConvTranspose", convTranspose],
  ["DepthToSpace", ofFirst(({ elem, shape }, node) => typeOf(elem, blocked(shape, intAttribute(node, "blocksize", 1))))],
  ["DequantizeLinear", ofFirst(({ shape }, node) => typeOf(dequantised(node), shape))],
  ["DynamicQuantizeLinear", (node) => [typeOf("uint8", fixedOf(node.inputs[0])?.shape), typeOf("float", []), typeOf("uint8", [])]],
  ["Einsum", einsum],
  ["Expand", ofFirst(expanded)],
  ["Flatten", ofFirst(flattened)],
  ["Gather", gathered],
  ["GatherElements", ofFirst(({ elem }, { inputs: [, indices] }) => typeOf(elem, fixedOf(indices)?.shape))],
  ["GatherND", gatheredSlices],
  ["Gemm", (node) => gemm(node, 0, 1, uniformElem(node, 0, 1))],
  ["LayerNormalization", layerNormalization],
  ["MatMul", (node) => matMul(node, 0, 1, uniformElem(node, 0, 1))],
  ["MatMulInteger", (node) => matMul(node, 0, 1, "int32")],
  ["Pad", ofFirst(padded)],
  ["Pow", broadcasting(([base]) => base)],
  ["QLinearConv", (node) => conv(node, 0, 3, node.inputs[7]?.type?.elem)],
  ["QLinearMatMul", (node) => matMul(node, 0, 3, node.inputs[7]?.type?.elem)],
  ["QuantizeLinear", ofFirst(({ shape }, node) => typeOf(quantised(node), shape))],
  // Its result is of the type of the scale.
  ["RMSNormalization", ofFirst(({ shape }, { inputs: [, scale] }) => typeOf(scale?.type?.elem, shape))],
  ["Range", range],
  ["Reshape", ofFirst(reshaped)],
  ["Shape", ofFirst(({ shape }, node) => typeOf("int64", [sizeOfPart(shape, node)]))],
  ["Size", ofFirst(() => typeOf("int64", []))],
  ["Slice", ofFirst(sliced)],
  ["SpaceToDepth", ofFirst(({ elem, shape }, node) => typeOf(elem, blocked(shape, 1 / intAttribute(node, "blocksize", 1))))],
  ["Split", split],
  ["Squeeze", ofFirst(squeezed)],
  ["Tile", ofFirst(tiled)],
  ["Transpose", ofFirst(transposed)],
  ["Unsqueeze", ofFirst(unsqueezed)],
  ["Where", broadcasting(([, ...elems]) => (isUniform(elems) ? elems[0] : "misfit"))],
]);

/** Formulas of these: onnxruntime, docs/ContribOperators.md. */
const RUNTIME_TYPE_RULES: ReadonlyMap<string, TypeRule> = new Map<RuntimeOperator, TypeRule>([
  ...each(
    ["BiasAdd", "BiasGelu", "BiasSoftmax", "FastGelu", "Gelu", "GroupNorm", "MoE", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QMoE", "QuickGelu", "RotaryEmbedding"],
    ofFirst((x) => x),
  ),
  ...each(["QLinearAdd", "QLinearMul"], ({ inputs: [a, , , b] }) => broadcasting(([elem]) => elem)({ inputs: [a, b] })),
  ...each(["FusedMatMul", "FusedMatMulActivation", "TransposeMatMul"], (node) => matMul(node, 0, 1, uniformElem(node, 0, 1))),
  ...each(["DynamicQuantizeMatMul", "GemmFastGelu"], (node) => matMul(node, 0, 1, node.inputs[0]?.type?.elem)),
  ["GatherBlockQuantized", gatheredBlocks],
  ...each(["MatMulBnb4", "MatMulNBits"], ofFirst(({ elem, shape }, node) => ({ elem, shape: withLast(shape, intAttribute(node, "N", 0)) }))),
  ...each(["FusedConv", "NhwcConv", "NhwcFusedConv"], (node) => conv(node, 0, 1, uniformElem(node, 0, 1))),
  ...each(["Attention", "PackedAttention"], (node) => projectedAttention(node, node.inputs[0]?.type?.elem)),
  ["BiasSplitGelu", ofFirst(({ elem, shape }) => ({ elem, shape: withLast(shape, (shape.at(-1) ?? 0) / 2) }))],
  ["DequantizeLinear", ofFirst(({ shape }, node) => typeOf(dequantised(node), shape))],
  ["FusedGemm", (node) => gemm(node, 0, 1, uniformElem(node, 0, 1))],
  ["GroupQueryAttention", ofFirst(groupQueryAttention)],
  ["MatMulIntegerToFloat", (node) => matMul(node, 0, 1, node.inputs[2]?.type?.elem)],
  ["MultiHeadAttention", (node) => [...ofFirst(multiHeadAttention)(node), presentHeads(node, 1), presentHeads(node, 2)]],
  ["PackedMultiHeadAttention", ofFirst(multiHeadAttention)],
  ["QAttention", (node) => projectedAttention(node, node.inputs[3]?.type?.elem)],
  ["QGemm", (node) => gemm(node, 0, 3, node.inputs[8]?.type?.elem ?? "float")],
  ["QLinearConv", (node) => conv(node, 0, 3, node.inputs[7]?.type?.elem)],
  ["QuantizeLinear", ofFirst(({ shape }, node) => typeOf(quantised(node), shape))],
  ["SkipGroupNorm", (node) => [fixedOf(node.inputs[0]), fixedOf(node.inputs[0])]],
  ["SkipLayerNormalization", skipNorm],
  ["SkipSimplifiedLayerNormalization", skipNorm],
]); // prettier-ignore

/** What the runtime has in the standard's domain. */
const IN_STANDARD_DOMAIN: ReadonlyMap<string, TypeRule> = new Map<RuntimeOperator, TypeRule>([
  ["SimplifiedLayerNormalization", ofFirst(({ shape }, { inputs: [, scale] }) => typeOf(scale?.type?.elem, shape))],
]);

/** The operators that there is a rule for, with their domain in front where it is not the standard's. */
export const TYPED_OPERATORS: readonly string[] = [
  ...TYPE_RULES.keys(),
  ...IN_STANDARD_DOMAIN.keys(),
  ...Array.from(RUNTIME_TYPE_RULES.keys(), (name) => `com.microsoft.${name}`),
].sort();

function each<Name extends string>(names: readonly Name[], rule: TypeRule): readonly (readonly [Name, TypeRule])[] {
  return names.map((name) => [name, rule] as const);
}

function fixedOf(value: Value | undefined): FixedType | undefined {
  return isFixed(value?.type) ? value.type : undefined;
}

function typeOf(elem: ElementType | undefined, shape: readonly number[] | undefined): FixedType | undefined {
  return elem && shape && { elem, shape };
}

function withLast(shape: readonly number[], size: number): readonly number[] {
  return [...shape.slice(0, -1), size];
}

/** The first result, from the type of the first operand. */
function ofFirst(rule: (x: FixedType, node: Node) => ResultType): TypeRule {
  return (node) => {
    const x = fixedOf(node.inputs[0]);
    return x ? [rule(x, node)] : [];
  };
}

/** All operands, if their types are known. */
function allFixed(values: readonly (Value | undefined)[]): readonly FixedType[] | undefined {
  const types: FixedType[] = [];
  for (const value of values) {
    const type = fixedOf(value);
    if (!type) return undefined;
    types.push(type);
  }
  return types.length > 0 ? types : undefined;
}

function isUniform(elems: readonly ElementType[]): boolean {
  return elems.every((elem) => elem === elems[0]);
}

/** The element type that two operands share. */
function uniformElem({ inputs }: Node, a: number, b: number): Elem {
  const [left, right] = [inputs[a]?.type?.elem, inputs[b]?.type?.elem];
  return left === right ? left : "misfit";
}

/** An element type, where it is known; `misfit` where operands do not have those that they must have. */
type Elem = ElementType | "misfit" | undefined;

function broadcasting(elemOf: (elems: readonly ElementType[]) => Elem): (node: Pick<Node, "inputs">) => readonly ResultType[] {
  return ({ inputs }) => {
    const operands = allFixed(inputs);
    if (!operands) return [];
    const elem = elemOf(operands.map((type) => type.elem));
    const shape = broadcastShape(operands.map((type) => type.shape));
    return [elem === "misfit" || !shape ? "misfit" : typeOf(elem, shape)];
  };
}

/** The integers of an operand that gives axes, sizes or bounds; undefined where it is not a constant. */
function integers(value: Value | undefined): readonly number[] | undefined {
  const data = constantOf(value);
  const isList = data?.content.kind === "bytes" && data.shape.length <= 1 && (data.elem === "int64" || data.elem === "int32");
  return isList ? tensorNumbers(data) : undefined;
}

/**
 * Axes from the attribute, or from the operand of newer versions: undefined where there are none, "unknown" where they are not constant.
 */
function axesOf(node: Node, operand: number, rank: number): readonly number[] | "unknown" | undefined {
  const value = node.inputs[operand];
  const axes = intsAttribute(node, "axes") ?? integers(value);
  return axes?.map((axis) => counted(axis, rank)) ?? (value ? "unknown" : undefined);
}

/** An axis counted from the first. */
function counted(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

function axisOf(node: Node, otherwise: number, rank: number): number {
  return counted(intAttribute(node, "axis", otherwise), rank);
}

function reduced({ elem, shape }: FixedType, node: Node): ResultType {
  const given = axesOf(node, 1, shape.length);
  if (given === "unknown") return undefined;
  const isNone = !given || given.length === 0;
  if (isNone && intAttribute(node, "noop_with_empty_axes", 0) !== 0) return { elem, shape };
  return reducedBy(elem, shape, isNone ? shape.map((_, axis) => axis) : given, node);
}

function reducedBy(elem: ElementType, shape: readonly number[], axes: readonly number[], node: Node): ResultType {
  const kept = shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim));
  return { elem, shape: intAttribute(node, "keepdims", 1) !== 0 ? kept : shape.filter((_, axis) => !axes.includes(axis)) };
}

/** [batch, heads, length, size], or [batch, length, heads · size]; the other results are left open. */
function attention(node: Node): readonly ResultType[] {
  const [query, keys, values] = node.inputs.slice(0, 3).map(fixedOf);
  if (!query || !keys || !values) return [];
  const [q, v] = [query.shape, values.shape];
  if (!isUniform([query.elem, keys.elem]) || q.length !== v.length || q.length !== keys.shape.length) return ["misfit"];
  const { elem } = query;
  if (q.length === 4) return [{ elem, shape: [...q.slice(0, 3), ...v.slice(3)] }];
  const [queryHeads, valueHeads] = [intAttribute(node, "q_num_heads", 0), intAttribute(node, "kv_num_heads", 0)];
  if (q.length !== 3 || queryHeads === 0 || valueHeads === 0) return ["misfit"];
  return [{ elem, shape: [...q.slice(0, 2), (queryHeads * (v[2] ?? 0)) / valueHeads] }];
}

/** As many elements of an axis, or of all in one row, as a constant condition has trues; it may be shorter than the axis. */
function compressed({ elem, shape }: FixedType, node: Node): ResultType {
  const data = constantOf(node.inputs[1]);
  if (data?.elem !== "bool") return undefined;
  const size = tensorNumbers(data).filter((is) => is !== 0).length;
  return { elem, shape: node.attributes.has("axis") ? shape.with(axisOf(node, 0, shape.length), size) : [size] };
}

function concat(node: Node): readonly ResultType[] {
  const operands = allFixed(node.inputs);
  const [first] = operands ?? [];
  if (!operands || !first) return [];
  const axis = axisOf(node, 1, first.shape.length);
  const isFit = ({ elem, shape }: FixedType): boolean =>
    elem === first.elem && shape.length === first.shape.length && shape.every((dim, i) => i === axis || dim === first.shape[i]);
  if (first.shape[axis] === undefined || !operands.every(isFit)) return ["misfit"];
  const size = operands.reduce((sum, { shape }) => sum + (shape[axis] ?? 0), 0);
  return [{ elem: first.elem, shape: first.shape.with(axis, size) }];
}

function constantOfShape(node: Node): readonly ResultType[] {
  const value = node.attributes.get("value");
  return [typeOf(value?.kind === "tensor" ? value.value.elem : "float", integers(node.inputs[0]))];
}

/** A convolution of the operand at one place by the kernel at another, with the channels first or last. */
function conv(node: Node, data: number, weight: number, elem: Elem): readonly ResultType[] {
  const [x, kernel] = [fixedOf(node.inputs[data]), fixedOf(node.inputs[weight])];
  if (!x || !kernel || !isPaddedByHand(node) || elem === undefined) return [];
  const isLast = node.opType.startsWith("Nhwc") || intAttribute(node, "channels_last", 0) !== 0;
  const [rows = 0, ...others] = x.shape;
  const [channels, sizes] = isLast ? [others.at(-1), others.slice(0, -1)] : [others[0], others.slice(1)];
  const [made = 0, ...kernelSizes] = kernel.shape;
  // Of all operators only this one has the channels of its weights last, too.
  const isTurned = node.opType === "NhwcConv";
  const [read = 0, widths] = isTurned ? [kernelSizes.at(-1), kernelSizes.slice(0, -1)] : [kernelSizes[0], kernelSizes.slice(1)];
  if (elem === "misfit" || sizes.length !== widths.length || channels !== read * intAttribute(node, "group", 1)) return ["misfit"];
  const moved = sizes.map((size, i) => {
    const { stride, reach, pads } = window(node, i, widths);
    return Math.floor((size + pads - reach) / stride) + 1;
  });
  return [{ elem, shape: isLast ? [rows, ...moved, made] : [rows, made, ...moved] }];
}

function convTranspose(node: Node): readonly ResultType[] {
  const [x, kernel] = node.inputs.slice(0, 2).map(fixedOf);
  if (!x || !kernel || !isPaddedByHand(node)) return [];
  const [rows = 0, channels = 0, ...sizes] = x.shape;
  const [read = 0, made = 0, ...widths] = kernel.shape;
  if (sizes.length !== widths.length || channels !== read || x.elem !== kernel.elem) return ["misfit"];
  const [more, whole] = [intsAttribute(node, "output_padding"), intsAttribute(node, "output_shape")];
  const spread = sizes.map((size, i) => {
    const { stride, reach, pads } = window(node, i, widths);
    return whole?.[i] ?? stride * (size - 1) + (more?.[i] ?? 0) + reach - pads;
  });
  return [{ elem: x.elem, shape: [rows, made * intAttribute(node, "group", 1), ...spread] }];
}

function isPaddedByHand(node: Node): boolean {
  const automatic = node.attributes.get("auto_pad");
  return automatic?.kind !== "string" || automatic.value === "NOTSET";
}

/** Stride, reach and both pads of a kernel along one of its axes. */
function window(
  node: Node,
  axis: number,
  widths: readonly number[],
): { readonly stride: number; readonly reach: number; readonly pads: number } {
  const [strides, dilations, pads] = ["strides", "dilations", "pads"].map((name) => intsAttribute(node, name));
  return {
    stride: strides?.[axis] ?? 1,
    reach: (dilations?.[axis] ?? 1) * ((widths[axis] ?? 1) - 1) + 1,
    pads: (pads?.[axis] ?? 0) + (pads?.[axis + widths.length] ?? 0),
  };
}

/** Channels become picture elements: `factor` along each of two axes. */
function blocked([rows = 0, channels = 0, ...sizes]: readonly number[], factor: number): readonly number[] {
  return [rows, channels / factor ** 2, ...sizes.map((size) => size * factor)];
}

/** The type of quantised numbers: that of the zero point, or the one that an attribute names. */
function quantised(node: Node): ElementType | undefined {
  return node.inputs[2]?.type?.elem ?? elementTypeOf(intAttribute(node, "output_dtype", 0)) ?? "uint8";
}

/** The type of dequantised numbers: the one that an attribute names, or that of the scale. */
function dequantised(node: Node): ElementType | undefined {
  return elementTypeOf(intAttribute(node, "output_dtype", 0)) ?? node.inputs[1]?.type?.elem;
}

function einsum(node: Node): readonly ResultType[] {
  const operands = allFixed(node.inputs);
  const equation = equationOf(node);
  if (!operands) return [];
  if (!equation || !isUniform(operands.map(({ elem }) => elem))) return ["misfit"];
  return [
    typeOf(
      operands[0]?.elem,
      equation.result.map((name) => equation.sizes.get(name) ?? 1),
    ),
  ];
}

function expanded({ elem, shape }: FixedType, { inputs: [, sizes] }: Node): ResultType {
  const wanted = integers(sizes);
  if (!wanted) return undefined;
  const whole = broadcastShape([shape, wanted]);
  return whole ? { elem, shape: whole } : "misfit";
}

function flattened({ elem, shape }: FixedType, node: Node): ResultType {
  const axis = axisOf(node, 1, shape.length);
  return { elem, shape: [elementCount(shape.slice(0, axis)), elementCount(shape.slice(axis))] };
}

function gathered(node: Node): readonly ResultType[] {
  const [data, indices] = node.inputs.map(fixedOf);
  if (!data || !indices) return [];
  const axis = axisOf(node, 0, data.shape.length);
  return [{ elem: data.elem, shape: data.shape.toSpliced(axis, 1, ...indices.shape) }];
}

/** Unpacked to the type of the scales. In bytes, the last axis may hold several numbers in one. */
function gatheredBlocks(node: Node): readonly ResultType[] {
  const [data, indices, scales] = node.inputs.map(fixedOf);
  if (!data || !indices || !scales) return [];
  const inByte = data.elem === "uint8" ? 8 / intAttribute(node, "bits", 4) : 1;
  const shape = withLast(data.shape, inByte * (data.shape.at(-1) ?? 0));
  const axis = counted(intAttribute(node, "gather_axis", 0), shape.length);
  return [{ elem: scales.elem, shape: shape.toSpliced(axis, 1, ...indices.shape) }];
}

/** Slices of the first operand, each by a list of indices. */
function gatheredSlices(node: Node): readonly ResultType[] {
  const [data, indices] = node.inputs.map(fixedOf);
  if (!data || !indices) return [];
  const from = intAttribute(node, "batch_dims", 0) + (indices.shape.at(-1) ?? 0);
  return [{ elem: data.elem, shape: [...indices.shape.slice(0, -1), ...data.shape.slice(from)] }];
}

function gemm(node: Node, first: number, second: number, elem: Elem): readonly ResultType[] {
  const [a, b] = [fixedOf(node.inputs[first]), fixedOf(node.inputs[second])];
  if (!a || !b || elem === undefined) return [];
  const turned = ({ shape }: FixedType, name: string): readonly number[] =>
    intAttribute(node, name, 0) !== 0 ? shape.toReversed() : shape;
  const [rows, inner, ...more] = turned(a, "transA");
  const [other, columns, ...others] = turned(b, "transB");
  if (rows === undefined || columns === undefined || more.length + others.length > 0 || inner !== other || elem === "misfit")
    return ["misfit"];
  return [{ elem, shape: [rows, columns] }];
}

/** One query for each of `num_heads`, and fewer keys and values; all three may be packed in one. */
function groupQueryAttention({ elem, shape }: FixedType, node: Node): ResultType {
  const [own, shared] = [intAttribute(node, "num_heads", 0), intAttribute(node, "kv_num_heads", 0)];
  return node.inputs[1] ? { elem, shape } : { elem, shape: withLast(shape, ((shape.at(-1) ?? 0) * own) / (own + 2 * shared)) };
}

/** The norm, and the statistics of the axes from `axis` on. */
function layerNormalization(node: Node): readonly ResultType[] {
  const x = fixedOf(node.inputs[0]);
  if (!x) return [];
  const axis = axisOf(node, -1, x.shape.length);
  const statistics = typeOf(
    elementTypeOf(intAttribute(node, "stash_type", 1)),
    x.shape.map((dim, i) => (i < axis ? dim : 1)),
  );
  return [x, statistics, statistics];
}

function matMul(node: Node, first: number, second: number, elem: Elem): readonly ResultType[] {
  const [a, b] = [turnedMatrix(node, first, "A"), turnedMatrix(node, second, "B")];
  if (!a || !b || elem === undefined) return [];
  const [left, right] = [a.length === 1 ? [1, ...a] : a, b.length === 1 ? [...b, 1] : b];
  const stack = broadcastShape([left.slice(0, -2), right.slice(0, -2)]);
  if (!stack || left.at(-1) === undefined || left.at(-1) !== right.at(-2) || elem === "misfit") return ["misfit"];
  // The axis that was added to a vector operand is removed from the result.
  const rows = a.length === 1 ? [] : left.slice(-2, -1);
  const columns = b.length === 1 ? [] : right.slice(-1);
  return [{ elem, shape: [...stack, ...rows, ...columns] }];
}

/** The shape of a stack of matrices as the product sees it: its first axis may be the rows, and the matrices may be transposed. */
function turnedMatrix(node: Node, place: number, side: "A" | "B"): readonly number[] | undefined {
  const shape = fixedOf(node.inputs[place])?.shape;
  if (!shape || shape.length < 2) return shape;
  const [rows = 0, ...others] = shape;
  const stacked = intAttribute(node, `transBatch${side}`, 0) !== 0 ? [...others.slice(0, -1), rows, ...others.slice(-1)] : shape;
  return intAttribute(node, `trans${side}`, 0) !== 0 ? [...stacked.slice(0, -2), ...stacked.slice(-2).reverse()] : stacked;
}

/** Heads side by side: of the values, or of the operand that they are packed in, [batch, length, heads, packed, size]. */
function multiHeadAttention({ elem, shape }: FixedType, node: Node): ResultType {
  const [query, keys, values] = node.inputs.slice(0, 3).map((value) => fixedOf(value)?.shape);
  if ((node.inputs[1] && !keys) || (node.inputs[2] && !values)) return undefined;
  const packed = keys ?? query ?? [];
  const rows = shape.slice(0, keys ? -1 : -3);
  // Values from elsewhere may have their heads in front: [batch, heads, length, size].
  if (values) return { elem, shape: [...rows, values.length === 4 ? (values[1] ?? 0) * (values[3] ?? 0) : (values.at(-1) ?? 0)] };
  return { elem, shape: [...rows, (packed.at(-3) ?? 0) * (packed.at(-1) ?? 0)] };
}

/** What a cache that was empty would hold of keys or values that are given apart: [batch, heads, length, size]. */
function presentHeads(node: Node, place: 1 | 2): ResultType {
  const x = fixedOf(node.inputs[place]);
  if (!x || node.inputs[place + 5]) return undefined;
  if (x.shape.length === 4) return x;
  const heads = intAttribute(node, "num_heads", 1);
  const [batch = 0, length = 0, width = 0] = x.shape;
  return x.shape.length === 3 ? { elem: x.elem, shape: [batch, heads, length, width / heads] } : undefined;
}

/** The size of the values, which the weights of all three projections end with. */
function projectedAttention(node: Node, elem: ElementType | undefined): readonly ResultType[] {
  const [x, weights] = node.inputs.slice(0, 2).map(fixedOf);
  if (!x || !weights) return [];
  const size = intsAttribute(node, "qkv_hidden_sizes")?.[2] ?? (weights.shape.at(-1) ?? 0) / 3;
  return [typeOf(elem, withLast(x.shape, size))];
}

function padded({ elem, shape }: FixedType, node: Node): ResultType {
  const pads = intsAttribute(node, "pads") ?? integers(node.inputs[1]);
  const axes = axesOf(node, 3, shape.length) ?? shape.map((_, axis) => axis);
  if (!pads || axes === "unknown") return undefined;
  if (pads.length !== 2 * axes.length) return "misfit";
  const added = (axis: number): number => {
    const at = axes.indexOf(axis);
    return at < 0 ? 0 : (pads[at] ?? 0) + (pads[at + axes.length] ?? 0);
  };
  return { elem, shape: shape.map((dim, axis) => dim + added(axis)) };
}

function range({ inputs }: Node): readonly ResultType[] {
  const elem = inputs[0]?.type?.elem;
  const [start, end, step] = inputs.map((value) => {
    const data = constantOf(value);
    return data && tensorNumbers(data)[0];
  });
  if (start === undefined || end === undefined || !step) return [];
  return [typeOf(elem, [Math.max(0, Math.ceil((end - start) / step))])];
}

function reshaped({ elem, shape }: FixedType, node: Node): ResultType {
  const wanted = integers(node.inputs[1]);
  if (!wanted) return undefined;
  const isKept = (size: number): boolean => size === 0 && intAttribute(node, "allowzero", 0) === 0;
  const sizes = wanted.map((size, axis) => (isKept(size) ? (shape[axis] ?? 0) : size));
  const known = elementCount(sizes.filter((size) => size !== -1));
  const rest = known === 0 ? 0 : elementCount(shape) / known;
  const whole = sizes.map((size) => (size === -1 ? rest : size));
  return elementCount(whole) === elementCount(shape) && Number.isInteger(rest) ? { elem, shape: whole } : "misfit";
}

/** How many sizes of a shape `Shape` gives. */
function sizeOfPart(shape: readonly number[], node: Node): number {
  return shape.slice(intAttribute(node, "start", 0), intAttribute(node, "end", shape.length)).length;
}

/** The norm, and the sum that it is of. */
function skipNorm({ inputs }: Node): readonly ResultType[] {
  const x = fixedOf(inputs[0]);
  return [x, undefined, undefined, x];
}

function sliced({ elem, shape }: FixedType, node: Node): ResultType {
  const [starts, ends] = node.inputs.slice(1, 3).map(integers);
  const axes = axesOf(node, 3, shape.length) ?? starts?.map((_, axis) => axis);
  const steps = node.inputs[4] ? integers(node.inputs[4]) : starts?.map(() => 1);
  if (!starts || !ends || !axes || axes === "unknown" || !steps) return undefined;
  const left = [...shape];
  for (const [i, axis] of axes.entries()) {
    const [size, start, end, step] = [shape[axis], starts[i], ends[i], steps[i]];
    if (size === undefined || start === undefined || end === undefined || !step) return "misfit";
    left[axis] = countBetween(size, start, end, step);
  }
  return { elem, shape: left };
}

/** How many elements a slice takes of an axis. */
function countBetween(size: number, start: number, end: number, step: number): number {
  const [lowest, highest] = step > 0 ? [0, size] : [-1, size - 1];
  const within = (at: number, least: number): number => Math.min(highest, Math.max(least, at < 0 ? at + size : at));
  // A slice with a negative step may start at the first element at the earliest and end just before it.
  const length = within(end, lowest) - within(start, 0);
  return Math.max(0, Math.ceil(length / step));
}

function split(node: Node): readonly ResultType[] {
  const x = fixedOf(node.inputs[0]);
  if (!x) return [];
  const count = node.outputs.length;
  const axis = axisOf(node, 0, x.shape.length);
  const size = x.shape[axis];
  if (size === undefined) return ["misfit"];
  const equal = Math.ceil(size / count);
  const inEqual = node.outputs.map((_, i) => (i < count - 1 ? equal : size - equal * (count - 1)));
  const sizes = intsAttribute(node, "split") ?? (node.inputs[1] ? integers(node.inputs[1]) : inEqual);
  if (!sizes) return [];
  if (sizes.length !== count || sizes.reduce((sum, part) => sum + part, 0) !== size) return node.outputs.map(() => "misfit");
  return sizes.map((part) => ({ elem: x.elem, shape: x.shape.with(axis, part) }));
}

function squeezed({ elem, shape }: FixedType, node: Node): ResultType {
  const axes = axesOf(node, 1, shape.length);
  if (axes === "unknown") return undefined;
  if (axes?.some((axis) => shape[axis] !== 1)) return "misfit";
  return { elem, shape: shape.filter((dim, axis) => (axes ? !axes.includes(axis) : dim !== 1)) };
}

function tiled({ elem, shape }: FixedType, { inputs: [, repeats] }: Node): ResultType {
  const times = integers(repeats);
  if (!times) return undefined;
  return times.length === shape.length ? { elem, shape: shape.map((dim, axis) => dim * (times[axis] ?? 1)) } : "misfit";
}

function transposed({ elem, shape }: FixedType, node: Node): ResultType {
  const perm = intsAttribute(node, "perm") ?? shape.map((_, axis) => shape.length - 1 - axis);
  const isOrder = sameShape(
    perm.toSorted((a, b) => a - b),
    shape.map((_, axis) => axis),
  );
  return isOrder ? { elem, shape: perm.map((axis) => shape[axis] ?? 0) } : "misfit";
}

function unsqueezed({ elem, shape }: FixedType, node: Node): ResultType {
  const given = intsAttribute(node, "axes") ?? integers(node.inputs[1]);
  if (!given) return undefined;
  const axes = given.map((axis) => counted(axis, shape.length + given.length));
  const left = [...shape];
  return { elem, shape: Array.from({ length: shape.length + axes.length }, (_, axis) => (axes.includes(axis) ? 1 : (left.shift() ?? 1))) };
}
