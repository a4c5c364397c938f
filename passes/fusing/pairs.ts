/** Proves from how a value is computed that each element occurs twice along its last axis, as in tables of rotary embeddings. */
import { shapeOf } from "../../ir/build.js";
import { intAttribute, isOfStandardDomain, isOp, type Value } from "../../ir/graph.js";
import { hasFixedShapes, numbersOf, producerOf } from "./match.js";
import { isElementwise } from "../../ir/ops.js";
import { tensorNumbers } from "../../ir/tensor.js";
import { elementCount, sameShape } from "../../ir/types.js";
import { RESHAPES } from "./views.js";

/** The longest chain of nodes that is followed. */
const DEPTH = 12;
/** Constants with more elements are not read. */
const MOST_TABLE_ELEMENTS = 1 << 22;

/** Whether the last axis is known to consist of runs of `distance` elements, each of which occurs twice in a row. */
export function isPaired(value: Value, distance: number, depth = DEPTH): boolean {
  const size = shapeOf(value).at(-1) ?? 1;
  const data = numbersOf(value, MOST_TABLE_ELEMENTS);
  if (data) return isPairedList(tensorNumbers(data), distance);
  const node = value.producer;
  const [source] = node?.inputs ?? [];
  if (!node || !source || depth === 0 || !isOfStandardDomain(node) || !hasFixedShapes(node)) return false;
  const isSameAlong = (operand: Value | undefined): boolean =>
    operand !== undefined && (shapeOf(operand).at(-1) === 1 || isPaired(operand, distance, depth - 1));
  if (isElementwise(node)) return node.inputs.every(isSameAlong);
  if (isOp(node, "Concat")) {
    const isLast = [-1, shapeOf(value).length - 1].includes(intAttribute(node, "axis", 0));
    if (isLast && distance > 1) return node.inputs.every((input) => input === source) && shapeOf(source).at(-1) === distance;
    return node.inputs.every((input) => input !== undefined && (!isLast || (shapeOf(input).at(-1) ?? 1) % 2 === 0) && isSameAlong(input));
  }
  if (!isOp(node, ...RESHAPES)) return false;
  return shapeOf(source).at(-1) === size
    ? isPaired(source, distance, depth - 1)
    : isRepeated(source, distance) && size % (2 * distance) === 0;
}

function isPairedList(numbers: readonly number[], distance: number): boolean {
  return numbers.every((number, i) => Math.floor(i / distance) % 2 === 1 || number === numbers[i + distance]);
}

/** Whether an Expand or Tile repeats each run of `distance` elements twice in a row. */
function isRepeated(value: Value, distance: number): boolean {
  const once = producerOf(value, "Expand", "Tile")?.inputs[0];
  const to = shapeOf(value);
  const axis = to.findIndex((_, i) => elementCount(to.slice(i + 1)) === distance && to[i] === 2);
  return once !== undefined && axis >= 0 && sameShape(shapeOf(once), to.toSpliced(axis, 1, 1));
}
