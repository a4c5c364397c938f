/** What decompose-contrib-ops makes of ONNX Runtime's own operators, against the runtime's kernels; those that it has on CUDA only against others. */
import { describe, expect, it } from "vitest";
import { elemOf, shapeOf } from "../ir/build.js";
import { makeNode, type Model, opsetOf, withGraph } from "../ir/graph.js";
import { isStandard } from "../ir/ops.js";
import { parse } from "../ir/parse.js";
import { rewrite } from "../ir/rewrite.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { type FixedType, resultTypes, type ResultType } from "../ir/type-rules.js";
import { elementCount } from "../ir/types.js";
import decompose from "../passes/decompose-contrib-ops.js";
import inferTypes from "../passes/infer-types.js";
import { runPasses } from "../passes/pass.js";
import { relativeL2 } from "../schedules/index.js";
import { Session, type Tensors } from "../src/runtime/session.js";
import { BARE } from "./support/runs.js";

const constant = (elem: string, dims: readonly number[], name: string, at: (i: number) => number | string): string =>
  `${elem}[${dims.join()}] ${name} = {${Array.from({ length: elementCount(dims) }, (_, i) => at(i)).join(", ")}}`;
const wave = (i: number): string => Math.sin(3 * i + 1).toFixed(3);

/** Inputs and constants that the lines below read. */
const PORTS = `float[2,6,8] q, float[2,5,8] k, float[2,5,12] v, float[2,6,8] x, float[2,2,5,4] kh, float[2,2,6,5] added, float[1,1,6,5] added1, float[2,2,6,4] heads,
  float[2,6,64] four, float[2,6,32] two, float[2,6,128] packed4, float[6,2,8] xb, float[1,4,8,8] image, float[1,8,8,4] last, float[1,6,8,8] z, float[2,6,16] one, uint8[3,4] codes, uint8[3,4] others, uint8[4,3] turned, uint8[1,8,8,4] picture, float[2,3,6] tokens,
  float[2,6,2,3,4] packed_qkv, float[2,5,2,2,4] packed_kv, float[9,8] rows, float[9,2,3,4] packed_rows, float[2,2,6,6] square_bias, float16[1,8,8,4] half_last, float[1,8,8,4] skip, float[2,3,3,4] two_pictures, float[2,4] vectors`;
const CONSTANTS = [
  constant("float", [8, 24], "wqkv", wave),
  constant("float", [24], "bqkv", wave),
  constant("float", [8, 28], "wqkv28", wave),
  constant("float", [28], "bqkv28", wave),
  constant("float", [8, 5], "w", wave),
  constant("float", [2, 8, 5], "w3", wave),
  constant("int32", [2], "lengths5", (i) => 3 + i),
  constant("int32", [2], "lengths6", (i) => 4 + i),
  constant("int32", [4], "ends", (i) => [5, 6, 1, 2][i] ?? 0),
  constant("int32", [2, 5], "seen5", (i) => (i % 3 === 1 ? 0 : 1)),
  constant("int32", [2, 6], "seen6", (i) => (i % 4 === 1 ? 0 : 1)),
  constant("int32", [2, 6, 6], "seen66", (i) => (i % 5 === 1 ? 0 : 1)),
  constant("int64", [2, 6], "positions", (i) => (5 * i) % 9),
  constant("int64", [1], "start", () => 2),
  constant("float", [9, 2], "cos2", wave),
  constant("float", [9, 2], "sin2", (i) => Math.cos(i).toFixed(3)),
  constant("float", [9, 8], "cos8", wave),
  constant("float", [9, 8], "sin8", (i) => Math.cos(i).toFixed(3)),
  constant("float", [9, 1], "cos1", wave),
  constant("float", [9, 1], "sin1", (i) => Math.cos(i).toFixed(3)),
  constant("int32", [2], "full", () => 5),
  constant("int32", [1], "total", () => 6),
  constant("float", [6, 4, 3, 3], "kernel", wave),
  constant("float", [6, 3, 3, 2], "kernel_last", wave),
  constant("float", [6], "filters", wave),
  constant("uint8", [4, 3], "weights", (i) => (37 * i) % 251),
  constant("int8", [4, 3], "signed", (i) => ((29 * i) % 251) - 125),
  constant("int8", [3, 4], "signed_turned", (i) => ((29 * i) % 251) - 125),
  constant("float", [5, 2, 8], "bt", wave),
  constant("int8", [8, 3], "signed8", (i) => ((29 * i) % 251) - 125),
  constant("int32", [3], "whole", (i) => 100 * i - 70),
  constant("float", [4], "c4", wave),
  constant("float", [4], "d4", (i) => 0.5 + i),
  constant("float", [8], "c8", wave),
  constant("int64", [3], "three", (i) => [2, -1, 8][i] ?? 0),
  constant("int64", [2], "sizes", (i) => [3, 6][i] ?? 0),
  constant("int64", [3], "three1", (i) => [1, -1, 8][i] ?? 0),
  constant("float", [5], "floats5", wave),
  constant("int64", [1], "axis0", () => 0),
  constant("int64", [4], "spread", (i) => [2, 1, 1, 4][i] ?? 0),
  constant("int32", [2, 6], "offsets", (i) => [0, 1, 2, 6, 7, 8, 9, 10, 11, 3, 4, 5][i] ?? 0),
  constant("int32", [3], "sums", (i) => [0, 3, 9][i] ?? 0),
  "float scale = {0.02}",
  "float other_scale = {0.05}",
  constant("float", [3], "scales", (i) => 0.01 * (i + 1)),
  "uint8 zero = {120}",
  "uint8 odd = {97}",
  "float double = {0.04}",
  "int8 zero8 = {-3}",
  "uint16 zero16 = {30000}",
  constant("int8", [3], "zeros", (i) => i - 1),
  constant("float", [3], "floats", wave),
  constant("uint8", [6, 4, 3, 3], "kernel8", (i) => (11 * i) % 256),
  "uint8 kernel_zero = {128}",
];

