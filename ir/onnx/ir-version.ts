/**
 * The version of the format that a model is written with: the lowest that it needs, whatever its file said, as runtimes refuse files of a
 * version that they do not know. Sources: onnx, docs/Versioning.md and the history at the head of onnx.proto.
 */
import { withSubgraphs } from "../analysis.js";
import type { Model, Value } from "../graph.js";
import type { TensorData } from "../tensor.js";
import type { ElementType } from "../types.js";
import { Leftovers, NodeExtra } from "./extra.js";
import type { Unknowns } from "./schema.js";

/** The first version of the format that was released with an operator set, by domain, from the newest on. */
const OPSETS: ReadonlyMap<string, readonly (readonly [opset: number, version: number])[]> = new Map([
  ["", [[28, 14], [25, 13], [24, 12], [23, 11], [21, 10], [19, 9], [15, 8], [12, 7], [11, 6], [10, 5], [9, 4], [1, 3]]],
  ["ai.onnx.ml", [[5, 10], [4, 9], [3, 8], [2, 6], [1, 3]]],
]); // prettier-ignore

/** Element types that came with a version. */
const TYPES: Partial<Readonly<Record<ElementType, number>>> = {
  float8e4m3fn: 9,
  float8e4m3fnuz: 9,
  float8e5m2: 9,
  float8e5m2fnuz: 9,
  int4: 10,
  uint4: 10,
  float4e2m1: 11,
  float8e8m0: 12,
  int2: 13,
  uint2: 13,
};

/** Fields that came with a version, by their number in the message: functions and training of a model; annotations and metadata of a graph. */
const MODEL_FIELDS: ReadonlyMap<number, number> = new Map([[25, 8], [20, 7], [26, 11]]); // prettier-ignore
const GRAPH_FIELDS: ReadonlyMap<number, number> = new Map([[14, 5], [16, 10]]); // prettier-ignore
/** Overloads of functions, and devices. */
const NODE_FIELDS: ReadonlyMap<number, number> = new Map([[8, 10], [10, 11]]); // prettier-ignore

/** Nodes have metadata since this version, and constants need not be inputs since the other. */
const METADATA = 10;
const PLAIN_CONSTANTS = 4;

/**
 * The lowest version that has what the model uses. Of its operator sets only as much counts as the file of the model had, as that was
 * good enough for whoever made it.
 */
export function irVersionOf({ graph, opsets, irVersion, extra }: Model): number {
  const versions = [3, fieldsOf(extra instanceof Leftovers ? extra.unknowns : undefined, MODEL_FIELDS)];
  for (const [domain, opset] of opsets) {
    const released = OPSETS.get(domain === "ai.onnx" ? "" : domain)?.find(([first]) => first <= opset)?.[1];
    if (released !== undefined) versions.push(Math.min(irVersion, released));
  }
  const inputs = new Set(graph.inputs);
  const typed = (of: Pick<TensorData, "elem"> | undefined): number => (of && TYPES[of.elem]) ?? 0;
  const use = (value: Value | undefined): void => {
    versions.push(typed(value?.type), value?.data && !inputs.has(value) ? PLAIN_CONSTANTS : 0);
  };
  for (const within of withSubgraphs(graph)) {
    versions.push(fieldsOf(within.extra instanceof Leftovers ? within.extra.unknowns : undefined, GRAPH_FIELDS));
    within.inputs.forEach(use);
    for (const { value } of within.outputs) use(value);
    for (const node of within.nodes) {
      [...node.inputs, ...node.outputs].forEach(use);
      for (const attribute of node.attributes.values()) if (attribute.kind === "tensor") versions.push(typed(attribute.value));
      if (node.metadata.size > 0) versions.push(METADATA);
      if (node.extra instanceof NodeExtra)
        versions.push(fieldsOf(node.extra.unknowns, NODE_FIELDS), node.extra.isSparseInitializer ? 6 : 0);
    }
  }
  return versions.reduce((most, version) => Math.max(most, version), 0);
}

/** The newest version that a field of these came with. */
function fieldsOf(unknowns: Unknowns | undefined, since: ReadonlyMap<number, number>): number {
  return (unknowns ?? []).reduce((most, bytes) => Math.max(most, since.get(fieldNumber(bytes)) ?? 0), 0);
}

/** The number in the tag that tagged bytes begin with. */
function fieldNumber(bytes: Uint8Array): number {
  let tag = 0;
  for (const [i, byte] of bytes.entries()) {
    tag += (byte & 127) * 2 ** (7 * i);
    if (byte < 128) break;
  }
  return Math.floor(tag / 8);
}
