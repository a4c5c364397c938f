/** Small sets of operators that share a property a pass relies on. Not an operator database. */
import { isOfStandardDomain, isOp, isRuntimeOp, type Node, type Value } from "./graph.js";
import type { StandardOperator } from "./operators.js";
import { isFloatType } from "./types.js";

/**
 * The bit set of the sources that a value's numbers depend on.
 * Reading a shape is no dependence, as shapes are fixed once a model is bound.
 */
export type Dependence = (value: Value | undefined) => number;

const RANDOM = ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"] as const;
const CONTROL_FLOW = ["If", "Loop", "Scan"] as const;

/**
 * Whether a node is in this version of the standard operator set.
 * ONNX Runtime had one norm in the standard domain before the standard did.
 */
export function isStandard(node: Node, opset: number): boolean {
  if (isRuntimeOp(node, "SimplifiedLayerNormalization")) return false;
  return isOp(node, "LayerNormalization") ? opset >= 17 : isOfStandardDomain(node);
}

/** Draws random numbers. */
export function isRandom(node: Node): boolean {
  return isOp(node, ...RANDOM);
}

/** Two runs of it may differ; this is assumed of every operator of another domain. Such nodes are never folded and never shared. */
export function isNondeterministic(node: Node): boolean {
  return isRandom(node) || isOp(node, "Dropout") || !isOfStandardDomain(node);
}

/** Holds a subgraph: never folded, never shared. */
export function isControlFlow(node: Node): boolean {
  return isOp(node, ...CONTROL_FLOW);
}

/** Its operands may change places. */
export function isCommutative(node: Node): boolean {
  return isOp(node, "Add", "Mul", "Max", "Min", "And", "Or", "Xor", "Equal");
}

/** Reads the shape of its operand, never the numbers. */
export function isShapeOnly(node: Node): boolean {
  return isOp(node, "Shape", "Size");
}

/** Elementwise on operands that broadcast to one another. */
export function isElementwise(node: Node): boolean {
  return isOp(
    node,
    "Add", "Sub", "Mul", "Div", "Sum", "Pow", "Max", "Min", "Where", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor", "Not",
    "Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Tanh", "Sigmoid", "Erf", "Relu", "LeakyRelu", "Elu", "Gelu", "Softplus", "Swish", "Mish",
    "HardSwish", "Clip", "Cast", "CastLike", "Identity", "Floor", "Ceil", "Round", "Sign",
  ); // prettier-ignore
}

/** A nonlinearity, as it stands between the linear layers of a feed-forward network. */
export function isActivation(node: Node): boolean {
  return (
    isOp(node, "Relu", "LeakyRelu", "Elu", "Gelu", "Sigmoid", "Tanh", "Erf", "Softplus", "Swish", "Mish", "HardSwish") ||
    isRuntimeOp(node, "Gelu", "FastGelu", "BiasGelu", "QuickGelu")
  );
}

/** Moves or retypes elements and computes nothing. */
export function isDataMovement(node: Node): boolean {
  return isOp(node, "Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten");
}

/** A product of matrices. */
export function isProduct(node: Node): boolean {
  return isOp(node, "MatMul", "Einsum") || isRuntimeOp(node, "FusedMatMul");
}

/** A map of activations by weights, which depend on no input. */
export function isLinear(node: Node, dependsOn: Dependence): boolean {
  if (isOp(node, "Conv", "Gemm") || isRuntimeOp(node, "FusedGemm", "FusedConv", "MatMulNBits")) return true;
  return isProduct(node) && node.inputs.length > 1 && node.inputs.slice(0, 2).some((input) => dependsOn(input) === 0);
}

/** A product of two activations (scores, or scores times values), or all of attention in one node. */
export function isAttentionCore(node: Node, dependsOn: Dependence): boolean {
  if (isOp(node, "Attention") || (node.domain === "com.microsoft" && /Attention$/.test(node.opType))) return true;
  return isProduct(node) && node.inputs.length > 1 && node.inputs.slice(0, 2).every((input) => dependsOn(input) !== 0);
}

/** What an attention core attends to: keys and values, or both operands of a plain product. */
export function attended(node: Node): readonly (Value | undefined)[] {
  return isProduct(node) ? node.inputs.slice(0, 2) : node.inputs.slice(1, 3);
}

/** A norm in one node, whichever; its first operand is what it normalises. */
export function isNorm(node: Node): boolean {
  return (
    isOp(node, "LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization") ||
    isRuntimeOp(node, "SimplifiedLayerNormalization")
  );
}

/** Reduces along axes. */
export function isReduction(node: Node): boolean {
  return isOp(node, "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin");
}

/**
 * Operators that are accurate in half precision:
 * products accumulate in float, norms keep their statistics in float (`stash_type`), the others round once.
 */
const HALF_SAFE: readonly StandardOperator[] = [
  "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Attention", "RotaryEmbedding", "LayerNormalization", "RMSNormalization",
  "Add", "Sub", "Mul", "Sum", "Neg", "Abs", "Max", "Min", "Where", "Clip",
  "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Erf", "Gelu", "Swish", "HardSwish",
  "Identity", "Cast", "CastLike", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Split", "Slice", "Expand", "Tile", "Pad",
  "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "DepthToSpace", "SpaceToDepth",
]; // prettier-ignore

/** An operator for which half precision is enough, for all operands in the range of the type. */
export function isHalfSafe(node: Node): boolean {
  // Dividing by a constant is a product. Other divisors may be close to 0.
  if (isOp(node, "Div")) return node.inputs[1]?.data !== undefined;
  // A norm's further outputs are float.
  if (isNorm(node) && node.outputs.filter(({ name }) => name !== "").length > 1) return false;
  // Only between floats: an integer may be beyond the range of the half type.
  if (isOp(node, "Cast", "CastLike")) return isFloatType(node.inputs[0]?.type?.elem);
  return isOp(node, ...HALF_SAFE);
}

/** An operator whose float operands and results must all have the same type, whichever it is. */
export function isOfOneFloatType(node: Node): boolean {
  return isOp(node, ...HALF_SAFE, "Softmax", "LogSoftmax", "CumSum") || isElementwise(node) || isReduction(node) || isNorm(node);
}
