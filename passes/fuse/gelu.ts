/**
 * x / 2 · (1 + erf(x / √2)), and its approximation x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³))), in whichever order the
 * factors and terms are written. Formulas: Hendrycks and Gimpel, Gaussian Error Linear Units, section 2; ONNX, Gelu-20.
 */
import { isOp, type Node, only, type Value } from "../../ir/graph.js";
import { isNear, producerOf, uniformOf, withNumber } from "../fusing/match.js";
import type { FuseRule, Surroundings } from "../fuse-rule.js";

export default {
  name: "gelu",
  opset: 20,
  apply(node, { build, isInner }) {
    if (!isOp(node, "Mul", "Div")) return undefined;
    const output = only(node);
    const product = factorsOf(node, isInner);
    const [first, second] = product.values;
    if (!first || !second || product.values.length !== 2 || !isNear(product.number, 0.5)) return undefined;
    for (const [x, sum] of [[first, second] as const, [second, first] as const]) {
      const one = isInner(sum) ? withNumber(producerOf(sum, "Add")) : undefined;
      const bend = one?.number === 1 && isInner(one.value) ? producerOf(one.value, "Erf", "Tanh") : undefined;
      const inside = bend && polynomial(bend.inputs[0], x, isInner);
      if (!bend || !inside || !output.type) continue;
      if (isOp(bend, "Erf") && isPolynomial(inside, [0, Math.SQRT1_2])) return [build.op("Gelu", [x], output.name, output.type)];
      if (isOp(bend, "Tanh") && isPolynomial(inside, [0, SLOPE, 0, 0.044715 * SLOPE]))
        return [build.op("Gelu", [x], output.name, output.type, { approximate: { kind: "string", value: "tanh" } })];
    }
    return undefined;
  },
} satisfies FuseRule;

const SLOPE = Math.sqrt(2 / Math.PI);

interface Product {
  readonly number: number;
  readonly values: readonly Value[];
}

/** The factors of a product: those that are values, and the product of those that are numbers. */
function factorsOf(node: Node, isInner: Surroundings["isInner"], depth = 3): Product {
  const operands = node.inputs.flatMap((value) => value ?? []);
  if (isOp(node, "Div")) {
    const divisor = uniformOf(operands[1]);
    if (divisor === undefined || !operands[0]) return { number: 1, values: operands };
    const inner = factorsOfValue(operands[0], isInner, depth);
    return { ...inner, number: inner.number / divisor };
  }
  const parts = operands.map((value) => factorsOfValue(value, isInner, depth));
  return { number: parts.reduce((product, { number }) => product * number, 1), values: parts.flatMap(({ values }) => values) };
}

function factorsOfValue(value: Value, isInner: Surroundings["isInner"], depth: number): Product {
  const number = uniformOf(value);
  if (number !== undefined) return { number, values: [] };
  const node = depth > 0 && isInner(value) ? producerOf(value, "Mul", "Div") : undefined;
  return node ? factorsOf(node, isInner, depth - 1) : { number: 1, values: [value] };
}

/** The coefficients, lowest first, of a value that is a polynomial of x; undefined if it is none, or its degree is above 3. */
function polynomial(value: Value | undefined, x: Value, isInner: Surroundings["isInner"], depth = 6): readonly number[] | undefined {
  if (value === x) return [0, 1];
  const number = uniformOf(value);
  if (number !== undefined) return [number];
  const node = depth > 0 && isInner(value) ? producerOf(value, "Add", "Mul", "Div", "Pow") : undefined;
  if (!node) return undefined;
  const a = polynomial(node.inputs[0], x, isInner, depth - 1);
  const b = polynomial(node.inputs[1], x, isInner, depth - 1);
  if (!a || !b) return undefined;
  if (isOp(node, "Add")) return Array.from({ length: Math.max(a.length, b.length) }, (_, i) => (a[i] ?? 0) + (b[i] ?? 0));
  if (isOp(node, "Mul")) return times(a, b);
  const [constant = 0] = b;
  if (b.length > 1) return undefined;
  if (isOp(node, "Div")) return a.map((coefficient) => coefficient / constant);
  return constant === 2 ? times(a, a) : constant === 3 ? times(a, times(a, a)) : undefined;
}

function times(a: readonly number[] | undefined, b: readonly number[] | undefined): readonly number[] | undefined {
  if (!a || !b || a.length + b.length > 5) return undefined;
  return Array.from({ length: a.length + b.length - 1 }, (_, degree) => a.reduce((sum, c, i) => sum + c * (b[degree - i] ?? 0), 0));
}

function isPolynomial(found: readonly number[], wanted: readonly number[]): boolean {
  return found.length === wanted.length && found.every((coefficient, i) => isNear(coefficient, wanted[i] ?? 0));
}
