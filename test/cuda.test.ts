/** Coverage by CUDA kernels, against what was read by hand in ONNX Runtime's docs/OperatorKernels.md. */
import { describe, expect, it } from "vitest";
import { parse } from "../ir/parse.js";
import { cudaCoverage } from "../src/compile/cuda-coverage.js";
import { LOOPED } from "./support/models.js";

interface Off {
  readonly missing: readonly string[];
  readonly copies: readonly string[];
}

/** The operators of a model that are no nodes of the device. */
function offDevice(opset: number, graph: string): Off {
  const { missing, copies } = cudaCoverage(parse(`<ir_version: 10, opset_import: ["" : ${opset}, "com.microsoft" : 1]> g ${graph}`));
  return { missing: missing.map(({ op }) => op), copies: copies.map(({ op }) => op) };
}

/** Whether there is a kernel for an operator of one operand. */
function hasKernel(op: string, opset: number, elem: string, result = elem): boolean {
  const { missing } = offDevice(opset, `(${elem}[2,4] x) => (${result}[2,4] y) { y = ${op}(x) }`);
  return missing.length === 0;
}

describe("cudaCoverage", () => {
  // An open row `N+` is for schema version N alone: version 17 of LayerNormalization is still the one at 23, InstanceNormalization has a new one at 22.
  it.each([
    { op: "LayerNormalization", opset: 23, elem: "float", kernel: true },
    { op: "LayerNormalization", opset: 16, elem: "float", kernel: false },
    { op: "InstanceNormalization", opset: 21, elem: "float", kernel: true },
    { op: "InstanceNormalization", opset: 22, elem: "float", kernel: false },
    { op: "Dropout", opset: 21, elem: "float", kernel: true },
    { op: "Dropout", opset: 22, elem: "float", kernel: false },
    { op: "Elu", opset: 21, elem: "float", kernel: true },
    { op: "Elu", opset: 23, elem: "float", kernel: false },
    { op: "Cos", opset: 20, elem: "float", kernel: true },
    { op: "Cos", opset: 23, elem: "float", kernel: true },
    { op: "Gelu", opset: 19, elem: "float", kernel: false },
    { op: "Gelu", opset: 20, elem: "float", kernel: true },
    { op: "RMSNormalization", opset: 23, elem: "float16", kernel: true },
    { op: "Mean", opset: 20, elem: "float", kernel: false },
    { op: "Mish", opset: 20, elem: "float", kernel: false },
    { op: "Swish", opset: 24, elem: "float", kernel: false },
    { op: "NoSuchOperator", opset: 20, elem: "float", kernel: false },
  ])("$op at opset $opset: $kernel", ({ op, opset, elem, kernel }) => {
    expect(hasKernel(op, opset, elem)).toBe(kernel);
  });

  it.each([
    { op: "Clip", elem: "bfloat16", kernel: false },
    { op: "Clip", elem: "float16", kernel: true },
    { op: "Reciprocal", elem: "bfloat16", kernel: false },
    { op: "ReduceMean", elem: "bfloat16", kernel: false },
    { op: "Softmax", elem: "bfloat16", kernel: true },
    { op: "Add", elem: "bool", kernel: false },
    { op: "com.microsoft.GroupQueryAttention", elem: "float", kernel: false },
    { op: "com.microsoft.GroupQueryAttention", elem: "float16", kernel: true },
    { op: "com.microsoft.FusedGemm", elem: "float", kernel: false },
    { op: "com.microsoft.QuickGelu", elem: "float", kernel: true },
  ])("$op of $elem: $kernel", ({ op, elem, kernel }) => {
    expect(hasKernel(op, 20, elem)).toBe(kernel);
  });

  it("judges each operand and result by its own types", () => {
    expect(hasKernel("Cast", 20, "bool", "float")).toBe(true);
    expect(hasKernel("Cast", 20, "float", "string")).toBe(false);
    expect(offDevice(20, "(float[4,2] x, int64[3] i) => (float[3,2] y) { y = Gather(x, i) }").missing).toEqual([]);
    expect(offDevice(20, "(float[4,2] x, float[3] i) => (float[3,2] y) { y = Gather(x, i) }").missing).toEqual(["Gather"]);
    // Of what a variadic operator takes, each is as the first.
    expect(offDevice(20, "(float[2] a, float[2] b, bfloat16[2] c) => (float[2] y) { y = Sum(a, b, c) }").missing).toEqual([]);
    expect(offDevice(20, "(float[2] a, float[2] b, bool[2] c) => (float[2] y) { y = Sum(a, b, c) }").missing).toEqual(["Sum"]);
  });

  it("says where a node is and what it is given", () => {
    const model = parse(
      '<ir_version: 10, opset_import: ["" : 22]> g (float[2,3,4] x, float[3] s, float[3] b) => (float[2,3,4] y) { [norm] y = InstanceNormalization(x, s, b) }',
    );
    expect(cudaCoverage(model)).toEqual({
      kernels: 0,
      missing: [{ node: "norm", op: "InstanceNormalization", opset: 22, types: ["float", "float", "float", "float"] }],
      copies: [],
    });
  });

  it("counts the nodes in the graphs of nodes", () => {
    const { kernels, missing, copies } = cudaCoverage(
      parse(LOOPED.replace("Neg(x)", "Mish(x)").replace("MatMul(h, w)", "Mish(h)").replace('"", a)', '"", x)')),
    );
    expect(kernels).toBe(4);
    expect(missing.map(({ op }) => op)).toEqual(["Mish", "Mish"]);
    // The side is decided on the host, and the condition is computed.
    expect(copies.map(({ op }) => op)).toEqual(["If"]);
  });

  // A shape that is known before the run costs nothing.
  it.each([
    { about: "a constant shape", copies: [], graph: "(float[2,4] x) => (float[8] y) < int64[1] s = {8} > { y = Reshape(x, s) }" },
    { about: "a shape that the run is given", copies: [], graph: "(float[2,4] x, int64[1] s) => (float[8] y) { y = Reshape(x, s) }" },
    {
      about: "a shape that is computed",
      copies: ["Reshape"],
      graph: "(float[2,4] x, int64[1] s) => (float[8] y) { t = Neg(s) y = Reshape(x, t) }",
    },
    {
      about: "data that is computed",
      copies: [],
      graph: "(float[2,4] x) => (float[8] y) < int64[1] s = {8} > { t = Neg(x) y = Reshape(t, s) }",
    },
    { about: "a bound that is computed", copies: ["Clip"], graph: "(float[2] x, float b) => (float[2] y) { t = Neg(b) y = Clip(x, t) }" },
    { about: "the shape of a value", copies: ["Shape"], graph: "(float[2,4] x) => (int64[2] y) { y = Shape(x) }" },
    { about: "a count that is not known", copies: ["NonZero"], graph: "(float[2,4] x) => (int64[2,8] y) { y = NonZero(x) }" },
    {
      about: "a start that is computed",
      copies: ["Range"],
      graph: "(float a, float b, float c) => (float[4] y) { t = Neg(a) y = Range(t, b, c) }",
    },
  ])("$about", ({ graph, copies }) => {
    expect(offDevice(20, graph)).toEqual({ missing: [], copies });
  });
});
