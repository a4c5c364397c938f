/** Which inputs and outputs of a step graph are the latent, the time and the prediction: by name if given, else by structure. */
import { ambiguousPort, missingPort, unknownName } from "./diagnostics.js";
import { isOp, type Graph, type Node, type Port, type Value } from "./graph.js";
import { isDataMovement, isElementwise } from "./ops.js";
import { operands } from "./analysis.js";
import type { Dim, TensorType } from "./types.js";

const FLOATS: readonly string[] = ["float", "float16", "bfloat16", "double"];

/** Throws UNKNOWN_NAME or AMBIGUOUS_PORT. */
export function findPrediction(graph: Graph, name?: string): Port {
  if (name !== undefined) return byName("output", graph.outputs, name);
  const [first, second] = graph.outputs;
  if (!first) throw missingPort("prediction", "The graph has no outputs.");
  if (second)
    throw ambiguousPort(
      "prediction",
      "prediction.output",
      graph.outputs.map((port) => port.name),
    );
  return first;
}

/** The input that looks like the prediction: a float tensor of the same rank that differs from it in one dimension at most (channels). */
export function findLatent(graph: Graph, prediction: Port, name?: string): Value {
  if (name !== undefined) return inputNamed(graph, name);
  const floats = graph.inputs.filter(({ type }) => type && FLOATS.includes(type.elem) && (type.shape?.length ?? 0) >= 3);
  const alike = floats.filter(({ type }) => differingDims(type, prediction.value.type) <= 1);
  const candidates = alike.length > 0 ? alike : floats.slice(0, 1);
  const [latent] = candidates;
  if (!latent) throw missingPort("latent", "No input is a float tensor of rank 3 or more.");
  const exact = candidates.filter(({ type }) => differingDims(type, prediction.value.type) === 0);
  const [only] = exact;
  if (only && exact.length === 1) return only;
  if (candidates.length > 1)
    throw ambiguousPort(
      "latent",
      "latent",
      candidates.map((value) => value.name),
    );
  return latent;
}

/** The input of rank 1 or less that goes into a sine or cosine before any weight touches it. */
export function findTimestep(graph: Graph, latent: Value, name?: string): Value {
  if (name !== undefined) return inputNamed(graph, name);
  const small = graph.inputs.filter((input) => input !== latent && (input.type?.shape?.length ?? 2) <= 1);
  const embedded = small.filter((input) => reachesSine(graph, input));
  const [timestep] = embedded.length > 0 ? embedded : small;
  if (!timestep) throw missingPort("timestep", "No input is a scalar or a vector.");
  if (embedded.length > 1 || (embedded.length === 0 && small.length > 1)) {
    throw ambiguousPort(
      "timestep",
      "timestep",
      (embedded.length > 0 ? embedded : small).map((value) => value.name),
    );
  }
  return timestep;
}

/** Throws UNKNOWN_NAME. */
export function inputNamed(graph: Graph, name: string): Value {
  return byName("input", graph.inputs, name);
}

function byName<T extends { readonly name: string }>(what: string, known: readonly T[], name: string): T {
  const found = known.find((candidate) => candidate.name === name);
  if (!found)
    throw unknownName(
      what,
      name,
      known.map((candidate) => candidate.name),
    );
  return found;
}

function differingDims(a: TensorType | undefined, b: TensorType | undefined): number {
  if (!a?.shape || !b?.shape || a.shape.length !== b.shape.length) return Infinity;
  const other = b.shape;
  return a.shape.filter((dim: Dim, i) => dim !== other[i] && dim !== null && other[i] !== null).length;
}

function reachesSine(graph: Graph, input: Value): boolean {
  const reached = new Set<Value>([input]);
  for (const node of graph.nodes) {
    if (!operands(node).some((value) => reached.has(value))) continue;
    if (isOp(node, "Sin", "Cos")) return true;
    if (carries(node)) for (const output of node.outputs) reached.add(output);
  }
  return false;
}

/** Frequencies enter by a product, which exporters write as Mul, as an outer MatMul or as Einsum. */
function carries(node: Node): boolean {
  return isElementwise(node) || isDataMovement(node) || isOp(node, "Expand", "Einsum", "MatMul", "Concat", "Gather", "Slice");
}
