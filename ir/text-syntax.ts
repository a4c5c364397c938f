/** Spellings that print and parse share: constants, names of types and elided payloads. */
import { ELEMENT_TYPES, type ElementType } from "./types.js";

/** The spelling of an elided payload; also the file that its address names after parsing. */
export const ELIDED = "{...}";

/** Words that the syntax reads as the start of a type. */
export const NOT_TENSORS = new Set(["seq", "map", "optional", "sparse_tensor", "opaque", "float6e2m3", "float6e3m2"]);

/**
 * How the text spells the numbers of a type: complex numbers as two floats, types that JavaScript lacks as bit patterns,
 * types narrower than a byte as packed bytes.
 */
export function scalarOf(elem: ElementType): { readonly width: number; readonly number: "float" | "signed" | "unsigned" } {
  if (elem === "float" || elem === "complex64") return { width: 4, number: "float" };
  if (elem === "double" || elem === "complex128") return { width: 8, number: "float" };
  const { bits } = ELEMENT_TYPES[elem];
  return { width: Math.max(1, bits / 8), number: elem.startsWith("int") && bits >= 8 ? "signed" : "unsigned" };
}