const LINES = [
  ...["q, k, k", "q, k, v", "q, kh, kh"].map((operands) => `y = com.microsoft.MultiHeadAttention<num_heads = 2>(${operands})`),
  "y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, k, bqkv)",
  "y = com.microsoft.MultiHeadAttention<num_heads = 2, scale = 0.3>(q, k, v, bqkv28)",
  "y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, kh, kh, bqkv)",
  'y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v, "", lengths5)',
  'y = com.microsoft.MultiHeadAttention<num_heads = 2, mask_filter_value = -3.0>(q, k, v, "", seen5)',
  'y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v, "", "", added)',
  "y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v, bqkv28, seen5, added1)",
  "y = com.microsoft.MultiHeadAttention<num_heads = 2, unidirectional = 1>(q, x, x)",
  "y = com.microsoft.MultiHeadAttention<num_heads = 2, unidirectional = 1>(q, k, k)",
  "y = com.microsoft.MultiHeadAttention<num_heads = 2, unidirectional = 1>(k, q, x)",
  'y = com.microsoft.MultiHeadAttention<num_heads = 2, unidirectional = 1, mask_filter_value = -3.0>(q, x, x, "", seen66)',
  "y, pk, pv = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v, bqkv28)",
  "y = com.microsoft.Attention<num_heads = 2>(x, wqkv, bqkv)",
  "y = com.microsoft.Attention<num_heads = 2, qkv_hidden_sizes = [8, 8, 12], scale = 0.7>(x, wqkv28, bqkv28)",
  ...["lengths6", "ends", "seen6", "seen66"].map(
    (mask) => `y = com.microsoft.Attention<num_heads = 2, mask_filter_value = -5.0>(x, wqkv, bqkv, ${mask})`,
  ),
  "y = com.microsoft.Attention<num_heads = 4, unidirectional = 1, mask_filter_value = -4.0>(x, wqkv, bqkv, seen6)",
  "y = com.microsoft.Attention<num_heads = 4, unidirectional = 1>(x, wqkv, bqkv)",
  "y = com.microsoft.RotaryEmbedding(heads, positions, cos2, sin2)",
  "y = com.microsoft.RotaryEmbedding<interleaved = 1>(heads, start, cos2, sin2)",
  "y = com.microsoft.RotaryEmbedding(x, start, cos2, sin2)",
  "y = com.microsoft.RotaryEmbedding<interleaved = 1>(x, positions, cos2, sin2)",
  "y = com.microsoft.RotaryEmbedding<num_heads = 2, rotary_embedding_dim = 2>(x, positions, cos1, sin1)",
  "y = com.microsoft.RotaryEmbedding<num_heads = 2, rotary_embedding_dim = 2, interleaved = 1>(heads, positions, cos1, sin1)",
  'y, pk, pv = com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2>(four, two, two, "", "", full, total)',
  'y, pk, pv = com.microsoft.GroupQueryAttention<num_heads = 2, kv_num_heads = 2, scale = 0.3>(two, two, two, "", "", full, total)',
  'y, pk, pv = com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2, do_rotary = 1>(packed4, "", "", "", "", full, total, cos8, sin8)',
  'y, pk, pv = com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 1, do_rotary = 1, rotary_interleaved = 1>(four, one, one, "", "", full, total, cos8, sin8)',
  "y = com.microsoft.FusedMatMul<transBatchA = 1>(xb, w3)",
  "y = com.microsoft.FusedMatMul<transBatchB = 1, transB = 1, alpha = 0.5>(x, bt)",
  'y = com.microsoft.FusedConv<activation = "Relu", pads = [1, 1, 1, 1]>(image, kernel, filters)',
  'y = com.microsoft.FusedConv<activation = "LeakyRelu", activation_params = [0.3], pads = [1, 1, 1, 1]>(image, kernel, filters, z)',
  'y = com.microsoft.FusedConv<activation = "Clip", activation_params = [-0.3, 0.8], strides = [2, 2]>(image, kernel)',
  'y = com.microsoft.FusedConv<activation = "HardSigmoid", activation_params = [0.3, 0.4]>(image, kernel)',
  'y = com.microsoft.FusedConv<activation = "Tanh">(image, kernel)',
  "y = com.microsoft.MatMulIntegerToFloat(codes, weights, scale, other_scale)",
  "y = com.microsoft.MatMulIntegerToFloat(codes, signed, scale, scales, zero, zeros, floats)",
  "y = com.microsoft.DynamicQuantizeMatMul(x, signed8, other_scale)",
  "y = com.microsoft.DynamicQuantizeMatMul(x, signed8, scales, zeros, floats)",
  "y = com.microsoft.QGemm(codes, scale, zero, signed, scales, zeros, whole)",
  "y = com.microsoft.QGemm<transA = 1, transB = 1, alpha = 0.5>(turned, scale, zero, signed_turned, other_scale, zero8)",
  "y = com.microsoft.QGemm(codes, scale, zero, weights, other_scale, zero, whole, other_scale, zero)",
  "y = com.microsoft.QLinearAdd(codes, scale, zero, others, other_scale, zero, scale, zero)",
  "y = com.microsoft.QLinearAdd(codes, scale, zero, others, scale, odd, double, odd)",
  "y = com.microsoft.QLinearAdd(codes, scale, zero, others, double, odd, double, zero)",
  "y = com.microsoft.QLinearMul(codes, scale, zero, others, other_scale, zero, scale, zero)",
  "y = com.microsoft.QLinearSigmoid(codes, scale, zero, scale, zero)",
  "y = com.microsoft.QLinearLeakyRelu<alpha = 0.3>(codes, scale, zero, other_scale, zero)",

  "y = com.microsoft.QLinearConcat<axis = 0>(scale, zero, codes, other_scale, zero, others, scale, zero)",
  "y = com.microsoft.QLinearConv<channels_last = 1, pads = [1, 1, 1, 1], strides = [2, 1]>(picture, scale, zero, kernel8, other_scale, kernel_zero, other_scale, zero)",
  "y = com.microsoft.QuantizeLinear(x, scale, zero8)",
  "y = com.microsoft.QuantizeLinear<axis = 1>(tokens, scales, zeros)",
  "y = com.microsoft.DequantizeLinear(codes, scale, zero)",
];

