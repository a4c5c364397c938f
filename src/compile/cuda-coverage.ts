/** What a model meets on ONNX Runtime's CUDA provider: nodes without a kernel there, and nodes that make host and device wait for one another. */
import { allNodes } from "../../ir/analysis.js";
import { hasCudaKernel, versionedOperator } from "../../ir/cuda.js";
import { isOfStandardDomain, isOp, type Model, type Node, type Value } from "../../ir/graph.js";

/** A node that is no node of the device, and what there is to know of it. */
export interface OffDevice {
  readonly node: string;
  /** With its domain in front where that is not the standard one: `com.microsoft::Attention`. */
  readonly op: string;
  readonly opset: number;
  /** Of its operands, then of its results. */
  readonly types: readonly string[];
}

export interface CudaCoverage {
  /** Nodes that have a kernel. */
  readonly kernels: number;
  /** Nodes that have none for their opset and types: the runtime computes them on the CPU, between copies, or spells them out. */
  readonly missing: readonly OffDevice[];
  /** Nodes that have one, but need on the host what the device computes. */
  readonly copies: readonly OffDevice[];
}

/** Of the nodes of a model, those of the graphs in them among them. */
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
 * Whether numbers have to come to the host inside the run. Kernels read shapes, axes, bounds and the like there
 * (`InputMemoryType(OrtMemTypeCPUInput, …)` in onnxruntime/core/providers/cuda), which costs nothing where they are constants or
 * inputs of the model. `Shape` and `Size` answer there, so that what follows is computed there; the sizes of what `NonZero` and `Compress` find have to be known there.
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
