/** How a model fits ONNX Runtime's CUDA provider: nodes without a kernel, and nodes that make host and device wait for each other. */
import { allNodes } from "../../ir/analysis.js";
import { hasCudaKernel, versionedOperator } from "../../ir/cuda.js";
import { isOfStandardDomain, isOp, type Model, type Node, type Value } from "../../ir/graph.js";

/** A node that does not run on the device alone. */
export interface OffDevice {
  readonly node: string;
  /** With its domain in front where that is not the standard one: `com.microsoft::Attention`. */
  readonly op: string;
  readonly opset: number;
  /** The types of its operands, then of its results. */
  readonly types: readonly string[];
}

export interface CudaCoverage {
  /** The number of nodes with a kernel. */
  readonly kernels: number;
  /** Nodes without a kernel for their opset and types. The runtime computes them on the CPU, with copies, or decomposes them. */
  readonly missing: readonly OffDevice[];
  /** Nodes with a kernel that needs values on the host which the device computes. */
  readonly copies: readonly OffDevice[];
}

/** The coverage of all nodes of a model, including those of subgraphs. */
export function cudaCoverage({ graph, opsets }: Model): CudaCoverage {
  const nodes = allNodes(graph);
  const missing: OffDevice[] = [];
  const copies: OffDevice[] = [];
  for (const node of nodes) {
    const list = !hasCudaKernel(node, opsets) ? missing : waitsForHost(node) ? copies : undefined;
    const types = [...node.inputs, ...node.outputs].flatMap((value) => value?.type?.elem ?? []);
    list?.push({ node: node.name, ...versionedOperator(node, opsets), types });
  }
  return { kernels: nodes.length - missing.length, missing, copies };
}

/**
 * Whether numbers must be copied to the host during the run. Kernels read shapes, axes, bounds and the like on the host
 * (`InputMemoryType(OrtMemTypeCPUInput, …)` in onnxruntime/core/providers/cuda). That costs nothing if they are constants or inputs of
 * the model. `Shape` and `Size` put their result on the host, so their readers run there. `NonZero` and `Compress` need the size of
 * their result on the host.
 */
function waitsForHost(node: Node): boolean {
  if (isOp(node, "Shape", "Size", "NonZero", "Compress")) return true;
  return hostOperands(node).some((value) => value?.producer !== undefined);
}

function hostOperands(node: Node): readonly (Value | undefined)[] {
  if (isOp(node, "Range", "ConstantOfShape", "If", "Loop")) return node.inputs;
  const afterFirst =
    isOp(node, "Reshape", "Expand", "Slice", "Split", "Squeeze", "Unsqueeze", "Tile", "Pad", "Resize", "Clip", "TopK", "CumSum", "Trilu", "OneHot", "Dropout") || // prettier-ignore
    (isOfStandardDomain(node) && node.opType.startsWith("Reduce"));
  return afterFirst ? node.inputs.slice(1) : [];
}