const PARTS = "a, b, c = Split<axis = 3, num_outputs = 3>(packed_qkv) qa = Reshape(a, three) ka = Reshape(b, three) va = Reshape(c, three)";
const KV = "a, b = Split<axis = 3, num_outputs = 2>(packed_kv) ka = Reshape(a, three) va = Reshape(b, three)";
/** Two sequences of 3 and of 6 tokens, each through a kernel for itself, which is a function of `s` in the text. */
const oneByOne = (made: (sequence: string) => string, from = "rows"): string =>
  `r0, r1 = Split<axis = 0>(${from}, sizes) s0 = Unsqueeze(r0, axis0) s1 = Unsqueeze(r1, axis0) ${made("s0")} ${made("s1")} both = Concat<axis = 1>(s0_out, s1_out) y = Squeeze(both, axis0)`;
const attended = (s: string): string => `${s}_out = com.microsoft.Attention<num_heads = 2, scale = 0.4>(${s}, wqkv, bqkv)`;
const normed = (x: string, activation: string): string =>
  `t = Transpose<perm = [0, 3, 1, 2]>(${x}) n = GroupNormalization<num_groups = 2, epsilon = 0.01>(t, c4, d4) u = Transpose<perm = [0, 2, 3, 1]>(n) ${activation}`;

