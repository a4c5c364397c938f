/**
 * What is known of operators: one table of properties by domain and name, and the questions that it answers.
 * Meanings: onnx, docs/Operators.md; onnxruntime, docs/ContribOperators.md.
 */
import { type Graph, intAttribute, isOfStandardDomain, isOp, isRuntimeOp, type Node, type Value } from "./graph.js";
import { isStandardOperator, type RuntimeOperator, type StandardOperator } from "./operators.js";
import { ELEMENT_TYPES, isFloatType } from "./types.js";

/**
 * The bit set of the sources that a value's numbers depend on.
 * Reading a shape is no dependence, as shapes are fixed once a model is bound.
 */
export type Dependence = (value: Value | undefined) => number;

/** An operator that multiplies two operands and sums over what they share. */
export interface Product {
  /** The operands by place. */
  readonly left: number;
  readonly right: number;
  /** `right` where only that one can be a weight; `either` where both may be activations. */
  readonly weight: "either" | "right";
  /**
   * What each element of the result sums over: the rows of the left operand, a kernel ([made, read, …sizes]), what an equation says. In
   * `spread` a kernel is applied to each element of the left operand instead; `recurrent` and `experts` are several layers in one node.
   */
  readonly form: "rows" | "kernel" | "spread" | "equation" | "recurrent" | "experts";
  /** The weights of all layers, where there are several. */
  readonly layers?: readonly number[];
}

/** All of attention in one node. The operands by place; keys and values may be packed with those before them. */
export interface Attention {
  readonly query: number;
  readonly keys?: number;
  readonly values?: number;
  /** Weights by which the node itself makes query, keys and values of its first operand. */
  readonly projections?: readonly number[];
  /** Where sequences are packed without padding: the operand of shape [sequences, longest]. */
  readonly offsets?: number;
  /** Keeps a state of keys times values instead of scores. */
  readonly isRecurrent?: true;
}

/** The sum that a norm makes of its operands before it normalises. */
export interface Sum {
  readonly operands: readonly number[];
  /** The place of the output that is the sum itself, which may be left out. */
  readonly output: number;
}

interface Properties {
  /** Computes each element of its results from the elements at that place of operands that broadcast to one another. */
  readonly elementwise?: true;
  /** Is no affine function of its operands, as long as all of them but one are fixed. */
  readonly nonlinear?: true;
  /** A nonlinearity as it stands between linear layers. */
  readonly activation?: true;
  /** Moves or retypes elements and computes nothing. */
  readonly movement?: true;
  /** The result is the first operand in another shape, order, type, precision or range. */
  readonly carries?: true;
  /** Rounds to a grid, or returns from there. */
  readonly requantises?: true;
  readonly product?: Product;
  readonly attention?: Attention;
  /** Normalises its first operand. */
  readonly norm?: true;
  /** Normalises a sum of operands. */
  readonly sum?: Sum;
  /** Treats each vector of channels (the last axis) by itself, if its axis is not another one. */
  readonly channels?: true;
  readonly reduction?: true;
  readonly random?: true;
  readonly controlFlow?: true;
  readonly commutative?: true;
  readonly shapeOnly?: true;
  /** Accurate in half precision: products accumulate in float, norms keep their statistics in float, the others round once. */
  readonly halfSafe?: true;
  /** All float operands and results have the same type, whichever it is. */
  readonly oneFloatType?: true;
}

/** Operators that share properties. An operator has the properties of all rows that it is in. */
interface Row {
  readonly has: Properties;
  readonly standard?: readonly StandardOperator[];
  readonly runtime?: readonly RuntimeOperator[];
  /** Of further domains. */
  readonly others?: Readonly<Record<string, readonly string[]>>;
}

