/** What the nodes of a branch do to its tokens, as far as lifting has to know. */
import { intsAttribute, isOp, type Node, type Value } from "../graph.js";
import { carriedOperand, factorsOf, isConvolution, isNonlinear, productOf } from "../ops.js";

/** Whether a node is an affine function of the operands that are of the branch. An operator that is not known here is none. */
export function isAffine(node: Node, isOfBranch: (value: Value | undefined) => boolean): boolean {
  if (isNonlinear(node)) return false;
  if (carriedOperand(node) || isOp(node, "Add", "Sub", "Neg", "Sum", "Mean", "ReduceMean", "ReduceSum", ...PARTS)) return true;
  const [first, ...others] = node.inputs;
  if (isOp(node, "Mul")) return !(isOfBranch(first) && others.some(isOfBranch));
  return isOp(node, "Div") && !others.some(isOfBranch);
}

/** Operators that take or repeat parts of a value. */
const PARTS = [
  "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND", "Expand", "Tile", "Pad", "DepthToSpace", "SpaceToDepth",
] as const; // prettier-ignore

/** Whether a node chooses among scores. */
export function isChoice(node: Node): boolean {
  return isOp(node, "TopK", "OneHot", "ArgMax", "ArgMin", "Hardmax", "NonZero");
}

/** Whether a node is a convolution over neighbouring tokens. */
export function mixesNeighbours(node: Node): boolean {
  const [, kernel] = factorsOf(node) ?? [];
  const sizes = intsAttribute(node, "kernel_shape") ?? kernel?.type?.shape?.slice(2) ?? [];
  return isConvolution(node) && sizes.some((size) => size !== 1);
}

/** Whether a node changes the number of tokens as a U-Net does: by pooling, interpolation or a convolution with strides. */
export function changesResolution(node: Node): boolean {
  if (isOp(node, "Resize", "Upsample", "MaxPool", "AveragePool") || productOf(node)?.form === "spread") return true;
  return isConvolution(node) && (intsAttribute(node, "strides") ?? []).some((stride) => stride > 1);
}
