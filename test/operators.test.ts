/** The lists of operators, and that questions about nodes take no other names. */
import { describe, expect, it } from "vitest";
import { CUDA_KERNELS } from "../ir/cuda-kernels.js";
import { isOfStandardDomain, isOp, isRuntimeOp, makeNode, type Model, type Node, type Value } from "../ir/graph.js";
import { isStandardOperator, RUNTIME_OPERATORS, STANDARD_OPERATORS } from "../ir/operators.js";
import {
  addedFirst,
  attended,
  carriedOperand,
  factorsOf,
  isActivation,
  isAttentionCore,
  isElementwise,
  isKnown,
  isLinear,
  isNonlinear,
  isNorm,
  isPerToken,
  isStandard,
} from "../ir/ops.js";
import { parse } from "../ir/parse.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { Session } from "../src/runtime/session.js";

const of = (opType: string, domain = ""): Node => makeNode({ opType, domain, inputs: [], outputs: [] });

describe("operators", () => {
  it("stand in order, each once", () => {
    for (const list of [STANDARD_OPERATORS, RUNTIME_OPERATORS]) expect([...new Set(list)].sort()).toEqual(list);
  });

  it("are all those that the runtime has kernels for, but for what is its own or newer", () => {
    const names = [...CUDA_KERNELS].flatMap(([name, { versions }]) => (name.includes("::") || (versions[0] ?? 0) > 24 ? [] : [name]));
    const others = ["Affine", "Crop", "DynamicSlice", "ImageScaler", "MemcpyFromHost", "MemcpyToHost", "ParametricSoftplus", "ScaledTanh"];
    expect(names.filter((name) => !isStandardOperator(name)).sort()).toEqual([...others, "SimplifiedLayerNormalization"]);
  });

  it("are asked for by name", () => {
    expect(isOp(of("Gelu", "ai.onnx"), "Add", "Gelu")).toBe(true);
    expect(isOp(of("Gelu", "com.microsoft"), "Gelu")).toBe(false);
    expect(isRuntimeOp(of("Gelu", "com.microsoft"), "Gelu")).toBe(true);
    expect(isRuntimeOp(of("Gelu"), "Gelu")).toBe(false);
    expect(isOfStandardDomain(of("Anything", "ai.onnx"))).toBe(true);
    // @ts-expect-error A misspelt operator does not compile.
    expect(isOp(of("Gelu"), "GeLU")).toBe(false);
    // @ts-expect-error Nor does one of the runtime's.
    expect(isRuntimeOp(of("Gelu"), "QuickGELU")).toBe(false);
  });

  it("know the norms that the runtime has in the standard's domain", () => {
    const simplified = of("SimplifiedLayerNormalization");
    expect(isRuntimeOp(simplified, "SimplifiedLayerNormalization")).toBe(true);
    expect(isNorm(simplified)).toBe(true);
    expect([of("LayerNormalization"), simplified].map((node) => [isStandard(node, 16), isStandard(node, 17)])).toEqual([
      [false, true],
      [false, false],
    ]);
  });
});
describe("known operators", () => {
  it("are all of the standard, and those that the table has of other domains", () => {
    expect(STANDARD_OPERATORS.every((name) => isKnown(of(name)))).toBe(true);
    expect(
      [of("MatMulNBits", "com.microsoft"), of("Conv", "com.microsoft.nchwc"), of("ReorderInput", "com.microsoft.nchwc")].every(isKnown),
    ).toBe(true);
    expect([of("Foo", "my.domain"), of("MatMulNBits"), of("MatMulNBits", "my.domain"), of("Foo", "com.microsoft")].some(isKnown)).toBe(
      false,
    );
  });
});

/**
 * What the table says of an operator, and what the runtime's kernel does: which elements of a result change with one element of x, and
 * whether the result at the middle of two points is the middle of the results.
 */
