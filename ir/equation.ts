/** The axes that the equation of an Einsum names. */
import type { Node } from "./graph.js";
import { staticShape } from "./types.js";

export interface Equation {
  /** The size of every axis by its letter; axes under an ellipsis have names of their own. */
  readonly sizes: ReadonlyMap<string, number>;
  /** The axes of the result, in order. */
  readonly result: readonly string[];
}

/** The equation of an Einsum of operands with fixed shapes; undefined where it has none, or does not fit them. */
export function equationOf(node: Node): Equation | undefined {
  const attribute = node.attributes.get("equation");
  if (attribute?.kind !== "string") return undefined;
  const [left = "", right] = attribute.value.replaceAll(" ", "").split("->");
  const sizes = new Map<string, number>();
  const times = new Map<string, number>();
  let ellipsis: readonly string[] = [];
  const terms = left.split(",");
  if (terms.length !== node.inputs.length) return undefined;
  for (const [i, term] of terms.entries()) {
    const shape = staticShape(node.inputs[i]?.type);
    const letters = term.replace("...", "").length;
    if (!shape || (term.includes("...") ? shape.length < letters : shape.length !== letters)) return undefined;
    // Axes under an ellipsis are broadcast, so they count from the last of them.
    const unnamed = Array.from({ length: shape.length - letters }, (_, at) => `.${at}`).reverse();
    if (unnamed.length > ellipsis.length) ellipsis = unnamed;
    for (const [axis, name] of named(term, unnamed).entries()) {
      sizes.set(name, Math.max(sizes.get(name) ?? 1, shape[axis] ?? 1));
      times.set(name, (times.get(name) ?? 0) + 1);
    }
  }
  const once = [...times].flatMap(([name, count]) => (count === 1 && !name.startsWith(".") ? [name] : [])).sort();
  return { sizes, result: right === undefined ? [...ellipsis, ...once] : named(right, ellipsis) };
}

function named(term: string, ellipsis: readonly string[]): readonly string[] {
  const [before = [], after = []] = term.split("...").map((letters) => letters.split(""));
  return term.includes("...") ? [...before, ...ellipsis, ...after] : before;
}