/** Operators and forms that the runtime has on CUDA only, and what they stand for in others. */
const STAND_FOR: readonly (readonly [own: string, others: string])[] = [
  ["y = com.microsoft.MultiHeadAttention<num_heads = 2>(packed_qkv)", `${PARTS} y = com.microsoft.MultiHeadAttention<num_heads = 2>(qa, ka, va)`],
  ["y = com.microsoft.MultiHeadAttention<num_heads = 2>(packed_qkv, \"\", \"\", bqkv, seen6)", `${PARTS} y = com.microsoft.MultiHeadAttention<num_heads = 2>(qa, ka, va, bqkv, seen6)`],
  ["y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, packed_kv)", `${KV} y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, ka, va)`],
  ["y = com.microsoft.PackedAttention<num_heads = 2, scale = 0.4>(rows, wqkv, bqkv, offsets, sums)", oneByOne(attended)],
  [
    "y = com.microsoft.PackedMultiHeadAttention<num_heads = 2, scale = 0.4>(rows, rows, rows, bqkv, offsets, sums)",
    oneByOne((s) => `${s}_out = com.microsoft.MultiHeadAttention<num_heads = 2, scale = 0.4>(${s}, ${s}, ${s}, bqkv)`),
  ],
  [
    'y = com.microsoft.PackedMultiHeadAttention<num_heads = 2>(packed_rows, "", "", "", offsets, sums)',
    oneByOne(
      (s) =>
        `${s}a, ${s}b, ${s}c = Split<axis = 3, num_outputs = 3>(${s}) ${["a", "b", "c"].map((part) => `${s}${part}h = Reshape(${s}${part}, three1)`).join(" ")} ${s}_out = com.microsoft.MultiHeadAttention<num_heads = 2>(${s}ah, ${s}bh, ${s}ch)`,
      "packed_rows",
    ),
  ],
  ["y = com.microsoft.BiasAdd(x, c8, q)", "a = Add(x, c8) y = Add(a, q)"],
  ["y = com.microsoft.BiasSplitGelu(x, c8)", "s = Add(x, c8) a, b = Split<axis = 2, num_outputs = 2>(s) g = Gelu(b) y = Mul(a, g)"],
  ["y = com.microsoft.BiasSoftmax<axis = 3, is_inner_broadcast = 0>(added, added1)", "s = Add(added, added1) y = Softmax(s)"],
  ["y = com.microsoft.GemmFastGelu(x, w, floats5)", 'm = MatMul(x, w) s = Add(m, floats5) y = Gelu<approximate = "tanh">(s)'],
  ['y = com.microsoft.FusedMatMulActivation<alpha = 2.0, activation = "LeakyRelu", activation_alpha = 0.3>(x, w)', "m = com.microsoft.FusedMatMul<alpha = 2.0>(x, w) y = LeakyRelu<alpha = 0.3>(m)"],
  ["y = com.microsoft.TransposeMatMul<transA = 1, alpha = 2.0>(x, q)", "y = com.microsoft.FusedMatMul<transA = 1, alpha = 2.0>(x, q)"],
  ["y = com.microsoft.NhwcConv<pads = [1, 1, 0, 1], strides = [2, 1], group = 2>(last, kernel_last, filters)", "t = Transpose<perm = [0, 3, 1, 2]>(last) k0 = Transpose<perm = [0, 3, 1, 2]>(kernel_last) c = Conv<pads = [1, 1, 0, 1], strides = [2, 1], group = 2>(t, k0, filters) y = Transpose<perm = [0, 2, 3, 1]>(c)"],
  ['y = com.microsoft.NhwcFusedConv<activation = "Relu">(last, kernel, filters)', "t = Transpose<perm = [0, 3, 1, 2]>(last) c = Conv(t, kernel, filters) r = Relu(c) y = Transpose<perm = [0, 2, 3, 1]>(r)"],
  ["y = com.microsoft.GroupNorm<groups = 2, epsilon = 0.01, activation = 0>(two_pictures, c4, d4)", normed("two_pictures", "y = Identity(u)")],
  ["y = com.microsoft.GroupNorm<groups = 2, epsilon = 0.01, activation = 1>(last, c4, d4)", normed("last", "s = Sigmoid(u) y = Mul(u, s)")],
  ["y = com.microsoft.GroupNorm<groups = 2, epsilon = 0.01, channels_last = 0>(image, c4, d4)", "y = GroupNormalization<num_groups = 2, epsilon = 0.01>(image, c4, d4)"],
  ["y = com.microsoft.GroupNorm<groups = 2, epsilon = 0.01>(half_last, c4, d4)", `wide = Cast<to = 1>(half_last) ${normed("wide", "y = Cast<to = 10>(u)")}`],
  ["y, sum = com.microsoft.SkipGroupNorm<groups = 2, epsilon = 0.01>(last, c4, d4, skip, c4)", `a = Add(last, skip) sum = Add(a, c4) ${normed("sum", "y = Identity(u)")}`],
  ["y, sum = com.microsoft.SkipGroupNorm<groups = 2, epsilon = 0.01, activation = 1>(two_pictures, c4, d4, vectors)", `vs = Reshape(vectors, spread) sum = Add(two_pictures, vs) ${normed("sum", "s = Sigmoid(u) y = Mul(u, s)")}`],
]; // prettier-ignore

