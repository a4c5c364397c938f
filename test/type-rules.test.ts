/** The table of what operators give: held against the runtime's own inference, and what it finds in what passes make. */
import { describe, expect, it } from "vitest";
import { checkTypes } from "../ir/check.js";
import { entryAt } from "../ir/entries.js";
import { makeNode, type Model, type Node, withGraph } from "../ir/graph.js";
import { parse } from "../ir/parse.js";
import { rewrite } from "../ir/rewrite.js";
import { type FixedType, resultTypes, type ResultType, TYPED_OPERATORS } from "../ir/type-rules.js";
import { elementCount, sameType, staticShape, type TensorType } from "../ir/types.js";
import { CACHE_PASSES, LOOP_PASSES, RUN_PASSES, STEP_PASSES } from "../passes/index.js";
import dce from "../passes/dce.js";
import { type Pass, runPasses } from "../passes/pass.js";
import { evaluator } from "../src/runtime/evaluator.js";
import { fixtures } from "./support/fixtures.js";
import { openFixture, planOf, randomSchedule } from "./support/jobs.js";
import { readSubject } from "./support/pass-case.js";

const RUNTIME = evaluator({ threads: 1 });

const UNARY = [
  "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
  "HardSwish", "Hardmax", "Identity", "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign",
  "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "Trilu", "Shape", "Size", "Transpose", "Flatten",
  "ArgMax", "ArgMin", "Dropout", "DynamicQuantizeLinear", "IsInf", "IsNaN", "LpNormalization", "Shrink", "ThresholdedRelu",
]; // prettier-ignore
const REDUCTIONS = TYPED_OPERATORS.filter((name) => name.startsWith("Reduce"));

