/**
 * Replaces operators without a kernel in ONNX Runtime's CUDA provider by others: they would run on the CPU, with copies before and after.
 */
import { hasCudaKernel } from "../ir/cuda.js";
import { Builder, elemOf, scalarLike, shapeOf } from "../ir/build.js";
import { constant, floatAttribute, isOfStandardDomain, makeNode, type Node, only, opsetOf, type Value, withGraph } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { elementCount, staticShape } from "../ir/types.js";
import type { Pass } from "./pass.js";

export default {
  name: "decompose-for-cuda",
  summary: "spell out what CUDA has no kernel for",
  preserves: "rounding",
  run(model) {
    const graph = rewrite(model.graph, (node) => {
      const rule = isOfStandardDomain(node) && !hasCudaKernel(node, model.opsets) ? RULES.get(node.opType) : undefined;
      const build = new Builder(node.scope);
      const known = [...node.inputs, ...node.outputs].every((value) => !value || staticShape(value.type) !== undefined);
      const value = rule && known ? rule(node, build, opsetOf(model)) : undefined;
      return value && { nodes: build.nodes, outputs: [value] };
    });
    return withGraph(model, graph);
  },
} satisfies Pass;

/** The result of a node with one result; undefined if the node stays as it is. Formulas: onnx, docs/Operators.md. */
type Decomposition = (node: Node, build: Builder, opset: number) => Value | undefined;

const RULES: ReadonlyMap<string, Decomposition> = new Map<string, Decomposition>([
  ["ArgMax", extremum],
  ["ArgMin", extremum],
  ["CastLike", castLike],
  ["InstanceNormalization", instanceNormalization],
  ["Mish", mish],
  ["Pad", pad],
  ["Swish", swish],
]);

/** Whole numbers are compared as doubles, which hold those of up to 32 bits exactly. */
function extremum(node: Node, build: Builder): Value | undefined {
  const [x] = node.inputs;
  const [result] = node.outputs;
  if (!x || !result?.type || !["int32", "int16", "int8", "uint16", "uint8"].includes(elemOf(x))) return undefined;
  const wide = build.cast(x, "double", `${result.name}/wide`);
  const made = makeNode({ ...node, inputs: [wide] });
  build.nodes.push(made);
  return only(made);
}

/** scale · (x − mean) / √(variance + epsilon) + bias, with mean and variance over all axes from the third on. */
function instanceNormalization(node: Node, build: Builder, opset: number): Value | undefined {
  const [x, scale, bias] = node.inputs;
  const [result] = node.outputs;
  if (!x?.type || !scale || !bias || !result) return undefined;
  const { name } = result;
  const [, channels = 1, ...rest] = shapeOf(x);
  const axes = rest.map((_, i) => i + 2);
  const mean = build.reduce("ReduceMean", x, axes, opset, `${name}/mean`);
  const centred = build.op("Sub", [x, mean], `${name}/centred`, x.type);
  const square = build.op("Mul", [centred, centred], `${name}/square`, x.type);
  const variance = build.reduce("ReduceMean", square, axes, opset, `${name}/variance`);
  const one = { elem: elemOf(x), shape: shapeOf(variance) };
  const shifted = build.op("Add", [variance, scalarLike(x, floatAttribute(node, "epsilon", 1e-5))], `${name}/shifted`, one);
  const normalised = build.op("Div", [centred, build.op("Sqrt", [shifted], `${name}/deviation`, one)], `${name}/normalised`, x.type);
  const perChannel = (value: Value, what: string): Value => build.reshape(value, [channels, ...rest.map(() => 1)], `${name}/${what}`);
  const scaled = isAll(scale, 1) ? normalised : build.op("Mul", [normalised, perChannel(scale, "scale")], `${name}/scaled`, x.type);
  return isAll(bias, 0) ? scaled : build.op("Add", [scaled, perChannel(bias, "bias")], name, x.type);
}

/** Whether a value is a constant of one number. */
function isAll({ data }: Value, number: number): boolean {
  return data !== undefined && Array.from(tensorNumbers(data)).every((value) => value === number);
}

function castLike({ inputs: [x], outputs: [result] }: Node, build: Builder): Value | undefined {
  return x && result && build.cast(x, elemOf(result), result.name);
}

/** x · tanh(ln(1 + eˣ)) */
function mish({ inputs: [x], outputs: [result] }: Node, build: Builder): Value | undefined {
  if (!x?.type || !result) return undefined;
  const { type } = x;
  const soft = build.op("Softplus", [x], `${result.name}/softplus`, type);
  return build.op("Mul", [x, build.op("Tanh", [soft], `${result.name}/tanh`, type)], result.name, type);
}

function swish(node: Node, build: Builder): Value | undefined {
  const [x] = node.inputs;
  const [result] = node.outputs;
  return x?.type && result && build.swish(x, floatAttribute(node, "alpha", 1), result.name);
}

/** Concatenates a constant block on either side, axis by axis. */
function pad(node: Node, build: Builder): Value | undefined {
  const [x, pads, filling, axes] = node.inputs;
  const [result] = node.outputs;
  const mode = node.attributes.get("mode");
  if (!x || !result || (mode?.kind === "string" && mode.value !== "constant")) return undefined;
  const counts = pads?.data && tensorNumbers(pads.data);
  if (!counts || counts.some((count) => count < 0) || (filling && !filling.data) || (axes && !axes.data)) return undefined;
  const [fill = 0] = filling?.data ? tensorNumbers(filling.data) : [];
  const rank = shapeOf(x).length;
  const padded = axes?.data
    ? Array.from(tensorNumbers(axes.data), (axis) => (axis < 0 ? axis + rank : axis))
    : shapeOf(x).map((_, axis) => axis);
  return padded.reduce((value, axis, i) => {
    const block = (count = 0): Value[] => {
      const shape = shapeOf(value).map((dim, at) => (at === axis ? count : dim));
      const numbers = new Array<number>(elementCount(shape)).fill(fill);
      return count === 0 ? [] : [constant(`${result.name}/filling`, tensorOf(elemOf(x), shape, numbers))];
    };
    return build.concat([...block(counts[i]), value, ...block(counts[padded.length + i])], axis, result.name);
  }, x);
}
