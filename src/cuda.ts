/** What a model meets on ONNX Runtime's CUDA provider: nodes without a kernel there, and nodes that make host and device wait for one another. */
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { isOp, type Model, type Node, type Value } from "../ir/graph.js";
import { parseWith } from "../schedules/index.js";
import { readJson } from "./files.js";

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

const typesSchema = z.string().transform((types) => new Set(types.split(" ")));

const kernelSchema = z.strictObject({
  /** Versions of the operator's schema, the last one included. Without a last one it is the first alone: `VerifyVersion` in kernel_registry.cc. */
  since: z.tuple([z.int(), z.int().nullable()]),
  /** Type variables by position, empty where any type will do; what comes after the last is as the last. */
  inputs: z.array(z.string()),
  outputs: z.array(z.string()),
  types: z.record(z.string(), typesSchema),
});
type Kernel = z.infer<typeof kernelSchema>;

/** `versions`: the opsets that brought a new schema of the operator. */
const operatorSchema = z.strictObject({ versions: z.array(z.int()), kernels: z.array(kernelSchema) });

const tableSchema = z.strictObject({ source: z.string(), operators: z.record(z.string(), operatorSchema) });

const FILE = fileURLToPath(new URL("cuda-kernels.json", import.meta.url));

/** Reads the graph alone: a kernel may still refuse attributes, which the table does not speak of. */
export function cudaCoverage({ graph, opsets }: Model): CudaCoverage {
  const { operators } = parseWith(tableSchema, readJson(FILE), FILE);
  const missing: OffDevice[] = [];
  const copies: OffDevice[] = [];
  for (const node of graph.nodes) {
    const standard = isOp(node, node.opType);
    const op = standard ? node.opType : `${node.domain}::${node.opType}`;
    const opset = (standard ? (opsets.get("") ?? opsets.get("ai.onnx")) : opsets.get(node.domain)) ?? 0;
    const found = operators[op];
    const version = found?.versions.findLast((since) => since <= opset);
    const kernel = found?.kernels.find(
      ({ since: [first, last] }) => version !== undefined && first <= version && version <= (last ?? first),
    );
    const list = !kernel || !takes(kernel, node) ? missing : waitsForHost(node) ? copies : undefined;
    list?.push({ node: node.name, op, opset, types: [...node.inputs, ...node.outputs].flatMap((value) => value?.type?.elem ?? []) });
  }
  return { kernels: graph.nodes.length - missing.length, missing, copies };
}

function takes({ inputs, outputs, types }: Kernel, node: Node): boolean {
  const fits = (variables: readonly string[], values: readonly (Value | undefined)[]): boolean =>
    values.every((value, i) => {
      const allowed = types[variables[i] ?? variables.at(-1) ?? ""];
      return !allowed || !value?.type || allowed.has(value.type.elem);
    });
  return fits(inputs, node.inputs) && fits(outputs, node.outputs);
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
    (isOp(node, node.opType) && node.opType.startsWith("Reduce"));
  return afterFirst ? node.inputs.slice(1) : [];
}
