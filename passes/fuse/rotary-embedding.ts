/**
 * x · cos + rotated(x) · sin, where `rotated` exchanges the elements of every pair and negates the first: pairs of neighbours,
 * or of the two halves of a head. Formula: Su et al., RoFormer, equation 34; ONNX, RotaryEmbedding-23, whose tables have one element
 * per pair. The exporter's tables must hold each element twice, once for either member of a pair; `isPaired` proves it.
 */
import { type Builder, elemOf, shapeOf } from "../../ir/build.js";
import { constant, intAttribute, isOp, only, type Value } from "../../ir/graph.js";
import { operandPairs, producerOf } from "../fusing/match.js";
import { isPaired } from "../fusing/pairs.js";
import { tensorOf } from "../../ir/tensor.js";
import { elementCount, sameShape } from "../../ir/types.js";
import { reshaped, RESHAPES } from "../fusing/views.js";
import type { FuseRule, Surroundings } from "../fuse-rule.js";

export default {
  name: "rotary-embedding",
  opset: 23,
  apply(node, { build, isInner }) {
    const factors = (value: Value): ReturnType<typeof operandPairs> => (isInner(value) ? operandPairs(producerOf(value, "Mul")) : []);
    if (!isOp(node, "Add")) return undefined;
    for (const [straight, turned] of operandPairs(node)) {
      for (const [x, cos] of factors(straight)) {
        for (const [rotated, sin] of factors(turned)) {
          const distance = distanceOfPairs(rotated, x, isInner);
          if (distance === undefined || !isPaired(cos, distance) || !isPaired(sin, distance)) continue;
          const made = embedded(build, x, [cos, sin], distance, only(node).name);
          if (made) return [made];
        }
      }
    }
    return undefined;
  },
} satisfies FuseRule;

/** How far apart the elements of a pair are, if the value is x with the elements of each pair exchanged and the first negated. */
function distanceOfPairs(value: Value, x: Value, isInner: Surroundings["isInner"]): number | undefined {
  const unshaped = (shaped: Value | undefined): Value | undefined => {
    let source = shaped;
    while (isInner(source) && producerOf(source, ...RESHAPES)) source = source?.producer?.inputs[0];
    return isInner(source) ? source : undefined;
  };
  const joint = producerOf(unshaped(value), "Concat");
  const [first, second] = joint?.inputs ?? [];
  const upper = unshaped(producerOf(unshaped(first), "Neg")?.inputs[0]);
  const lower = unshaped(second);
  const split = producerOf(lower, "Split");
  const [source] = split?.inputs ?? [];
  if (!joint || !split || !source || !lower || joint.inputs.length !== 2 || split.outputs.length !== 2) return undefined;
  if (split.outputs[0] !== lower || split.outputs[1] !== upper || originOf(source) !== originOf(x)) return undefined;
  if (source !== x && !isInner(source)) return undefined;
  // Reshapes keep the order of elements, so the distance determines the pairs.
  const distance = elementsFrom(lower, intAttribute(split, "axis", 0));
  const isSame =
    sameShape(shapeOf(lower), shapeOf(upper ?? lower)) && first && elementsFrom(first, intAttribute(joint, "axis", 0)) === distance;
  const size = shapeOf(x).at(-1) ?? 0;
  return isSame && (distance === 1 || 2 * distance === size) && size % 2 === 0 ? distance : undefined;
}

function originOf(value: Value): Value {
  let source = value;
  for (let node = producerOf(source, ...RESHAPES); node?.inputs[0]; node = producerOf(source, ...RESHAPES)) source = node.inputs[0];
  return source;
}

/** The number of elements in the axes from `axis` on. */
function elementsFrom(value: Value, axis: number): number {
  return elementCount(shapeOf(value).slice(axis));
}

/** The operator over [batch, length, heads · size] or [batch, heads, length, size], whichever x is; tables are the same for all heads. */
function embedded(build: Builder, x: Value, tables: readonly Value[], distance: number, name: string): Value | undefined {
  const shape = shapeOf(x);
  const [batch = 1, second = 1, third = 1] = shape;
  const size = shape.at(-1) ?? 1;
  const shapes = tables.map((table) => [...new Array<number>(shape.length).fill(1), ...shapeOf(table)].slice(-shape.length));
  const fits = (wanted: readonly number[]): boolean =>
    shapes.every(([rows, ...rest]) => (rows === 1 || rows === batch) && sameShape(rest, wanted));
  const isByHead = shape.length === 4 && fits([1, third, size]);
  if (!isByHead && !fits(shape.length === 4 ? [second, 1, size] : [second, size])) return undefined;
  const length = isByHead ? third : second;
  const [cos, sin] = tables.map((table, i) => {
    const half = halved(build, table, distance, `${name}/table${i}`);
    const rows = shapes[i]?.[0] ?? 1;
    const flat = reshaped(build, half, [rows, length, size / 2], `${name}/flat${i}`);
    return rows === batch ? flat : expanded(build, flat, [batch, length, size / 2], `${name}/rows${i}`);
  });
  const attributes = { interleaved: { kind: "int", value: distance === 1 ? 1n : 0n } } as const;
  const elem = elemOf(x);
  if (isByHead) return build.op("RotaryEmbedding", [x, cos, sin], name, { elem, shape }, attributes);
  const heads = shape.length === 4 ? third : 1;
  const packed = [batch, second, heads * size];
  const made = build.op(
    "RotaryEmbedding",
    [reshaped(build, x, packed, `${name}/packed`), cos, sin],
    name,
    { elem, shape: packed },
    {
      ...attributes,
      num_heads: { kind: "int", value: BigInt(heads) },
    },
  );
  return reshaped(build, made, shape, `${name}/shaped`);
}

/** One element of each pair along the last axis. */
function halved(build: Builder, table: Value, distance: number, name: string): Value {
  const shape = shapeOf(table);
  const size = shape.at(-1) ?? 1;
  const bounds = distance === 1 ? [0, size, -1, 2] : [0, distance, -1, 1];
  const operands = bounds.map((bound, i) => constant(`${name}/bound${i}`, tensorOf("int64", [1], [bound])));
  return build.op("Slice", [table, ...operands], name, { elem: elemOf(table), shape: [...shape.slice(0, -1), size / 2] });
}

function expanded(build: Builder, value: Value, shape: readonly number[], name: string): Value {
  const sizes = constant(`${name}/shape`, tensorOf("int64", [shape.length], shape));
  return build.op("Expand", [value, sizes], name, { elem: elemOf(value), shape });
}
