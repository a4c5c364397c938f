/**
 * A GatherND that looks up the same places in every row, by a table that names each row, becomes a Gather along axis 1, or nothing where the
 * places are all there are. It then need not know how many rows there are. So PyTorch's exporter writes the masks of transformers' language models.
 */
import { type Builder, elemOf, shapeOf } from "../../ir/build.js";
import { constant, intAttribute, isOp, only, type Value } from "../../ir/graph.js";
import { tensorNumbers, tensorOf } from "../../ir/tensor.js";
import { elementCount } from "../../ir/types.js";
import type { FuseRule } from "../fuse-rule.js";

export default {
  name: "gather-rows",
  opset: 13,
  apply(node, { build }) {
    const [data, table] = node.inputs;
    if (!isOp(node, "GatherND") || intAttribute(node, "batch_dims", 0) !== 0 || !data || !table) return undefined;
    const places = placesIn(table, shapeOf(data)[0]);
    if (!places) return undefined;
    const isAll = places.shape.length === 1 && places.shape[0] === shapeOf(data)[1] && places.numbers.every((place, i) => place === i);
    return [isAll ? data : gathered(build, data, places, only(node))];
  },
} satisfies FuseRule;

/** Places along an axis. */
interface Places {
  readonly shape: readonly number[];
  readonly numbers: readonly number[];
}

/** The places of a table [rows, …places, 2] of (row, place) in which each row has its own number, and all rows the same places. */
function placesIn({ data }: Value, rows: number | undefined): Places | undefined {
  const [count, ...rest] = data?.shape ?? [];
  if (!data || rows === undefined || count !== rows || rest.at(-1) !== 2) return undefined;
  const shape = rest.slice(0, -1);
  const each = elementCount(shape);
  const pairs = tensorNumbers(data);
  const numbers = Array.from({ length: each }, (_, i) => pairs[2 * i + 1] ?? 0);
  const isSame = pairs.every((number, i) => number === (i % 2 === 0 ? Math.floor(i / 2 / each) : numbers[((i - 1) / 2) % each]));
  return isSame ? { shape, numbers } : undefined;
}

function gathered(build: Builder, data: Value, { shape, numbers }: Places, result: Value): Value {
  const { name } = result;
  const index = constant(`${name}/places`, tensorOf("int64", shape, numbers));
  return build.op("Gather", [data, index], name, { elem: elemOf(result), shape: shapeOf(result) }, { axis: { kind: "int", value: 1n } });
}