describe("properties are those of the runtime's kernels", () => {
  const SHAPE = [2, 3, 8];
  const SIZE = 48;
  const first = Array.from({ length: SIZE }, (_, i) => 0.2 + 0.6 * Math.abs(Math.sin(3 * i + 1)) * (i % 3 === 0 ? -1 : 1));
  const second = first.map((number, i) => number + 4 * Math.cos(i));

  const standardCalls = [
    ..."Abs Acos Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh ThresholdedRelu"
      .split(" ")
      .map((name) => `y = ${name}(x)`),
    "y = Acosh(x)",
    "y = Add(x, c)",
    "y = Sub(c, x)",
    "y = Mul(x, c)",
    "y = Div(x, c)",
    "y = Sum(x, c, c)",
    "y = Mean(x, c)",
    "y = Where(yes, x, c)",
    "y = Max(x, c)",
    "y = Min(x, c)",
    "y = Clip(x, low, high)",
    "y = Mod<fmod = 1>(x, c)",
    "y = PRelu(x, c)",
    "y = Pow(x, two)",
    "y = Cast<to = 1>(x)",
    "y = CastLike(x, c)",
    "b = Greater(x, c) y = Cast<to = 1>(b)",
    "b = LessOrEqual(x, c) y = Cast<to = 1>(b)",
    "y = Softmax(x)",
    "y = Softmax<axis = 1>(x)",
    "y = LogSoftmax(x)",
    "y = Hardmax(x)",
    "y = LayerNormalization(x, c)",
    "y = LayerNormalization<axis = 1>(x, table)",
    "y = LpNormalization(x)",
    "y = InstanceNormalization(x, three, three)",
    "y = GroupNormalization<num_groups = 1>(x, three, three)",
    "y = MeanVarianceNormalization<axes = [0, 1]>(x)",
    "y = MatMul(x, w)",
    "y = MatMul(w3, x)",
    'y = Einsum<equation = "bij,jk->bik">(x, w)',
    "y = Conv<pads = [1, 1]>(x, taps)",
    "y = ReduceMean<keepdims = 1>(x, last)",
    "y = CumSum(x, at)",
  ];
  const runtimeCalls = [
    "y = com.microsoft.Gelu(x)",
    "y = com.microsoft.QuickGelu(x)",
    "y = com.microsoft.FastGelu(x, c)",
    "y = com.microsoft.BiasGelu(x, c)",
    "y = com.microsoft.FusedMatMul<alpha = 2.0>(x, w)",
    "y = com.microsoft.SkipLayerNormalization(x, whole, c, c)",
    "y = com.microsoft.SkipSimplifiedLayerNormalization(x, whole, c)",
    "y = SimplifiedLayerNormalization(x, c)",
    "y = com.microsoft.RotaryEmbedding<num_heads = 2>(x, places, cache, cache)",
  ];

  const numbersOf = (count: number, at: (i: number) => number): string =>
    Array.from({ length: count }, (_, i) => at(i).toFixed(3)).join(", ");
  /** These treat vectors of channels apart, too, with these shapes and attributes, but are asked for by none. */
  const unclaimed = ["Einsum", "InstanceNormalization", "ReduceMean"];
  const modelOf = (call: string, opset: number): Model =>
    parse(`<ir_version: 10, opset_import: ["" : ${opset}, "com.microsoft" : 1]> g (float[${SHAPE.join()}] x) => (float y)
      <float[8] c = {${numbersOf(8, (i) => 0.3 + 0.1 * i)}}, float[3,8] table = {${numbersOf(24, (i) => 1 + 0.1 * i)}}, float[8,5] w = {${numbersOf(40, Math.sin)}},
        float[3,3] w3 = {${numbersOf(9, Math.cos)}}, float[3,3,3] taps = {${numbersOf(27, Math.cos)}}, float[3] three = {1.0, 2.0, 3.0}, float[2,3,8] whole = {${numbersOf(48, Math.sin)}},
        bool[8] yes = {1, 0, 1, 0, 1, 0, 1, 0}, float low = {-0.3}, float high = {0.3}, float two = {2.0}, int64[1] last = {-1}, int64 at = {1},
        int64[2,3] places = {0, 1, 2, 0, 1, 2}, float[3,2] cache = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6}> { ${call} }`);

  it.each([...standardCalls, ...runtimeCalls])("%s", async (call) => {
    const model = modelOf(call, 22);
    const [node] = model.graph.nodes;
    if (!node) throw new Error("there is no node");
    const session = await Session.open(model, { optimise: "disabled", threads: 1 });
    const at = async (numbers: readonly number[]): Promise<readonly number[]> => {
      const [result] = (await session.run(new Map([["x", tensorOf("float", SHAPE, numbers)]]))).values();
      return result ? tensorNumbers(result).map((number) => (Number.isFinite(number) ? number : -1e3)) : [];
    };
    const before = await at(first);
    const reaches = async (place: number): Promise<readonly number[]> => {
      const after = await at(first.with(place, second[place] ?? 0));
      return after.flatMap((number, i) => (number === before[i] ? [] : [i]));
    };
    const reached = await Promise.all(first.map((_, place) => reaches(place)));
    const middle = await at(first.map((number, i) => (number + (second[i] ?? 0)) / 2));
    const end = await at(second);
    const isSame = before.every((number, i) => Math.abs(number - (first[i] ?? 0)) < 1e-6);
    await session.close();
    expect(reached.flat().length).toBeGreaterThan(0);
    const isElement = before.length === SIZE && reached.every((places, i) => places.every((place) => place === i));
    const width = before.length / 6;
    const isToken =
      Number.isInteger(width) && reached.every((places, i) => places.every((place) => Math.floor(place / width) === Math.floor(i / 8)));
    const isCurved = middle.some((number, i) => Math.abs(number - ((before[i] ?? 0) + (end[i] ?? 0)) / 2) > 1e-4);
    expect(isElementwise(node)).toBe(isElement);
    expect(isPerToken(node, (value) => (value?.name === "x" ? 1 : 0))).toBe(isToken && !unclaimed.includes(node.opType));
    if (isElement || node.opType.endsWith("max")) expect(isNonlinear(node)).toBe(isCurved);
    expect(carriedOperand(node) !== undefined).toBe(isSame || node.opType === "Clip");
  });
});

