/** The lists of operators, and that questions about nodes take no other names. */
import { describe, expect, it } from "vitest";
import { CUDA_KERNELS } from "../ir/cuda-kernels.js";
import { isOfStandardDomain, isOp, isRuntimeOp, makeNode, type Node } from "../ir/graph.js";
import { isStandardOperator, RUNTIME_OPERATORS, STANDARD_OPERATORS } from "../ir/operators.js";
import { isNorm, isStandard } from "../ir/ops.js";

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
