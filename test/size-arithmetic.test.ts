/** Whole numbers that sizes are made of: what is computed of them here is what the runtime computes. */
import { expect, it } from "vitest";
import { constant } from "../ir/graph.js";
import { parse } from "../ir/parse.js";
import { rewrite } from "../ir/rewrite.js";
import { wholeNumbersOf } from "../ir/size-arithmetic.js";
import { tensorNumbers } from "../ir/tensor.js";
import { evaluator } from "../src/runtime/evaluator.js";

const LINES: readonly (readonly [type: string, line: string])[] = [
  ["int64[4]", "y = Add(list, three)"],
  ["int64[4]", "y = Sub(three, list)"],
  ["int64[4]", "y = Mul(list, list)"],
  ["int64[4]", "y = Div(list, three)"],
  ["int64[2,4]", "y = Add(list, square)"],
  ["int64[2,4]", "y = Min(square, list)"],
  ["int64[4]", "y = Max(list, three)"],
  ["bool[4]", "y = Equal(list, three)"],
  ["bool[4]", "y = Less(list, three)"],
  ["bool[4]", "y = GreaterOrEqual(list, three)"],
  ["bool[4]", "f = Less(list, three) g = Greater(list, three) y = Or(f, g)"],
  ["bool[4]", "f = LessOrEqual(list, three) y = Not(f)"],
  ["int64[4]", "f = Less(list, three) y = Where(f, list, three)"],
  ["int64[4]", "y = Neg(list)"],
  ["int32[4]", "y = Cast<to = 6>(list)"],
  ["bool[4]", "y = Cast<to = 9>(list)"],
  ["int64[2,2]", "shape = Constant<value = int64[2] {2,-1}>() y = Reshape(list, shape)"],
  ["int64[1,4]", "axes = Constant<value = int64[1] {0}>() y = Unsqueeze(list, axes)"],
  ["int64[8]", "y = Concat<axis = 0>(list, list)"],
  ["int64[2]", "at = Constant<value = int64[2] {-1,1}>() y = Gather(list, at)"],
  ["int64", "y = Gather(list, one)"],
  ["int64", "y = ReduceProd<keepdims = 0>(list)"],
  ["int64[2,4]", "to = Constant<value = int64[2] {2,4}>() y = Expand(list, to)"],
  ["int64[2]", "a = Constant<value = int64[1] {1}>() b = Constant<value = int64[1] {3}>() y = Slice(list, a, b)"],
  ["int64[3]", "a = Constant<value = int64[1] {-3}>() b = Constant<value = int64[1] {99}>() y = Slice(list, a, b)"],
  [
    "int64[2]",
    "a = Constant<value = int64[1] {-1}>() b = Constant<value = int64[1] {-99}>() s = Constant<value = int64[1] {-2}>() z = Constant<value = int64[1] {0}>() y = Slice(list, a, b, z, s)",
  ],
  ["int64[2]", "y = Shape(square)"],
  ["int64[1]", "y = Shape<start = -1>(square)"],
  ["int64", "y = Size(square)"],
];

it.each(LINES)("%s: %s", async (type, line) => {
  const model = parse(`<ir_version: 8, opset_import: ["" : 17]>
    g () => (${type} y) <${type.includes("bool") ? "bool[4] f, bool[4] g" : "bool[4] f"}> {
      list = Constant<value = int64[4] {-7,2,3,8}>()
      square = Constant<value = int64[2,4] {1,2,3,4,5,6,7,-8}>()
      three = Constant<value = int64 {3}>()
      one = Constant<value = int64 {1}>()
      ${line}
    }`);
  const [truth] = await evaluator().evaluate(model);
  const folded = rewrite(model.graph, (node) => {
    const data = wholeNumbersOf(node);
    return data && { nodes: [], outputs: node.outputs.map(({ name }) => constant(name, data)) };
  });
  const data = folded.outputs[0]?.value.data;
  expect(data && { ...data, content: tensorNumbers(data) }).toEqual(truth && { ...truth, content: tensorNumbers(truth) });
});
