/** Operators whose results have sizes that numbers decide, and the operands that these numbers are. Formulas: onnx, docs/Operators.md. */
import { operands } from "./analysis.js";
import { type Graph, isOfStandardDomain, isOp, type Node, type Value } from "./graph.js";
import { isShapeOnly } from "./ops.js";
import type { StandardOperator } from "./operators.js";
import { isFixed } from "./type-rules.js";

/** Operands whose numbers decide how many elements there are, at most as many as the first operand has for each of its dimensions. */
const COUNTED: ReadonlyMap<string, readonly number[]> = new Map<StandardOperator, readonly number[]>([
  ["Compress", [1]],
  ["NonZero", [0]],
  ["Unique", [0]],
]);

/** Operands that are sizes, bounds, axes or counts. */
const GIVEN: ReadonlyMap<string, readonly number[]> = new Map<StandardOperator, readonly number[]>([
  ["AffineGrid", [1]],
  ["CenterCropPad", [1]],
  ["ConstantOfShape", [0]],
  ["DFT", [1]],
  ["Expand", [1]],
  ["MaxUnpool", [2]],
  ["NonMaxSuppression", [0, 1, 2, 3, 4]],
  ["OneHot", [1]],
  ["Pad", [1, 3]],
  ["Range", [0, 1, 2]],
  ["ReduceL1", [1]],
  ["ReduceL2", [1]],
  ["ReduceLogSum", [1]],
  ["ReduceLogSumExp", [1]],
  ["ReduceMax", [1]],
  ["ReduceMean", [1]],
  ["ReduceMin", [1]],
  ["ReduceProd", [1]],
  ["ReduceSum", [1]],
  ["ReduceSumSquare", [1]],
  ["Reshape", [1]],
  ["Resize", [1, 2, 3]],
  ["Slice", [1, 2, 3, 4]],
  ["Split", [1]],
  ["Squeeze", [1]],
  ["Tile", [1]],
  ["TopK", [1]],
  ["Unsqueeze", [1]],
]);

/** Whether a node selects elements, so that it has at most as many as its first operand. */
export function isSelection(node: Node): boolean {
  return isOfStandardDomain(node) && COUNTED.has(node.opType);
}

/** The places of the operands whose numbers decide the sizes of the results, or which side runs; undefined where that is not known. */
function decidingPlaces(node: Node): readonly number[] | undefined {
  if (!isOfStandardDomain(node)) return undefined;
  return isOp(node, "If") ? [0] : (COUNTED.get(node.opType) ?? GIVEN.get(node.opType));
}

/**
 * A node whose sizes, or whose side that runs, shapes do not decide, and the inputs of the graph whose numbers do: undefined where nobody
 * can say what does.
 */
export interface Undecided {
  readonly node: Node;
  readonly inputs: readonly Value[] | undefined;
}

/** The first such node of a graph with bound shapes whose types have been inferred. Loops are not looked at. Linear. */
export function firstUndecided(graph: Graph): Undecided | undefined {
  const node = graph.nodes.find(
    (node) => isOp(node, "If") || (!isOp(node, "Loop", "Scan") && node.outputs.some(({ name, type }) => name !== "" && !isFixed(type))),
  );
  if (!node) return undefined;
  const values = decidingPlaces(node)?.flatMap((place) => node.inputs[place] ?? []);
  return { node, inputs: values && inputsBehind(values, graph) };
}

/** The inputs of a graph that the numbers of values depend on, in the order of the graph. */
function inputsBehind(values: readonly Value[], { inputs }: Graph): readonly Value[] {
  const reached = new Set(values);
  // The list grows while it is walked.
  for (const { producer } of reached) if (producer && !isShapeOnly(producer)) for (const value of operands(producer)) reached.add(value);
  return inputs.filter((input) => reached.has(input));
}
