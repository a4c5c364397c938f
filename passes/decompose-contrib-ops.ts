/** Replaces ONNX Runtime's own operators by standard ones, and drops the opset imports of domains without nodes. */
import { Builder, elemOf, lastTwoExchanged, scalarLike, shapeOf } from "../ir/build.js";
import { type Attribute, floatAttribute, intAttribute, type Node, opsetOf, type Value, withGraph } from "../ir/graph.js";
import { isStandardOperator, type StandardOperator } from "../ir/operators.js";
import { isStandard } from "../ir/ops.js";
import { rewrite } from "../ir/rewrite.js";
import { type ElementType, staticShape } from "../ir/types.js";
import type { Pass, Questions } from "./pass.js";

export default {
  name: "decompose-contrib-ops",
  summary: "spell ONNX Runtime's own operators out in standard ones",
  preserves: "rounding",
  run(model) {
    const opset = opsetOf(model);
    const graph = rewrite(model.graph, (node, original) => {
      const rule = isStandard(node, opset) ? undefined : RULES.get(node.opType);
      const build = new Builder();
      const outputs = rule && isTyped(node) ? rule(node, build, opset) : undefined;
      // A rule only leaves out outputs without a name, which nothing reads.
      return outputs && { nodes: build.nodes, outputs: original.outputs.map((value, i) => outputs[i] ?? value) };
    });
    const domains = new Set(["", "ai.onnx", ...graph.nodes.map(({ domain }) => domain)]);
    const opsets = new Map([...model.opsets].filter(([domain]) => domains.has(domain)));
    const decomposed = withGraph(model, graph);
    return opsets.size === model.opsets.size ? decomposed : { ...decomposed, opsets };
  },
} satisfies Pass<Questions>;

/** Whether a node outside the standard set stays as it is, as there is no rule for the operator, or none for these types and attributes. */
export function staysForeign(node: Node, opset: number): boolean {
  const rule = RULES.get(node.opType);
  return !rule || !isTyped(node) || rule(node, new Builder(), opset) === undefined;
}

/** Types in which the constants of a formula can be written. */
const WRITABLE: ReadonlySet<ElementType> = new Set<ElementType>(["float", "float16", "double"]);

/** Whether operands and outputs are known to be of one such type, with fixed shapes. */
function isTyped({ inputs, outputs }: Node): boolean {
  const elem = outputs[0]?.type?.elem;
  const present = [...inputs, ...outputs].filter((value) => value !== undefined && (value.name !== "" || value.data !== undefined));
  return elem !== undefined && WRITABLE.has(elem) && present.every((value) => value?.type?.elem === elem && staticShape(value.type));
}

/**
 * The named outputs of a node, computed by standard operators of the opset; undefined where that is not possible. The types of its
 * operands and outputs are known. Formulas: onnxruntime, docs/ContribOperators.md, and the kernels where that is silent.
 */
type Decomposition = (node: Node, build: Builder, opset: number) => readonly (Value | undefined)[] | undefined;

const RULES: ReadonlyMap<string, Decomposition> = new Map<string, Decomposition>([
  ["QuickGelu", quickGelu],
  ["Gelu", (node, build, opset) => gelu(node, node.inputs[0], build, opset)],
  ["BiasGelu", (node, build, opset) => gelu(node, biased(node, build), build, opset)],
  ["FastGelu", fastGelu],
  ["FusedMatMul", fusedMatMul],
  ["FusedGemm", fusedGemm],
  ["LayerNormalization", layerNorm],
  ["SimplifiedLayerNormalization", layerNorm],
  ["SkipLayerNormalization", skipLayerNorm],
  ["SkipSimplifiedLayerNormalization", skipLayerNorm],
]);

function quickGelu(node: Node, build: Builder): readonly Value[] | undefined {
  const [x] = node.inputs;
  return x && [build.swish(x, floatAttribute(node, "alpha", 1.702), first(node).name)];
}

/** x / 2 · (1 + erf(x / √2)) */
function gelu(node: Node, x: Value | undefined, build: Builder, opset: number): readonly Value[] | undefined {
  if (!x) return undefined;
  const { name } = first(node);
  if (opset >= 20) return [unary(build, "Gelu", x, name)];
  const part = unary(build, "Erf", binary(build, "Mul", x, scalarLike(x, Math.SQRT1_2), `${name}/scaled`), `${name}/erf`);
  return [halfOfOneAnd(part, x, build, name)];
}

/** x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³))), where x is the sum of the operands */
function fastGelu(node: Node, build: Builder, opset: number): readonly Value[] | undefined {
  const x = biased(node, build);
  if (!x) return undefined;
  const { name } = first(node);
  if (opset >= 20) return [unary(build, "Gelu", x, name, { approximate: { kind: "string", value: "tanh" } })];
  const square = binary(build, "Mul", x, x, `${name}/square`);
  const factor = binary(build, "Mul", square, scalarLike(x, 0.044715 * Math.sqrt(2 / Math.PI)), `${name}/cubic`);
  const inner = binary(
    build,
    "Mul",
    x,
    binary(build, "Add", factor, scalarLike(x, Math.sqrt(2 / Math.PI)), `${name}/factor`),
    `${name}/inner`,
  );
  return [halfOfOneAnd(unary(build, "Tanh", inner, `${name}/tanh`), x, build, name)];
}

function halfOfOneAnd(part: Value, x: Value, build: Builder, name: string): Value {
  const half = binary(build, "Mul", x, scalarLike(x, 0.5), `${name}/half`);
  return binary(build, "Mul", half, binary(build, "Add", part, scalarLike(x, 1), `${name}/one_and`), name);
}

