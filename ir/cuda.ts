/** Which nodes have a kernel on ONNX Runtime's CUDA provider. */
import { CUDA_KERNELS, type Kernel } from "./cuda-kernels.js";
import { isOfStandardDomain, type Model, type Node, type Value } from "./graph.js";
import type { ElementType } from "./types.js";

/**
 * The operator of a node, with its domain in front where that is not the standard one (`com.microsoft::Attention`),
 * and the opset version of that domain.
 */
export function versionedOperator(node: Node, opsets: Model["opsets"]): { readonly op: string; readonly opset: number } {
  const { domain, opType } = node;
  if (isOfStandardDomain(node)) return { op: opType, opset: opsets.get("") ?? opsets.get("ai.onnx") ?? 0 };
  return { op: `${domain}::${opType}`, opset: opsets.get(domain) ?? 0 };
}

/**
 * Whether there is a kernel for a node with these element types; an unknown type fits any. Attributes are not checked, though a kernel
 * may refuse a node for them.
 */
export function hasCudaKernel(
  node: Node,
  opsets: Model["opsets"],
  elemOf: (value: Value) => ElementType | undefined = ({ type }) => type?.elem,
): boolean {
  const { op, opset } = versionedOperator(node, opsets);
  const found = CUDA_KERNELS.get(op);
  const version = found?.versions.findLast((since) => since <= opset);
  if (!found || version === undefined) return false;
  const kernel = found.kernels.find(({ since: [first, last] }) => first <= version && version <= (last ?? first));
  return kernel !== undefined && takes(kernel, node, elemOf);
}

function takes({ inputs, outputs, types }: Kernel, node: Node, elemOf: (value: Value) => ElementType | undefined): boolean {
  const fits = (variables: readonly string[], values: readonly (Value | undefined)[]): boolean =>
    values.every((value, i) => {
      const allowed = types[variables[i] ?? variables.at(-1) ?? ""];
      const elem = value && elemOf(value);
      return allowed === undefined || elem === undefined || allowed.split(" ").includes(elem);
    });
  return fits(inputs, node.inputs) && fits(outputs, node.outputs);
}
