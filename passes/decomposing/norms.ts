/** Norms of ONNX Runtime, with what it adds up in front of them. */
import { type Builder, elemOf, scalarLike, shapeOf } from "../../ir/build.js";
import { type Attribute, floatAttribute, intAttribute, type Node, type Value } from "../../ir/graph.js";
import { addedFirst } from "../../ir/ops.js";
import { elementCount } from "../../ir/types.js";
import { binary, first, isNamed, unary } from "./rule.js";

/** A norm over the axes from `axis` on. Its second and third output are only used in training. */
export function layerNorm(node: Node, build: Builder, opset: number): readonly Value[] | undefined {
  const [x, scale, bias] = node.inputs;
  if (!x || !scale || node.outputs.slice(1).some(isNamed)) return undefined;
  return [normalised(node, x, [scale, bias], intAttribute(node, "axis", -1), build, opset)];
}

/** The norm of input + skip + bias; the fourth output is that sum. */
export function skipLayerNorm(node: Node, build: Builder, opset: number): readonly (Value | undefined)[] | undefined {
  const [, , scale, fourth] = node.inputs;
  const [, mean, deviation] = node.outputs;
  if (!scale || [mean, deviation].some(isNamed)) return undefined;
  const shift = node.opType === "SkipSimplifiedLayerNormalization" ? undefined : fourth;
  const { operands = [], sum } = addedFirst(node) ?? {};
  const whole = summed(build, operands, sum?.name ?? `${first(node).name}/sum`);
  return whole && [normalised(node, whole, [scale, shift], -1, build, opset), undefined, undefined, whole];
}

function summed(build: Builder, [x, ...others]: readonly Value[], name: string): Value | undefined {
  return x && others.reduce((sum, other, i) => binary(build, "Add", sum, other, i === others.length - 1 ? name : `${name}/skip`), x);
}

/** (x − mean) / √(variance + epsilon) · scale + shift, in float. The simplified norms subtract no mean and have no shift. */
function normalised(
  node: Node,
  x: Value,
  [scale, shift]: readonly [Value, Value | undefined],
  axis: number,
  build: Builder,
  opset: number,
): Value {
  const { name, type } = first(node);
  const epsilon = floatAttribute(node, "epsilon", node.opType.startsWith("Skip") ? 1e-12 : 1e-5);
  const isCentred = !node.opType.includes("Simplified");
  const out = type ?? { elem: elemOf(x), shape: shapeOf(x) };
  if (opset >= (isCentred ? 17 : 23)) {
    const attributes: Record<string, Attribute> = {
      axis: { kind: "int", value: BigInt(axis) },
      epsilon: { kind: "float", value: epsilon },
    };
    return isCentred
      ? build.op("LayerNormalization", shift ? [x, scale, shift] : [x, scale], name, out, attributes)
      : build.op("RMSNormalization", [x, scale], name, out, attributes);
  }
  const rank = shapeOf(x).length;
  const axes = shapeOf(x).flatMap((_, i) => (i >= (axis < 0 ? axis + rank : axis) ? [i] : []));
  const wide = build.cast(x, "float", `${name}/wide`);
  const narrow = build.cast(unit(wide, axes, epsilon, isCentred, build, opset, name), elemOf(x), `${name}/narrow`);
  if (!shift) return binary(build, "Mul", narrow, scale, name);
  return binary(build, "Add", binary(build, "Mul", narrow, scale, `${name}/scaled`), shift, name);
}

/** (x − mean) / √(variance + epsilon) over axes. */
function unit(x: Value, axes: readonly number[], epsilon: number, isCentred: boolean, build: Builder, opset: number, name: string): Value {
  const part = (what: string): string => `${name}/${what}`;
  const mean = (value: Value, what: string): Value => build.reduce("ReduceMean", value, axes, opset, part(what));
  const centred = isCentred ? binary(build, "Sub", x, mean(x, "mean"), part("centred")) : x;
  const variance = mean(binary(build, "Mul", centred, centred, part("square")), "variance");
  const positive = binary(build, "Add", variance, scalarLike(variance, epsilon), part("positive"));
  return binary(build, "Div", centred, unary(build, "Sqrt", positive, part("deviation")), part("unit"));
}

/** The norm of groups of channels, in float, of X or of X + skip + bias, which is the second output then; and x · sigmoid(x) of it. */
export function groupNorm(node: Node, build: Builder, opset: number): readonly (Value | undefined)[] | undefined {
  const [data, scale, shift] = node.inputs;
  const { name } = first(node);
  if (!data || !scale || !shift) return undefined;
  const [rows = 1, ...sizes] = shapeOf(data);
  const isLast = intAttribute(node, "channels_last", 1) !== 0;
  const [channels, places] = isLast ? [sizes.at(-1) ?? 1, sizes.slice(0, -1)] : [sizes[0] ?? 1, sizes.slice(1)];
  const added = addedFirst(node);
  if (added && !isLast) return undefined;
  // A skip may be a matrix: one vector for each row.
  const operands = (added?.operands ?? [data]).map((value) =>
    shapeOf(value).length === 2 ? build.reshape(value, [rows, ...places.map(() => 1), channels], `${name}/skip`) : value,
  );
  const sum = summed(build, operands, added?.sum?.name ?? `${name}/sum`);
  if (!sum) return undefined;
  const groups = intAttribute(node, "groups", 1);
  const split = isLast ? [rows, elementCount(places), groups, channels / groups] : [rows, groups, channels / groups, elementCount(places)];
  const wide = build.reshape(build.cast(sum, "float", `${name}/wide`), split, `${name}/groups`);
  const flat = unit(wide, isLast ? [1, 3] : [2, 3], floatAttribute(node, "epsilon", 1e-5), true, build, opset, name);
  const even = build.reshape(flat, shapeOf(data), `${name}/even`);
  const ofChannels = (value: Value, what: string): Value => {
    const vector = build.cast(value, "float", `${name}/${what}_wide`);
    return isLast ? vector : build.reshape(vector, [channels, ...places.map(() => 1)], `${name}/${what}`);
  };
  const scaled = binary(build, "Mul", even, ofChannels(scale, "gamma"), `${name}/scaled`);
  const hasSwish = intAttribute(node, "activation", 0) === 1;
  const elem = elemOf(first(node));
  const isNarrow = elem !== "float";
  const shifted = binary(build, "Add", scaled, ofChannels(shift, "beta"), hasSwish || isNarrow ? `${name}/shifted` : name);
  const active = hasSwish ? build.swish(shifted, 1, isNarrow ? `${name}/active` : name) : shifted;
  return [build.cast(active, elem, name), sum];
}
