/** Bytes of values, and of the weights that a graph reads. */
import { operands } from "./analysis.js";
import type { Graph, Value } from "./graph.js";
import { byteSize, elementCount, staticShape } from "./types.js";

/** Bytes of the constants that a graph's nodes read. */
export function weightBytes({ nodes }: Graph): number {
  const weights = new Set(nodes.flatMap(operands).filter(({ data }) => data));
  return [...weights].reduce((sum, value) => sum + bytesOf(value), 0);
}

/** Bytes of a value; 0 where its shape is not known. */
export function bytesOf({ type }: Value): number {
  const shape = staticShape(type);
  return type && shape ? byteSize(type.elem, elementCount(shape)) : 0;
}