const rows = (left: number, right: number, weight: Product["weight"] = "either"): Properties => ({
  product: { left, right, weight, form: "rows" },
});
const kernel = (left: number, right: number): Properties => ({ product: { left, right, weight: "right", form: "kernel" } });
const SPREAD: Properties = { product: { left: 0, right: 1, weight: "right", form: "spread" } };
const RECURRENT: Properties = { product: { left: 0, right: 1, weight: "right", form: "recurrent", layers: [1, 2] } };
const experts = (...layers: readonly [number, number, number]): Properties => ({
  product: { left: 0, right: layers[0], weight: "right", form: "experts", layers },
  activation: true,
  nonlinear: true,
});
const PROJECTED: Properties = { attention: { query: 0, projections: [1] } };
const SEPARATE: Properties = { attention: { query: 0, keys: 1, values: 2 } };

/** The operators of the runtime's layouts, in domains of their own. */
const LAYOUTS = ["com.microsoft.nchwc", "com.ms.internal.nhwc"] as const;
const inLayouts = (...names: readonly string[]): Readonly<Record<string, readonly string[]>> =>
  Object.fromEntries(LAYOUTS.map((domain) => [domain, names]));

const TABLE: readonly Row[] = [
  {
    has: { elementwise: true, oneFloatType: true },
    standard: [
      "Add", "Sub", "Mul", "Div", "Sum", "Mean", "Neg", "Where", "And", "Or", "Xor", "Not", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
      "BitwiseXor", "Cast", "CastLike", "Identity",
    ],
    runtime: ["BiasAdd"],
  },
  {
    has: { elementwise: true, nonlinear: true, oneFloatType: true },
    standard: [
      "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Clip", "Cos", "Cosh", "Equal", "Exp", "Floor", "Greater", "GreaterOrEqual",
      "IsInf", "IsNaN", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Pow", "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Tan",
    ],
  },
  {
    has: { elementwise: true, nonlinear: true, activation: true, oneFloatType: true },
    standard: [
      "Celu", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Shrink", "Sigmoid", "Softplus",
      "Softsign", "Swish", "Tanh", "ThresholdedRelu",
    ],
    runtime: ["BiasGelu", "FastGelu", "Gelu", "QuickGelu", "ScaledSiLU"],
  },
  // Integers with scales in float.
  { has: { elementwise: true }, runtime: ["MulInteger", "QLinearAdd", "QLinearMul", "QLinearWhere"] },
  { has: { elementwise: true, nonlinear: true, activation: true }, runtime: ["QLinearLeakyRelu", "QLinearSigmoid", "QOrderedGelu"] },
  // Halves of the channels gate the others.
  { has: { nonlinear: true, activation: true, channels: true }, runtime: ["BiasSplitGelu", "SwiGLU"] },
  { has: { nonlinear: true, channels: true, oneFloatType: true }, standard: ["LogSoftmax", "Softmax"] },
  { has: { nonlinear: true, channels: true }, standard: ["Hardmax"], runtime: ["QLinearSoftmax"] },
  { has: { nonlinear: true }, runtime: ["BiasSoftmax"] },
  {
    has: { movement: true, carries: true },
    standard: ["Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"],
    runtime: ["ExpandDims"],
    others: { "com.microsoft.nchwc": ["ReorderInput", "ReorderOutput"] },
  },
  { has: { carries: true }, standard: ["CastLike", "Clip", "Dropout"] },
  {
    has: { carries: true, requantises: true },
    standard: ["DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"],
    runtime: ["DequantizeBFP", "DequantizeLinear", "DequantizeWithOrder", "QuantizeBFP", "QuantizeLinear", "QuantizeWithOrder"],
    // TensorRT's own spelling, which its quantiser writes.
    others: {
      trt: [
        "TRT_FP8DequantizeLinear", "TRT_FP8QuantizeLinear", "TRT_INT4DequantizeLinear", "TRT_INT4QuantizeLinear", "TRT_MXFP8DequantizeLinear",
        "TRT_MXFP8DynamicQuantize",
      ],
    },
  },
  {
    has: rows(0, 1),
    standard: ["Gemm", "MatMul", "MatMulInteger"],
    runtime: [
      "DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "FusedMatMulActivation", "GemmFastGelu", "GemmFloat8", "MatMulInteger16",
      "MatMulIntegerToFloat", "SparseToDenseMatMul", "TransposeMatMul",
    ],
  },
  { has: rows(0, 3), standard: ["QLinearMatMul"], runtime: ["QGemm"] },
  { has: rows(0, 2), runtime: ["QOrderedMatMul"] },
  {
    has: rows(0, 1, "right"),
    runtime: ["MatMulBlockQuantizedFp4Weight", "MatMulBlockQuantizedFp8Weight", "MatMulBnb4", "MatMulFpQ4", "MatMulNBits"],
  },
  { has: { product: { left: 0, right: 1, weight: "either", form: "equation" } }, standard: ["Einsum"] },
  {
    has: kernel(0, 1),
    standard: ["Conv", "ConvInteger", "DeformConv"],
    runtime: ["FusedConv", "NhwcConv", "NhwcFusedConv"],
    others: inLayouts("Conv"),
  },
  { has: kernel(0, 3), standard: ["QLinearConv"], runtime: ["QLinearConv"], others: inLayouts("QLinearConv") },
  { has: SPREAD, standard: ["ConvTranspose"], runtime: ["ConvTransposeWithDynamicPads"], others: inLayouts("ConvTranspose") },
  { has: RECURRENT, standard: ["GRU", "LSTM", "RNN"], runtime: ["DynamicQuantizeLSTM"] },
  { has: experts(2, 4, 6), runtime: ["MoE"] },
  { has: experts(2, 5, 8), runtime: ["QMoE"] },
  { has: { activation: true, nonlinear: true }, runtime: ["FusedMatMulActivation", "GemmFastGelu"] },
  {
    has: SEPARATE,
    standard: ["Attention"],
    runtime: ["DecoderMaskedMultiHeadAttention", "GroupQueryAttention", "MultiHeadAttention", "PagedAttention", "SparseAttention"],
  },
  { has: PROJECTED, runtime: ["Attention", "DecoderMaskedSelfAttention", "QAttention"] },
  { has: { attention: { query: 0, projections: [1], offsets: 3 } }, runtime: ["PackedAttention"] },
  { has: { attention: { query: 0, keys: 1, values: 2, offsets: 4 } }, runtime: ["PackedMultiHeadAttention"] },
  { has: { attention: { query: 0, projections: [1, 4] } }, runtime: ["LongformerAttention"] },
  { has: { attention: { query: 0, projections: [5, 6, 7] } }, runtime: ["QOrderedAttention"] },
  { has: { attention: { query: 0, keys: 1, values: 2, isRecurrent: true } }, runtime: ["GatedDeltaNet", "LinearAttention"] },
  {
    has: { norm: true, channels: true, oneFloatType: true },
    standard: ["LayerNormalization", "LpNormalization", "RMSNormalization"],
    runtime: ["SimplifiedLayerNormalization"],
  },
  {
    has: { norm: true, oneFloatType: true },
    standard: ["BatchNormalization", "GroupNormalization", "InstanceNormalization", "MeanVarianceNormalization"],
  },
  { has: { norm: true }, runtime: ["GroupNorm"] },
  { has: { norm: true, channels: true }, runtime: ["QOrderedLayerNormalization"] },
  { has: { sum: { operands: [0, 1, 4], output: 3 }, channels: true }, runtime: ["SkipLayerNormalization"] },
  { has: { sum: { operands: [0, 1, 3], output: 3 }, channels: true }, runtime: ["SkipSimplifiedLayerNormalization"] },
  { has: { sum: { operands: [0, 3, 4], output: 1 } }, runtime: ["SkipGroupNorm"] },
  // Rotary embeddings turn pairs of channels.
  { has: { channels: true }, standard: ["RotaryEmbedding"], runtime: ["MRotaryEmbedding", "RotaryEmbedding"] },
  {
    has: { reduction: true, oneFloatType: true },
    standard: ["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"],
  },
  { has: { reduction: true }, runtime: ["QLinearReduceMean", "ReduceSumInteger"] },
  { has: { random: true }, standard: ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"] },
  { has: { controlFlow: true }, standard: ["If", "Loop", "Scan"] },
  { has: { commutative: true }, standard: ["Add", "And", "Equal", "Max", "Min", "Mul", "Or", "Xor"] },
  { has: { shapeOnly: true }, standard: ["Shape", "Size"] },
  {
    has: { halfSafe: true, oneFloatType: true },
    standard: [
      "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Attention", "RotaryEmbedding", "LayerNormalization", "RMSNormalization",
      "Add", "Sub", "Mul", "Sum", "Neg", "Abs", "Max", "Min", "Where", "Clip",
      "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Erf", "Gelu", "Swish", "HardSwish",
      "Identity", "Cast", "CastLike", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Split", "Slice", "Expand", "Tile", "Pad",
      "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "DepthToSpace", "SpaceToDepth",
    ],
  },
  { has: { oneFloatType: true }, standard: ["CumSum"] },
  // Nothing is asked of these but that they are known.
  {
    has: {},
    runtime: [
      "ComplexMul", "ComplexMulConj", "CropAndResize", "EmbedLayerNormalization", "GatherBlockQuantized", "GatherND", "GridSample", "Inverse", "Irfft",
      "NhwcMaxPool", "Pad", "QEmbedLayerNormalization", "QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "Range",
      "RelativePositionBias", "RemovePadding", "RestorePadding", "Rfft", "Trilu", "Unique",
    ],
    others: inLayouts("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Resize", "Upsample"),
  },
]; // prettier-ignore

const NONE: Properties = {};

/** By domain (the standard's is ""), then by name. */
const OPERATORS = new Map<string, Map<string, Properties>>();
for (const { has, standard, runtime, others } of TABLE) {
  for (const [domain, names] of Object.entries({ "": standard ?? [], "com.microsoft": runtime ?? [], ...others })) {
    const operators = OPERATORS.get(domain) ?? new Map<string, Properties>();
    OPERATORS.set(domain, operators);
    for (const name of names) operators.set(name, { ...operators.get(name), ...has });
  }
}

function propertiesOf(node: Node): Properties {
  return entryOf(node) ?? NONE;
}

function entryOf(node: Node): Properties | undefined {
  // ONNX Runtime had one norm in the standard domain before the standard did.
  const isOfRuntime = isRuntimeOp(node, "SimplifiedLayerNormalization");
  const domain = isOfRuntime ? "com.microsoft" : isOfStandardDomain(node) ? "" : node.domain;
  return OPERATORS.get(domain)?.get(node.opType);
}

/** Whether a domain is one of ONNX Runtime's own. */
export function isOfRuntimeDomain(domain: string): boolean {
  return domain === "com.microsoft" || LAYOUTS.some((layout) => layout === domain);
}

/** Versions of operator sets with those of the runtime's own that a graph has nodes of: it needs no import, and its optimisers write none. */
export function withRuntimeDomains(opsets: ReadonlyMap<string, number>, { nodes }: Graph): ReadonlyMap<string, number> {
  const own = nodes.flatMap(({ domain }) => (isOfRuntimeDomain(domain) && !opsets.has(domain) ? [[domain, 1] as const] : []));
  return new Map([...opsets, ...own]);
}

/** Whether an operator is known: what lifting and costs say of a graph is only as good as this is true of its nodes. */
export function isKnown(node: Node): boolean {
  return entryOf(node) !== undefined || (isOfStandardDomain(node) && isStandardOperator(node.opType));
}

/** Whether a node is in this version of the standard operator set. */
export function isStandard(node: Node, opset: number): boolean {
  if (isRuntimeOp(node, "SimplifiedLayerNormalization")) return false;
  return isOp(node, "LayerNormalization") ? opset >= 17 : isOfStandardDomain(node);
}

/** Draws random numbers. */
export function isRandom(node: Node): boolean {
  return propertiesOf(node).random ?? false;
}

/** Two runs of it may differ; this is assumed of every operator of another domain. Such nodes are never folded and never shared. */
export function isNondeterministic(node: Node): boolean {
  return isRandom(node) || isOp(node, "Dropout") || !isOfStandardDomain(node);
}

/** Holds a subgraph: never folded, never shared. */
export function isControlFlow(node: Node): boolean {
  return propertiesOf(node).controlFlow ?? false;
}

/** Its operands may change places. */
export function isCommutative(node: Node): boolean {
  return propertiesOf(node).commutative ?? false;
}

/** Reads the shape of its operand, never the numbers. */
export function isShapeOnly(node: Node): boolean {
  return propertiesOf(node).shapeOnly ?? false;
}

/** Elementwise on operands that broadcast to one another. */
export function isElementwise(node: Node): boolean {
  return propertiesOf(node).elementwise ?? false;
}

/** A nonlinearity, as it stands between the linear layers of a feed-forward network; products that have one inside count. */
export function isActivation(node: Node): boolean {
  return (propertiesOf(node).activation ?? false) || hasActivation(node);
}

/** No affine function of its operands, as long as all but one are fixed: every curved elementwise function, and the softmaxes. */
export function isNonlinear(node: Node): boolean {
  return (propertiesOf(node).nonlinear ?? false) || hasActivation(node);
}

/** A product that names a function for its result. */
function hasActivation(node: Node): boolean {
  const name = node.attributes.get("activation");
  return productOf(node) !== undefined && name?.kind === "string" && name.value !== "" && name.value !== "none";
}

/** Moves or retypes elements and computes nothing. */
export function isDataMovement(node: Node): boolean {
  return propertiesOf(node).movement ?? false;
}

/** Changes the precision of its first operand: quantises it, returns from there, or casts it. */
export function isRequantisation(node: Node): boolean {
  return (propertiesOf(node).requantises ?? false) || isOp(node, "Cast", "CastLike");
}

/**
 * Unpacks a matrix of weights of a byte or less: what it makes takes several times their bytes, so it is made again for each reader of a
 * run rather than kept from one step to another, and never becomes data.
 */
export function unpacksWeights(node: Node): boolean {
  const [packed] = node.inputs;
  if (!packed?.data || packed.data.elem === "bool" || ELEMENT_TYPES[packed.data.elem].bits > 8) return false;
  if (packed.data.shape.filter((dim) => dim > 1).length < 2) return false;
  return node.opType === "DequantizeLinear" || (isOp(node, "Cast", "CastLike") && isFloatType(node.outputs[0]?.type?.elem));
}

/** The operand of which a node's first result is the same value, moved, retyped, quantised, dequantised or clamped. */
export function carriedOperand(node: Node): Value | undefined {
  return propertiesOf(node).carries ? node.inputs[0] : undefined;
}

/** Where a product has its operands; undefined for other nodes. */
export function productOf(node: Node): Product | undefined {
  return propertiesOf(node).product;
}

/** Both operands of a product, by places that depend on the operator; undefined for other nodes. */
export function factorsOf(node: Node): readonly [Value, Value] | undefined {
  const product = productOf(node);
  const [left, right] = product ? [node.inputs[product.left], node.inputs[product.right]] : [];
  return left && right && [left, right];
}

/** A product with a kernel, in whichever precision. */
export function isConvolution(node: Node): boolean {
  return productOf(node)?.form === "kernel";
}

/** A product of which both operands may be activations. */
export function isProduct(node: Node): boolean {
  return productOf(node)?.weight === "either";
}

/** A map of activations by weights, which depend on no input. */
export function isLinear(node: Node, dependsOn: Dependence): boolean {
  if (productOf(node)?.weight === "right") return true;
  return factorsOf(node)?.some((factor) => dependsOn(factor) === 0) ?? false;
}

/** Where attention in one node has its operands; undefined for other nodes. */
export function attentionOf(node: Node): Attention | undefined {
  return propertiesOf(node).attention;
}

/** A product of two activations (scores, or scores times values), or all of attention in one node. */
export function isAttentionCore(node: Node, dependsOn: Dependence): boolean {
  if (attentionOf(node)) return true;
  return isProduct(node) && (factorsOf(node)?.every((factor) => dependsOn(factor) !== 0) ?? false);
}

/** What an attention core attends to: keys and values, the operand that they are packed in, or both operands of a plain product. */
export function attended(node: Node): readonly (Value | undefined)[] {
  const attention = attentionOf(node);
  if (!attention) return factorsOf(node) ?? [];
  const apart = [attention.keys, attention.values].flatMap((place) => (place === undefined ? [] : (node.inputs[place] ?? [])));
  return apart.length > 0 ? apart : [node.inputs[attention.query]];
}

/** A norm in one node, whichever; its first operand is what it normalises. */
export function isNorm(node: Node): boolean {
  return propertiesOf(node).norm ?? false;
}

/** The values that a norm adds up before it normalises them, and the output that is their sum, if it has one; else undefined. */
export function addedFirst(node: Node): { readonly operands: readonly Value[]; readonly sum: Value | undefined } | undefined {
  const { sum } = propertiesOf(node);
  if (!sum) return undefined;
  const output = node.outputs[sum.output];
  return { operands: sum.operands.flatMap((place) => node.inputs[place] ?? []), sum: output?.name === "" ? undefined : output };
}

/** Reduces along axes. */
export function isReduction(node: Node): boolean {
  return propertiesOf(node).reduction ?? false;
}

/**
 * Whether each vector of channels, along the last axis, is treated by itself, or elements are: by elementwise operators, norms, softmaxes
 * and rotary embeddings of that axis, changes of precision, and products of rows by weights. Moves of data are not asked about.
 */
export function isPerToken(node: Node, dependsOn: Dependence): boolean {
  const { elementwise, channels, requantises, product } = propertiesOf(node);
  if (elementwise || requantises) return true;
  if (channels) return isOfLastAxis(node);
  if (product?.form !== "rows" && product?.form !== "experts") return false;
  const isTurned = intAttribute(node, "transA", 0) !== 0 || intAttribute(node, "transBatchA", 0) !== 0;
  return !isTurned && isLinear(node, dependsOn) && (product.weight === "right" || dependsOn(node.inputs[product.right]) === 0);
}

function isOfLastAxis(node: Node): boolean {
  const axis = intAttribute(node, "axis", -1);
  return axis === -1 || axis + 1 === node.inputs[0]?.type?.shape?.length;
}

/** An operator for which half precision is enough, for all operands in the range of the type. */
export function isHalfSafe(node: Node): boolean {
  // Dividing by a constant is a product. Other divisors may be close to 0.
  if (isOp(node, "Div")) return node.inputs[1]?.data !== undefined;
  // A norm's further outputs are float.
  if (isNorm(node) && node.outputs.filter(({ name }) => name !== "").length > 1) return false;
  // Only between floats: an integer may be beyond the range of the half type.
  if (isOp(node, "Cast", "CastLike")) return isFloatType(node.inputs[0]?.type?.elem);
  return propertiesOf(node).halfSafe ?? false;
}

/** An operator whose float operands and results must all have the same type, whichever it is. */
export function isOfOneFloatType(node: Node): boolean {
  return propertiesOf(node).oneFloatType ?? false;
}
