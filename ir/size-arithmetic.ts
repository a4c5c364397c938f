/**
 * The whole numbers that sizes are put together from, computed node by node: what `Shape` gives, and what exporters compute of it before a
 * Reshape or a Slice takes it. One walk over the graph then knows all shapes. Meanings: onnx, docs/Operators.md.
 */
import { constantData, constantOf } from "./constants.js";
import { intAttribute, isOp, type Node, type Value } from "./graph.js";
import { isShapeOnly } from "./ops.js";
import { type TensorData, tensorNumbers, tensorOf } from "./tensor.js";
import { elementCount, staticShape } from "./types.js";

/** Nothing that sizes are made of is longer. */
const MOST = 256;

/** The data of a result that is made of whole numbers or flags, where operands and types are known; undefined otherwise. */
export function wholeNumbersOf(node: Node): TensorData | undefined {
  if (isOp(node, "Constant")) return small(constantData(node));
  if (isShapeOnly(node)) return sizesOf(node);
  const [output, ...others] = node.outputs;
  const shape = staticShape(output?.type);
  const elem = output?.type?.elem;
  if (others.length > 0 || !shape || elementCount(shape) > MOST || (elem !== "int64" && elem !== "int32" && elem !== "bool"))
    return undefined;
  const operands = node.inputs.map(operandOf);
  const numbers = operands.every((operand) => operand !== undefined) ? computed(node, operands, shape) : undefined;
  return numbers?.every(Number.isSafeInteger) ? tensorOf(elem, shape, numbers) : undefined;
}

/** What `Shape` or `Size` gives of an operand with a fixed shape. */
export function sizesOf(node: Node): TensorData | undefined {
  const shape = staticShape(node.inputs[0]?.type);
  if (!shape) return undefined;
  if (isOp(node, "Size")) return tensorOf("int64", [], [elementCount(shape)]);
  const part = shape.slice(intAttribute(node, "start", 0), intAttribute(node, "end", shape.length));
  return tensorOf("int64", [part.length], part);
}

interface Operand {
  readonly shape: readonly number[];
  readonly numbers: readonly number[];
}

/** A small constant of whole numbers; undefined for others, and for an operand that is left out. */
function operandOf(value: Value | undefined): Operand | undefined {
  const data = small(constantOf(value));
  return data && { shape: data.shape, numbers: tensorNumbers(data) };
}

function small(data: TensorData | undefined): TensorData | undefined {
  const isWhole = data?.elem === "int64" || data?.elem === "int32" || data?.elem === "bool";
  return isWhole && data.content.kind === "bytes" && elementCount(data.shape) <= MOST ? data : undefined;
}

type Arithmetic = (a: number, b: number) => number;

/** Integer division rounds towards zero; what has no result is no size. */
const ARITHMETIC = new Map<string, Arithmetic>([
  ["Add", (a, b) => a + b],
  ["Sub", (a, b) => a - b],
  ["Mul", (a, b) => a * b],
  ["Div", (a, b) => Math.trunc(a / b)],
  ["Min", Math.min],
  ["Max", Math.max],
  ["Equal", (a, b) => Number(a === b)],
  ["Less", (a, b) => Number(a < b)],
  ["LessOrEqual", (a, b) => Number(a <= b)],
  ["Greater", (a, b) => Number(a > b)],
  ["GreaterOrEqual", (a, b) => Number(a >= b)],
  ["And", (a, b) => a & b],
  ["Or", (a, b) => a | b],
]);

/** The elements of a result of this shape. */
function computed(node: Node, operands: readonly Operand[], shape: readonly number[]): readonly number[] | undefined {
  const [first, second, third] = operands;
  if (!first) return undefined;
  const arithmetic = ARITHMETIC.get(node.opType);
  if (arithmetic && second && operands.length === 2) {
    const [left, right] = [broadcastTo(first, shape), broadcastTo(second, shape)];
    return left && right && left.map((number, i) => arithmetic(number, right[i] ?? NaN));
  }
  if (isOp(node, "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")) return first.numbers;
  // To flags from numbers; between the others values stay, as long as they fit.
  if (isOp(node, "Cast"))
    return node.outputs[0]?.type?.elem === "bool" ? first.numbers.map((number) => Number(number !== 0)) : first.numbers;
  if (isOp(node, "Not")) return first.numbers.map((number) => 1 - number);
  if (isOp(node, "Neg")) return first.numbers.map((number) => -number);
  if (isOp(node, "Expand")) return broadcastTo(first, shape);
  if (isOp(node, "Concat") && shape.length === 1) return operands.flatMap(({ numbers }) => numbers);
  if (isOp(node, "Gather") && second && first.shape.length === 1) return second.numbers.map((at) => first.numbers.at(at) ?? NaN);
  if (isOp(node, "ReduceProd") && shape.length === 0 && operands.length === 1) return [first.numbers.reduce((a, b) => a * b, 1)];
  if (isOp(node, "Where") && second && third) {
    const [flags, yes, no] = [broadcastTo(first, shape), broadcastTo(second, shape), broadcastTo(third, shape)];
    return flags?.map((flag, i) => (flag !== 0 ? yes?.[i] : no?.[i]) ?? NaN);
  }
  return isOp(node, "Slice") && first.shape.length === 1 ? sliced(operands, shape) : undefined;
}

/** A slice of a list, which its type has counted already. */
function sliced([list, starts, , axes, steps]: readonly Operand[], [length = 0]: readonly number[]): readonly number[] | undefined {
  const [start] = starts?.numbers ?? [];
  if (!list || start === undefined || (axes && axes.numbers[0] !== 0 && axes.numbers[0] !== -1)) return undefined;
  const step = steps?.numbers[0] ?? 1;
  const size = list.numbers.length;
  const from = Math.max(0, Math.min(start < 0 ? start + size : start, step < 0 ? size - 1 : size));
  return Array.from({ length }, (_, i) => list.numbers[from + i * step] ?? NaN);
}

/** Numbers of a shape that is one element, a list, or the shape asked for. */
function broadcastTo({ shape, numbers }: Operand, wanted: readonly number[]): readonly number[] | undefined {
  const count = elementCount(wanted);
  const [only] = numbers;
  if (numbers.length === count && count > 0) return numbers;
  if (numbers.length === 1 && only !== undefined) return new Array<number>(count).fill(only);
  const last = wanted.at(-1);
  return shape.length === 1 && shape[0] === last ? Array.from({ length: count }, (_, i) => numbers[i % numbers.length] ?? NaN) : undefined;
}