/** Every operator of the table, in the forms that its rule tells apart. */
const LINES = [
  ...[...UNARY, ...REDUCTIONS].map((name) => `${name}(x)`),
  ...["Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum", "Pow", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"].map((name) => `${name}(x, column)`),
  ...["Max", "Mean", "Min", "Sum"].map((name) => `${name}(column, vector, scalar)`),
  ...["And", "Or", "Xor"].map((name) => `${name}(mask, lone)`),
  "Mod(indices, index)", "Not(mask)", "Pow(x, index)", "Where(lone, x, vector)", "Where(mask, column, scalar)",
  "Clip(x, scalar, scalar)", "Clip(x)", "CumSum(x, index)",
  "InstanceNormalization(image, channels, channels)", "GroupNormalization<num_groups = 2>(image, channels, channels)",
  "RMSNormalization(x, vector)", "RotaryEmbedding(heads, table, table)", "RotaryEmbedding<num_heads = 2>(rows, table, table)",
  "ScatterElements(x, places, x)", "ScatterND(x, points, vectors)", "GatherElements<axis = 1>(x, places)",
  "Cast<to = 10>(x)", "CastLike(x, indices)", "Constant<value = int64[2] {1, 2}>()", "Constant<value_float = 1.5>()", "Constant<value_ints = [1, 2, 3]>()",
  "Concat<axis = 1>(x, slab)", "Concat<axis = -2>(x, slab, x)",
  "Conv(image, kernel)", "Conv<group = 2, pads = [1, 0, 2, 1], strides = [2, 3], dilations = [2, 1]>(image, grouped, filters)",
  "Expand(column, wide)", "Expand(x, short)", "Flatten<axis = 0>(x)", "Flatten<axis = -1>(x)", "Flatten<axis = 3>(x)",
  "Gather<axis = 1>(x, indices)", "Gather(x, index)", "Gather<axis = -1>(x, indices)",
  "Gemm(square, square)", "Gemm<transA = 1>(tall, square, vector)", "Gemm<transB = 1>(square, tall5)",
  "MatMul(x, square)", "MatMul(x, vector)", "MatMul(vector, square)", "MatMul(vector, vector)", "MatMul(heads, turned)", "MatMul(square, stack)",
  "Pad(x, pads)", "Pad(x, pads2, scalar, axes)",
  "Reshape(x, flat)", "Reshape(x, kept)", "Reshape(x, guessed)", "Reshape(scalar, flat1)", "Reshape<allowzero = 1>(none, empty)",
  "Shape<start = 1>(x)", "Shape<start = -2, end = -1>(x)",
  "Slice(x, starts, ends)", "Slice(x, starts, ends, axes)", "Slice(x, starts, far, axes, steps)", "Slice(x, far, back, axes, steps)", "Slice(x, back, back, axes, down)", "Slice(x, far, low, axes, down)",
  "Split(x, sizes)", "Split<axis = 2, num_outputs = 2>(x)", "Split<axis = 1, num_outputs = 2>(x)",
  "Squeeze(column1, axes)", "Squeeze(column1)", "Unsqueeze(x, ends2)", "Unsqueeze(scalar, zero)",
  "Tile(x, pads3)", "Transpose<perm = [2, 0, 1]>(x)",
  "LayerNormalization(x, vector)", "LayerNormalization<axis = 1>(x, slab2)",
  ...REDUCTIONS.map((name) => `${name}(x, ends2)`), "ReduceMean<keepdims = 0>(x, axes)", "ReduceSum<keepdims = 0>(x)", "ReduceSum<noop_with_empty_axes = 1>(x)",
  ...["BitShift<direction = \"LEFT\">", "BitwiseAnd", "BitwiseOr", "BitwiseXor"].map((name) => `${name}(codes, code)`), "BitwiseNot(codes)", "PRelu(x, vector)",
  "ArgMax<axis = -1, keepdims = 0>(x)", "BatchNormalization(image, channels, channels, channels, channels)",
  "ConstantOfShape(wide)", "ConstantOfShape<value = int64[1] {7}>(flat1)", "Range(low_end, high_end, step)", "Range(index0, index9, index_step)",
  "ConvTranspose(image, spread)", "ConvTranspose<strides = [2, 3], pads = [1, 0, 0, 1], dilations = [2, 1], output_padding = [1, 2], group = 2>(image, spread)",
  "DepthToSpace<blocksize = 2>(image)", "SpaceToDepth<blocksize = 2>(even)",
  'Einsum<equation = "abc, cd -> abd">(x, square)', 'Einsum<equation = "...c,cd->d...">(x, square)', 'Einsum<equation = "cb,ac">(square, tall5)', 'Einsum<equation = "i,j->ij">(vector, vector5)', 'Einsum<equation = "...b,...b">(slab, x)',
  "GatherND(x, points)", "GatherND<batch_dims = 1>(x, points)",
  "QuantizeLinear(x, scale)", "QuantizeLinear(x, scale, zero8)", "QuantizeLinear<output_dtype = 4>(x, scale)", "QuantizeLinear<axis = 2>(x, scales4, zeros4)",
  "DequantizeLinear(codes, scale)", "DequantizeLinear(codes, half_scale)", "DequantizeLinear<output_dtype = 10>(codes, scale)", "DequantizeLinear<axis = 0, block_size = 2>(nibbles, blocks)",
  "MatMulInteger(codes, weights8)", "ConvInteger<pads = [1, 1, 1, 1]>(picture8, kernel8)",
  "QLinearMatMul(codes, scale, zerou, weights8, scale, zero8, scale, zerou)", "QLinearConv<strides = [2, 1]>(picture8, scale, zerou, kernel8, scale, zero8, scale, zerou)",
  "SimplifiedLayerNormalization(x, vector)",
  ...["Gelu", "QuickGelu", "FastGelu"].map((name) => `com.microsoft.${name}(x)`), "com.microsoft.BiasGelu(x, vector)", "com.microsoft.FastGelu(x, vector)",
  "com.microsoft.SkipLayerNormalization(x, x, vector, vector)", "com.microsoft.SkipSimplifiedLayerNormalization(x, x, vector)",
  "com.microsoft.RotaryEmbedding<num_heads = 2>(rows, steps2, turns, turns)",
  "com.microsoft.FusedMatMul<transA = 1>(stack, square)", "com.microsoft.FusedMatMul<transB = 1>(x, tall5)", "com.microsoft.FusedMatMul<transBatchA = 1>(x, square)", "com.microsoft.FusedMatMul<transBatchA = 1, transA = 1>(turned_batch, tall5t)", "com.microsoft.FusedMatMul(vector, square)",
  'com.microsoft.FusedGemm<transB = 1, activation = "Relu">(square, tall5)', 'com.microsoft.FusedConv<activation = "Relu">(image, kernel)',
  "com.microsoft.MatMulNBits<K = 4, N = 5, bits = 4, block_size = 16>(x, nbits, nscales)", "com.microsoft.MatMulBnb4<K = 4, N = 16, block_size = 16, quant_type = 1>(x, bnb, bnb_max)",
  "com.microsoft.GatherBlockQuantized<block_size = 16, quantize_axis = 1>(nibble_rows, indices, row_scales)", "com.microsoft.GatherBlockQuantized<block_size = 16, quantize_axis = 1, bits = 4>(byte_rows, indices, row_scales)",
  "com.microsoft.MatMulIntegerToFloat(codes, weights8, scale, scale)", "com.microsoft.DynamicQuantizeMatMul(x, weights8, scale)",
  "com.microsoft.QGemm(square8, scale, zerou, weights8, scale, zero8)", "com.microsoft.QGemm<transA = 1>(square8, scale, zerou, weights8, scale, zero8, \"\", scale, zerou)",
  "com.microsoft.QuantizeLinear(x, scale, zero8)", "com.microsoft.DequantizeLinear(codes, scale, zerou)",
  "com.microsoft.QLinearAdd(codes, scale, zerou, code, scale, zerou, scale, zerou)", "com.microsoft.QLinearMul(code, scale, zerou, codes, scale, zerou, scale, zerou)",
  "com.microsoft.QLinearSigmoid(codes, scale, zerou, scale, zerou)", "com.microsoft.QLinearLeakyRelu(codes, scale, zerou, scale, zerou)", "com.microsoft.QLinearSoftmax<opset = 13>(codes, scale, zerou, scale, zerou)",
  "com.microsoft.QLinearConv<channels_last = 1>(picture8_last, scale, zerou, kernel8, scale, zero8, scale, zerou)",
  "com.microsoft.Attention<num_heads = 2>(rows, projection, bias48)", "com.microsoft.Attention<num_heads = 2, qkv_hidden_sizes = [16, 16, 12]>(rows, projection44, bias44)",
  "com.microsoft.QAttention<num_heads = 2>(rows8, projection8, bias48, scale, scale)",
  "com.microsoft.MultiHeadAttention<num_heads = 2>(rows, rows, rows12)", "com.microsoft.MultiHeadAttention<num_heads = 2>(packed_qkv)", "com.microsoft.MultiHeadAttention<num_heads = 2>(rows, packed_kv)", "com.microsoft.MultiHeadAttention<num_heads = 2>(rows, keys, keys)",
  "com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2>(rows64, rows32, rows32, past, past, lengths, total)", "com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2>(rows128, \"\", \"\", past, past, lengths, total)",
  "com.microsoft.MoE<k = 1>(x, routes, up, \"\", fall)",
  "Attention(heads, heads, heads)", "Attention(heads, keys, wide_values)", "Attention<q_num_heads = 2, kv_num_heads = 2>(rows, rows, rows)",
]; // prettier-ignore
const OUTPUTS: Readonly<Record<string, number>> = {
  DynamicQuantizeLinear: 3,
  LayerNormalization: 3,
  Split: 2,
  "com.microsoft.SkipLayerNormalization": 4,
  "com.microsoft.SkipSimplifiedLayerNormalization": 4,
  "com.microsoft.GroupQueryAttention": 3,
};

/** Operators that the runtime has no kernel of on the CPU, results of types that it cannot tell us, and sizes that it does not work out: as the documents say. */
const BY_HAND: readonly (readonly [line: string, type: FixedType])[] = [
  ["Compress<axis = 1>(x, some)", float(2, 2, 4)],
  ["Compress(x, some)", float(2)],
  ["com.microsoft.BiasAdd(x, vector, x)", float(2, 3, 4)],
  ["com.microsoft.BiasSoftmax<axis = 2, is_inner_broadcast = 0>(x, slab)", float(2, 3, 4)],
  ["com.microsoft.BiasSplitGelu(x, vector)", float(2, 3, 2)],
  ["com.microsoft.GemmFastGelu(x, square, vector)", float(2, 3, 4)],
  ['com.microsoft.FusedMatMulActivation<transB = 1, activation = "Relu">(x, tall5)', float(2, 3, 5)],
  ["com.microsoft.TransposeMatMul<transB = 1>(x, tall5)", float(2, 3, 5)],
  ["com.microsoft.GroupNorm<groups = 2, activation = 1>(heads, channels, channels)", float(2, 2, 3, 8)],
  ["com.microsoft.SkipGroupNorm<groups = 2, activation = 0>(heads, channels, channels, heads)", float(2, 2, 3, 8)],
  ["com.microsoft.NhwcConv<strides = [2, 1], pads = [1, 0, 1, 0]>(image_last, kernel_last)", float(1, 4, 8, 6)],
  ['com.microsoft.NhwcFusedConv<activation = "Relu">(image_last, kernel)', float(1, 6, 8, 6)],
  [
    "com.microsoft.PackedAttention<num_heads = 2, qkv_hidden_sizes = [16, 16, 12]>(tokens, projection44, bias44, steps2, lengths)",
    float(5, 12),
  ],
  ['com.microsoft.PackedMultiHeadAttention<num_heads = 2>(tokens, tokens, tokens12, "", steps2, lengths)', float(5, 12)],
  ['com.microsoft.PackedMultiHeadAttention<num_heads = 2>(packed_tokens, "", "", "", steps2, lengths)', float(5, 16)],
  ['com.microsoft.QMoE<k = 1>(x, routes, codes, vector, "", codes, vector)', float(2, 3, 4)],
  ["MeanVarianceNormalization(image)", float(1, 4, 8, 9)],
  ["Cast<to = 17>(x)", { elem: "float8e4m3fn", shape: [2, 3, 4] }],
  ["QuantizeLinear<output_dtype = 19>(x, scale)", { elem: "float8e5m2", shape: [2, 3, 4] }],
  ["QuantizeLinear<axis = 0, block_size = 2>(nibble_floats, blocks, nibble_zeros)", { elem: "uint4", shape: [4, 6] }],
];

function float(...shape: readonly number[]): FixedType {
  return { elem: "float", shape };
}

/** Nodes that are not of the types that their operators take. */
const MISFITS = [
  "Add(x, vector5)", "Mul(x, index)", "Less(x, index)", "Where(mask, x, indices)", "Where(lone, x, vector5)", "Concat<axis = 0>(x, slab)", "Concat<axis = 3>(x, x)",
  "Conv(image, wrong)", "Expand(x, odd)", "Gemm(square, tall5)", "Gemm(x, square)", "MatMul(x, tall5)", "MatMul(x, indices)", "MatMul(scalar, x)",
  "Pad(x, pads2)", "Reshape(x, wide)", "Reshape(x, odd)", "Slice(x, starts, ends, none_axes)", "Split(x, wide)", "Split<axis = 5>(x)", "Squeeze(x, axes)",
  "Tile(x, wide)", "Transpose<perm = [0, 1]>(x)", "Attention(heads, rows, rows)", "Attention(rows, rows, rows)",
]; // prettier-ignore

/** A constant of the text of a graph, by its type and name. */
function filled(named: string, ...shape: readonly number[]): string {
  const [elem = "", name = ""] = named.split(" ");
  return `${elem}[${shape.join()}] ${name} = {${new Array(elementCount(shape) / (elem === "uint4" ? 2 : 1)).fill(elem.startsWith("float") ? "1.0" : "1").join(", ")}}`;
}

function modelOf(lines: readonly string[]): Model {
  const nodes = lines.map((line, i) => {
    const count = OUTPUTS[/^[\w.]+/.exec(line)?.[0] ?? ""] ?? 1;
    return `${Array.from({ length: count }, (_, at) => `v${i}_${at}`).join(", ")} = ${line}`;
  });
  return parse(`<ir_version: 11, opset_import: ["" : 24, "com.microsoft" : 1]>
    g (
      float[2,3,4] x, float[3,1] column, float[3,1,1] column1, float[4] vector, float[5] vector5, float scalar, float[2,1,4] slab, float[3,4] slab2,
      float[0,4] none, bool[2,3,4] mask, bool[1] lone, int64[1,4] indices, int64 index, int64[2,3,4] places, int64[2,1] points, float[2,3,4] vectors,
      float[1,4,8,9] image, float[4] channels, float[6,4,3,2] kernel, float[6,3,2,4] kernel_last, float[6,2,3,2] grouped, float[6,3,3,2] wrong, float[6] filters,
      float[2,2,3,8] heads, float[2,2,5,8] keys, float[2,2,5,6] wide_values, float[2,2,8,3] turned, float[2,3,16] rows, float[2,3,4] table,
      float[4,4] square, float[4,3] tall, float[5,4] tall5, float[4,5] tall5t, float[2,1,4,4] stack, float[4,3,2] turned_batch, float[1,2,4,6] even, float[4,3,3,2] spread,
      uint8[3,4] codes, uint8 code, uint8[4,4] square8, uint8[1,2,5,6] picture8, uint8[1,5,6,2] picture8_last, int64[2,3] steps2, uint8[2,3,16] rows8, float[2,3,12] rows12,
      float[2,3,2,3,8] packed_qkv, float[2,5,2,2,8] packed_kv, float[1,8,9,4] image_last, float[5,16] tokens, float[5,12] tokens12, float[5,2,3,8] packed_tokens, float[2,3,64] rows64, float[2,3,32] rows32, float[2,3,128] rows128, float[2,2,5,16] past, float[6,3] routes
    ) => (float[2,3,4] v0_0)
    <
      bool[3] some = {1, 0, 1}, int64[2] wide = {3, 4}, int64[1] short = {4}, int64[3] pads3 = {1, 2, 3}, int64[6] pads = {0, 1, 2, 3, 0, 0}, int64[2] pads2 = {1, 2},
      int64[1] axes = {-2}, int64[1] none_axes = {7}, int64[1] zero = {0}, int64[2] flat = {6, 4}, int64[3] kept = {0, 0, 4}, int64[3] guessed = {0, -1, 2},
      int64[1] flat1 = {1}, int64[2] empty = {0, 7}, int64[1] starts = {1}, int64[1] ends = {-1}, int64[2] ends2 = {0, -1}, int64[1] far = {9223372036854775807},
      int64[1] low = {-9223372036854775807}, int64[1] back = {-3}, int64[1] steps = {2}, int64[1] down = {-2}, int64[2] sizes = {1, 1}, int64[2] odd = {-1, 5},
      float low_end = {0.5}, float high_end = {4.0}, float step = {1.0}, int64 index0 = {0}, int64 index9 = {-9}, int64 index_step = {-2},
      float scale = {0.5}, float16 half_scale = {14336}, uint8 zerou = {3}, int8 zero8 = {-3}, float[4] scales4 = {1.0, 2.0, 3.0, 4.0}, uint16[4] zeros4 = {0, 1, 2, 3},
      ${filled("int8 weights8", 4, 5)}, ${filled("int8 kernel8", 3, 2, 3, 2)}, ${filled("uint4 nibbles", 4, 6)}, ${filled("float blocks", 2, 6)},
      ${filled("uint4 nibble_rows", 5, 32)}, ${filled("uint8 byte_rows", 5, 16)}, ${filled("float row_scales", 5, 2)},
      ${filled("float turns", 4, 4)}, ${filled("uint8 nbits", 5, 1, 8)}, ${filled("float nscales", 5)}, ${filled("uint8 bnb", 32)}, ${filled("float bnb_max", 4)},
      ${filled("float projection", 16, 48)}, ${filled("float bias48", 48)}, ${filled("float projection44", 16, 44)}, ${filled("float bias44", 44)}, ${filled("uint8 projection8", 16, 48)},
      int32[2] lengths = {7, 7}, int32[1] total = {8}, ${filled("float up", 3, 8, 4)}, float[4,6] nibble_floats = {${new Array(24).fill("1.0").join(", ")}}, ${filled("uint4 nibble_zeros", 2, 6)}, ${filled("float fall", 3, 4, 8)}
    >
    { ${nodes.join("\n")} }`);
}

/** Where the runtime infers another type than is declared, or than the table gives. */
async function differences(model: Model): Promise<readonly string[]> {
  const inferred = await RUNTIME.types(
    model,
    model.graph.nodes.flatMap((node) => node.outputs.filter(({ name }) => name !== "")),
  );
  return model.graph.nodes.flatMap((node) => {
    const given = resultTypes(node);
    return node.outputs.flatMap((value, i) => {
      const wanted = inferred.get(value);
      const said = [value.type, given[i]].filter((type) => type !== undefined);
      if (!wanted || !staticShape(wanted) || said.every((type) => type !== "misfit" && sameType(type, wanted))) return [];
      return [`${node.opType}: ${JSON.stringify({ wanted, said })}`];
    });
  });
}

/** Declares of the results of one node what `say` makes of the types that the table gives for them. */
function declaring(node: Node, say: (type: FixedType) => TensorType): Pass {
  return {
    name: "declaring",
    summary: "",
    preserves: "bits",
    run: (model) =>
      withGraph(
        model,
        rewrite(model.graph, (_, original) => {
          if (original !== node) return undefined;
          const given = resultTypes(node);
          const outputs = node.outputs.map(({ name }, i) => ({ name, type: fixedOnly(given[i], say) }));
          const made = makeNode({ ...node, outputs });
          return { nodes: [made], outputs: made.outputs };
        }),
      ),
  };
}

function fixedOnly(type: ResultType, say: (type: FixedType) => TensorType): TensorType | undefined {
  return type && say(type === "misfit" ? { elem: "float", shape: [1] } : type);
}

function nameOf({ domain, opType }: Node): string {
  return domain === "" ? opType : `${domain}.${opType}`;
}

const BLAMED = "internal: pass 'declaring' failed (passes before it: none)";

describe("every rule", () => {
  const { context } = readSubject('\n<ir_version: 10, opset_import: ["" : 24]>\ng (float x) => (float x) {}');
  const model = modelOf(LINES);
  const { nodes } = model.graph;

  it("gives a type, and that is what the runtime infers", async () => {
    const others = BY_HAND.map(([line]) => nameOf(entryAt(modelOf([line]).graph.nodes, 0)));
    expect([...new Set([...nodes.map(nameOf), ...others])].sort()).toEqual(TYPED_OPERATORS);
    expect(LINES.filter((_, i) => typeof resultTypes(entryAt(nodes, i))[0] !== "object")).toEqual([]);
    expect(await differences(model)).toEqual([]);
  });

  it.each(BY_HAND)("gives the type of %s", (line, type) => {
    const node = entryAt(modelOf([line]).graph.nodes, 0);
    expect(resultTypes(node)[0]).toEqual(type);
  });

  it.each(LINES.map((line, i) => [line, i] as const))("blames a pass for the wrong type of %s", async (_, i) => {
    const node = entryAt(nodes, i);
    const wrong: readonly ((type: FixedType) => TensorType)[] = [
      ({ elem, shape }) => ({ elem, shape: [...shape, 2] }),
      ({ elem, shape }) => ({ elem: elem === "double" ? "float" : "double", shape }),
    ];
    for (const say of wrong) {
      const failure: unknown = await runPasses(model, [declaring(node, say)], context).catch((error: unknown) => error);
      expect(failure).toMatchObject({ message: BLAMED });
      expect(failure).toHaveProperty("cause.message", expect.stringMatching(`= ${nameOf(node)}[^]*node-type: '.*' is said to be`));
    }
    await runPasses(model, [declaring(node, (type) => type)], context);
  });

  it.each(MISFITS)("blames a pass for %s", async (line) => {
    const misfit = modelOf([line]);
    const failure: unknown = await runPasses(misfit, [declaring(entryAt(misfit.graph.nodes, 0), (type) => type)], context).catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ message: BLAMED });
    expect(failure).toHaveProperty("cause.message", expect.stringContaining("takes no operands of these types"));
  });

  it("leaves alone what the pass has not made, and what `bind` has not typed", async () => {
    const node = entryAt(nodes, 0);
    const pass = declaring(node, ({ elem }) => ({ elem, shape: [7] }));
    const wrong = await runPasses(model, [{ ...pass, leavesUntyped: true }], context);
    expect(checkTypes(wrong, model)).toHaveLength(1);
    expect(await runPasses(wrong, [dce], context)).not.toBe(wrong);
  });
});

describe("what the runtime infers", () => {
  it.each(fixtures)("is what is declared, before and behind the passes: $name", async (fixture) => {
    const job = await openFixture(fixture, "none");
    expect(await differences(job.model)).toEqual([]);
    const context = { ...job.questions, run: job.run };
    const planned = { ...context, plan: planOf(job, randomSchedule(job, 5).cells).plan };
    const step = await runPasses(job.model, STEP_PASSES, context);
    expect(await differences(await runPasses(step, [...RUN_PASSES, ...CACHE_PASSES], planned))).toEqual([]);
    expect(await differences(await runPasses(step, LOOP_PASSES, planned))).toEqual([]);
  });
});