describe.each([17, 21])("without a kernel on the CPU, at opset %i", (opset) => {
  it.each(STAND_FOR)("%s", async (own, others) => {
    const after = await runPasses(typed(graphOf(own, opset)), [decompose], BARE);
    expect(after.graph.nodes.every((node) => isStandard(node, opset))).toBe(true);
    const feeds = feedsOf(after);
    const found = await results(after, feeds);
    const wanted = await results(await inferred(graphOf(others, 21, [...found.keys()])), feeds);
    for (const [name, value] of wanted) {
      expect(found.get(name)?.shape).toEqual(value.shape);
      const limit = value.elem === "float16" ? 1e-3 : 1e-5;
      expect(relativeL2(tensorNumbers(found.get(name) ?? value).map(Number), tensorNumbers(value))).toBeLessThanOrEqual(limit);
      expect(Math.max(...tensorNumbers(value).map(Math.abs))).toBeGreaterThan(0.1);
    }
  });
});

/** The types of results as their operators give them. */
function typed(model: Model): Model {
  const graph = rewrite(model.graph, (node) => {
    const types = resultTypes(node);
    const made = makeNode({ ...node, outputs: node.outputs.map(({ name }, i) => ({ name, type: typeAt(types, i) })) });
    return { nodes: [made], outputs: made.outputs };
  });
  return withGraph(model, graph);
}

function typeAt(types: readonly ResultType[], i: number): FixedType {
  const type = types[i];
  if (type === undefined || type === "misfit") throw new Error("a result has no type");
  return type;
}

function graphOf(lines: string, opset: number, wanted?: readonly string[]): Model {
  const model = parse(
    `<ir_version: 10, opset_import: ["" : ${opset}, "com.microsoft" : 1]> g (${PORTS}) => () <${CONSTANTS.join(", ")}> { ${lines} }`,
  );
  const outputs = model.graph.nodes
    .flatMap((node) => node.outputs)
    .flatMap((value) => (wanted?.includes(value.name) === false ? [] : [{ name: value.name, value }]));
  return { ...model, graph: { ...model.graph, outputs } };
}

async function inferred(model: Model): Promise<Model> {
  return runPasses(model, [inferTypes], BARE);
}

async function results(model: Model, feeds: Tensors): Promise<Tensors> {
  const session = await Session.open(model, { optimise: "disabled", threads: 1 });
  const found = await session.run(feeds);
  await session.close();
  return found;
}

function feedsOf({ graph }: Model): Tensors {
  return new Map(
    graph.inputs.map((input, i) => {
      const shape = shapeOf(input);
      const elem = elemOf(input);
      const numbers = Array.from({ length: elementCount(shape) }, (_, at) =>
        elem === "float" ? 2 * Math.sin(7 * i + 3 * at + 1) : (37 * i + (50 + (i % 7)) * at) % 256,
      );
      return [input.name, tensorOf(elem, shape, numbers)] as const;
    }),
  );
}

describe.each([17, 21, 23])("at opset %i", (opset) => {
  it.each(LINES)("%s", async (line) => {
    const model = await inferred(graphOf(line, opset));
    const after = await runPasses(model, [decompose], BARE);
    expect(after.graph.nodes.every((node) => isStandard(node, opsetOf(after)))).toBe(true);
    const feeds = feedsOf(model);
    const found = await results(after, feeds);
    for (const [name, value] of await results(model, feeds)) {
      const [wanted, made] = [tensorNumbers(value), tensorNumbers(found.get(name) ?? value)];
      expect(found.get(name)?.shape).toEqual(value.shape);
      expect(wanted.every(Number.isFinite)).toBe(true);
      // Whole numbers are the same, those that lie in the middle of two steps among them.
      if (value.elem !== "float") expect(made).toEqual(wanted);
      else expect(relativeL2(made, wanted)).toBeLessThanOrEqual(1e-5);
    }
  });
});
