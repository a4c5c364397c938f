/** Small sets of operators that share a property a pass relies on. Not an operator database. */
import { isOp, type Node } from "./graph.js";

const RANDOM = ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"] as const;
const CONTROL_FLOW = ["If", "Loop", "Scan"] as const;

/** Draws random numbers. */
export function isRandom(node: Node): boolean {
  return isOp(node, ...RANDOM);
}

/** Two runs may differ, or nobody here knows, as the operator is of another domain: never folded, never shared. */
export function isNondeterministic(node: Node): boolean {
  return isRandom(node) || isOp(node, "Dropout") || !isOp(node, node.opType);
}

/** Holds a subgraph: never looked into. */
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

/** A nonlinearity between two linear maps: what makes a feed-forward network of them. */
export function isActivation(node: Node): boolean {
  return (
    isOp(node, "Relu", "LeakyRelu", "Elu", "Gelu", "Sigmoid", "Tanh", "Erf", "Softplus", "Swish", "Mish", "HardSwish") ||
    (node.domain === "com.microsoft" && ["Gelu", "FastGelu", "BiasGelu", "QuickGelu"].includes(node.opType))
  );
}

/** Moves or retypes elements and computes nothing. */
export function isDataMovement(node: Node): boolean {
  return isOp(node, "Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten");
}