describe("where operands stand", () => {
  const line = (call: string, ports = "float[2,6,8] a, float[2,6,8] b, float[2,6,8] c, float[2,6,8] d, float[8] s"): Node => {
    const { nodes } = parse(`<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]> g (${ports}) => (float y) { ${call} }`).graph;
    if (!nodes[0]) throw new Error("there is no node");
    return nodes[0];
  };
  const names = (values: readonly (Value | undefined)[] | undefined): readonly string[] => values?.map((value) => value?.name ?? "") ?? [];

  it.each([
    ["MatMul(a, b)", ["a", "b"]],
    ["QLinearMatMul(a, s, s, b, s, s, s, s)", ["a", "b"]],
    ["com.microsoft.QGemm(a, s, s, b, s, s)", ["a", "b"]],
    ["QLinearConv(a, s, s, b, s, s, s, s)", ["a", "b"]],
    ["com.microsoft.MatMulNBits(a, b, s)", ["a", "b"]],
    ["Add(a, b)", []],
  ])("the factors of %s", (call, wanted) => {
    expect(names(factorsOf(line(`y = ${call}`)))).toEqual(wanted);
  });

  it.each([
    ["Attention(a, b, c)", ["b", "c"]],
    ["com.microsoft.MultiHeadAttention(a, b, c)", ["b", "c"]],
    ["com.microsoft.MultiHeadAttention(a, b)", ["b"]],
    ["com.microsoft.MultiHeadAttention(a)", ["a"]],
    ["com.microsoft.Attention(a, b, c)", ["a"]],
    ["com.microsoft.QAttention(a, b, c, s, s)", ["a"]],
    ["MatMul(a, b)", ["a", "b"]],
  ])("%s attends", (call, wanted) => {
    const node = line(`y = ${call}`);
    expect(names(attended(node))).toEqual(wanted);
    expect(isAttentionCore(node, () => 1)).toBe(true);
  });

  it("products by weights are linear, wherever the weight stands, and those of activations are attention", () => {
    const ofWeight = (weight: string) => (value: Value | undefined) => (value?.name === weight ? 0 : 1);
    for (const call of [
      "MatMul(a, b)",
      "Gemm(a, b)",
      "QLinearMatMul(a, s, s, b, s, s, s, s)",
      "com.microsoft.DynamicQuantizeMatMul(a, b, s)",
    ]) {
      const node = line(`y = ${call}`);
      for (const weight of ["a", "b"])
        expect([isLinear(node, ofWeight(weight)), isAttentionCore(node, ofWeight(weight))]).toEqual([true, false]);
      expect([isLinear(node, () => 1), isAttentionCore(node, () => 1)]).toEqual([false, true]);
    }
    expect(isLinear(line("y = Conv(a, b)"), () => 1)).toBe(true);
  });

  it.each([
    ["y, m, v, sum = com.microsoft.SkipLayerNormalization(a, b, s, s, c)", ["a", "b", "c"], "sum"],
    ["y = com.microsoft.SkipLayerNormalization(a, b, s)", ["a", "b"], undefined],
    ['y, "", "", sum = com.microsoft.SkipSimplifiedLayerNormalization(a, b, s, c)', ["a", "b", "c"], "sum"],
    ["y, sum = com.microsoft.SkipGroupNorm(a, s, s, b, c)", ["a", "b", "c"], "sum"],
  ])("%s adds first", (call, operands, sum) => {
    const added = addedFirst(line(call));
    expect([names(added?.operands), added?.sum?.name]).toEqual([operands, sum]);
  });

  it("a product may have a nonlinearity inside", () => {
    const activates = (call: string): boolean => isActivation(line(`y = com.microsoft.${call}`));
    expect(["GemmFastGelu(a, b)", 'FusedGemm<activation = "Relu">(a, b)', 'FusedConv<activation = "Tanh">(a, b)'].every(activates)).toBe(
      true,
    );
    expect(["FusedGemm(a, b)", "FusedMatMul(a, b)", "MatMulNBits(a, b, s)"].some(activates)).toBe(false);
  });
});