/** The first operand, with the second added if there is one. */
function biased(node: Node, build: Builder): Value | undefined {
  const [x, bias] = node.inputs;
  return x && bias ? binary(build, "Add", x, bias, `${first(node).name}/biased`) : x;
}

/**
 * alpha · A · B, with A or B transposed. A is multiplied by alpha, as the operand is smaller than attention's scores and overflows later.
 */
function fusedMatMul(node: Node, build: Builder): readonly Value[] | undefined {
  const [a, b] = node.inputs;
  if (!a || !b || intAttribute(node, "transBatchA", 0) || intAttribute(node, "transBatchB", 0)) return undefined;
  const { name, type } = first(node);
  const turned = (value: Value, side: "A" | "B"): Value => {
    const rank = shapeOf(value).length;
    const isTurned = intAttribute(node, `trans${side}`, 0) !== 0 && rank > 1;
    return isTurned ? build.transpose(value, lastTwoExchanged(rank), `${name}/${side}_turned`) : value;
  };
  const alpha = floatAttribute(node, "alpha", 1);
  const scaled = alpha === 1 ? a : binary(build, "Mul", a, scalarLike(a, alpha), `${name}/scaled`);
  return type && [build.op("MatMul", [turned(scaled, "A"), turned(b, "B")], name, type)];
}

/** activation(alpha · A · B + beta · C): a Gemm and the standard operator that the activation names, with its attributes. */
function fusedGemm(node: Node, build: Builder): readonly Value[] | undefined {
  const { name, type } = first(node);
  const activation = node.attributes.get("activation");
  if (!type || activation?.kind !== "string" || !isStandardOperator(activation.value)) return undefined;
  const attributes = [...node.attributes];
  const ofProduct = attributes.filter(([key]) => !key.startsWith("activation"));
  const ofActivation = attributes.flatMap(([key, value]) => (key.startsWith(ITS) ? [[key.slice(ITS.length), value] as const] : []));
  const product = build.op("Gemm", node.inputs, `${name}/product`, type, Object.fromEntries(ofProduct));
  return [build.op(activation.value, [product], name, type, Object.fromEntries(ofActivation))];
}

/** The prefix of the activation's attributes. */
const ITS = "activation_";

/** A norm over the axes from `axis` on. Its second and third output are only used in training. */
function layerNorm(node: Node, build: Builder, opset: number): readonly Value[] | undefined {
  const [x, scale, bias] = node.inputs;
  if (!x || !scale || node.outputs.slice(1).some(({ name }) => name !== "")) return undefined;
  return [normalised(node, x, [scale, bias], intAttribute(node, "axis", -1), build, opset)];
}

/** The norm of input + skip + bias; the fourth output is that sum. */
function skipLayerNorm(node: Node, build: Builder, opset: number): readonly (Value | undefined)[] | undefined {
  const isSimplified = node.opType === "SkipSimplifiedLayerNormalization";
  const [x, skip, scale, fourth, fifth] = node.inputs;
  const [shift, bias] = isSimplified ? [undefined, fourth] : [fourth, fifth];
  const [, mean, deviation, sum] = node.outputs;
  if (!x || !skip || !scale || [mean, deviation].some((output) => output && output.name !== "")) return undefined;
  const label = sum && sum.name !== "" ? sum.name : `${first(node).name}/sum`;
  const added = binary(build, "Add", x, skip, bias ? `${label}/skip` : label);
  const whole = bias ? binary(build, "Add", added, bias, label) : added;
  return [normalised(node, whole, [scale, shift], -1, build, opset), undefined, undefined, whole];
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
  const part = (what: string): string => `${name}/${what}`;
  const rank = shapeOf(x).length;
  const axes = shapeOf(x).flatMap((_, i) => (i >= (axis < 0 ? axis + rank : axis) ? [i] : []));
  const mean = (value: Value, what: string): Value => build.reduce("ReduceMean", value, axes, opset, part(what));
  const wide = build.cast(x, "float", part("wide"));
  const centred = isCentred ? binary(build, "Sub", wide, mean(wide, "mean"), part("centred")) : wide;
  const variance = mean(binary(build, "Mul", centred, centred, part("square")), "variance");
  const positive = binary(build, "Add", variance, scalarLike(variance, epsilon), part("positive"));
  const unit = binary(build, "Div", centred, unary(build, "Sqrt", positive, part("deviation")), part("unit"));
  const narrow = build.cast(unit, elemOf(x), part("narrow"));
  if (!shift) return binary(build, "Mul", narrow, scale, name);
  return binary(build, "Add", binary(build, "Mul", narrow, scale, part("scaled")), shift, name);
}

function first(node: Node): Value {
  const [output] = node.outputs;
  if (!output) throw new Error(`internal: ${node.opType} '${node.name}' has no outputs`);
  return output;
}

/** An operator whose result has the type of its operand. */
function unary(
  build: Builder,
  opType: StandardOperator,
  x: Value,
  name: string,
  attributes: Readonly<Record<string, Attribute>> = {},
): Value {
  return build.op(opType, [x], name, { elem: elemOf(x), shape: shapeOf(x) }, attributes);
}

/** An operator whose second operand is broadcast to its first. */
function binary(build: Builder, opType: StandardOperator, x: Value, y: Value, name: string): Value {
  return build.op(opType, [x, y], name, { elem: elemOf(x), shape: shapeOf(x) });
}
