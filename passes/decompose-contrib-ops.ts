/** Replaces ONNX Runtime's own operators by standard ones, and drops the opset imports of domains without nodes. */
import { Builder } from "../ir/build.js";
import { isOfStandardDomain, type Node, opsetOf, withGraph } from "../ir/graph.js";
import type { RuntimeOperator, StandardOperator } from "../ir/operators.js";
import { isStandard } from "../ir/ops.js";
import { rewrite } from "../ir/rewrite.js";
import { staticShape } from "../ir/types.js";
import { biasAdd, biasGelu, biasSoftmax, biasSplitGelu, fastGelu, quickGelu } from "./decomposing/activations.js";
import { attention, groupQueryAttention, multiHeadAttention, packedAttention } from "./decomposing/attention.js";
import { groupNorm, layerNorm, skipLayerNorm } from "./decomposing/norms.js";
import { convolution, fusedGemm, fusedMatMul, gemmFastGelu } from "./decomposing/products.js";
import {
  between,
  dynamicQuantizeMatMul,
  matMulIntegerToFloat,
  quantisedConcat,
  quantisedConvolution,
  quantisedGemm,
  quantisedSum,
  requantisation,
} from "./decomposing/quantised.js";
import { rotaryEmbedding } from "./decomposing/rotary.js";
import { type Decomposition, inOneType } from "./decomposing/rule.js";
import type { Pass, Questions } from "./pass.js";

export default {
  name: "decompose-contrib-ops",
  summary: "spell ONNX Runtime's own operators out in standard ones",
  preserves: "rounding",
  run(model) {
    const opset = opsetOf(model);
    const graph = rewrite(model.graph, (node, original) => {
      const build = new Builder();
      const outputs = ruleOf(node, opset)?.(node, build, opset);
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
  return ruleOf(node, opset)?.(node, new Builder(), opset) === undefined;
}

/** A rule for integers whose scales are floats: the kernels take no others. */
function ofFloatScales(rule: Decomposition): Decomposition {
  return (node, build, opset) => {
    const elems = [...node.inputs, ...node.outputs].map((value) => value?.type?.elem);
    return elems.some((elem) => elem === "float16" || elem === "bfloat16") ? undefined : rule(node, build, opset);
  };
}

/** The rule for a node that is not of the standard, if there is one and all types are known. */
function ruleOf(node: Node, opset: number): Decomposition | undefined {
  const isOfRuntime = node.domain === "com.microsoft" || isOfStandardDomain(node);
  return isOfRuntime && !isStandard(node, opset) && isTyped(node) ? RULES.get(node.opType) : undefined;
}

/** Whether all operands and outputs that are present have a fixed type. */
function isTyped({ inputs, outputs }: Node): boolean {
  const present = [...inputs, ...outputs].filter((value) => value !== undefined && (value.name !== "" || value.data !== undefined));
  return present.length > 0 && present.every((value) => value && staticShape(value.type) !== undefined);
}

const RULES: ReadonlyMap<string, Decomposition> = new Map<RuntimeOperator | StandardOperator, Decomposition>([
  ["Attention", inOneType(attention)],
  ["BiasAdd", inOneType(biasAdd)],
  ["BiasGelu", inOneType(biasGelu)],
  ["BiasSoftmax", inOneType(biasSoftmax)],
  ["BiasSplitGelu", inOneType(biasSplitGelu)],
  ["DequantizeLinear", requantisation("DequantizeLinear")],
  ["DynamicQuantizeMatMul", dynamicQuantizeMatMul],
  ["FastGelu", inOneType(fastGelu)],
  ["FusedConv", inOneType(convolution)],
  ["FusedGemm", inOneType(fusedGemm)],
  ["FusedMatMul", inOneType(fusedMatMul)],
  ["FusedMatMulActivation", inOneType(fusedMatMul)],
  ["Gelu", inOneType(biasGelu)],
  ["GemmFastGelu", inOneType(gemmFastGelu)],
  ["GroupNorm", groupNorm],
  ["GroupQueryAttention", inOneType(groupQueryAttention)],
  ["LayerNormalization", inOneType(layerNorm)],
  ["MatMulIntegerToFloat", inOneType(matMulIntegerToFloat)],
  ["MultiHeadAttention", inOneType(multiHeadAttention)],
  ["NhwcConv", inOneType(convolution)],
  ["NhwcFusedConv", inOneType(convolution)],
  ["PackedAttention", inOneType(packedAttention)],
  ["PackedMultiHeadAttention", inOneType(packedAttention)],
  ["QGemm", ofFloatScales(quantisedGemm)],
  ["QLinearAdd", ofFloatScales(quantisedSum)],
  ["QLinearConcat", ofFloatScales(quantisedConcat)],
  ["QLinearConv", ofFloatScales(quantisedConvolution)],
  ["QLinearLeakyRelu", ofFloatScales(between("LeakyRelu", 1, ({ attributes }) => Object.fromEntries(attributes)))],
  ["QLinearMul", ofFloatScales(between("Mul", 2))],
  ["QLinearSigmoid", ofFloatScales(between("Sigmoid", 1))],
  ["QuantizeLinear", requantisation("QuantizeLinear")],
  ["QuickGelu", inOneType(quickGelu)],
  ["RotaryEmbedding", inOneType(rotaryEmbedding)],
  ["SimplifiedLayerNormalization", inOneType(layerNorm)],
  ["SkipGroupNorm", groupNorm],
  ["SkipLayerNormalization", inOneType(skipLayerNorm)],
  ["SkipSimplifiedLayerNormalization", inOneType(skipLayerNorm)],
  ["TransposeMatMul", inOneType(fusedMatMul)],
]);
