/** The table of what operators give: held against the runtime's own inference, and what it finds in what passes make. */
import { describe, expect, it } from "vitest";
import { checkTypes } from "../ir/check.js";
import { entryAt } from "../ir/entries.js";
import { makeNode, type Model, type Node, withGraph } from "../ir/graph.js";
import { parse } from "../ir/parse.js";
import { rewrite } from "../ir/rewrite.js";
import { type FixedType, resultTypes, type ResultType, TYPED_OPERATORS } from "../ir/type-rules.js";
import { sameType, staticShape, type TensorType } from "../ir/types.js";
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
  "Attention(heads, heads, heads)", "Attention(heads, keys, wide_values)", "Attention<q_num_heads = 2, kv_num_heads = 2>(rows, rows, rows)",
]; // prettier-ignore
const OUTPUTS: Readonly<Record<string, number>> = { LayerNormalization: 3, Split: 2 };

/** Nodes that are not of the types that their operators take. */
const MISFITS = [
  "Add(x, vector5)", "Mul(x, index)", "Less(x, index)", "Where(mask, x, indices)", "Where(lone, x, vector5)", "Concat<axis = 0>(x, slab)", "Concat<axis = 3>(x, x)",
  "Conv(image, wrong)", "Expand(x, odd)", "Gemm(square, tall5)", "Gemm(x, square)", "MatMul(x, tall5)", "MatMul(x, indices)", "MatMul(scalar, x)",
  "Pad(x, pads2)", "Reshape(x, wide)", "Reshape(x, odd)", "Slice(x, starts, ends, none_axes)", "Split(x, wide)", "Split<axis = 5>(x)", "Squeeze(x, axes)",
  "Tile(x, wide)", "Transpose<perm = [0, 1]>(x)", "Attention(heads, rows, rows)", "Attention(rows, rows, rows)",
]; // prettier-ignore

function modelOf(lines: readonly string[]): Model {
  const nodes = lines.map((line, i) => {
    const count = OUTPUTS[/^\w+/.exec(line)?.[0] ?? ""] ?? 1;
    return `${Array.from({ length: count }, (_, at) => `v${i}_${at}`).join(", ")} = ${line}`;
  });
  return parse(`<ir_version: 10, opset_import: ["" : 24]>
    g (
      float[2,3,4] x, float[3,1] column, float[3,1,1] column1, float[4] vector, float[5] vector5, float scalar, float[2,1,4] slab, float[3,4] slab2,
      float[0,4] none, bool[2,3,4] mask, bool[1] lone, int64[1,4] indices, int64 index, int64[2,3,4] places, int64[2,1] points, float[2,3,4] vectors,
      float[1,4,8,9] image, float[4] channels, float[6,4,3,2] kernel, float[6,2,3,2] grouped, float[6,3,3,2] wrong, float[6] filters,
      float[2,2,3,8] heads, float[2,2,5,8] keys, float[2,2,5,6] wide_values, float[2,2,8,3] turned, float[2,3,16] rows, float[2,3,4] table,
      float[4,4] square, float[4,3] tall, float[5,4] tall5, float[2,1,4,4] stack
    ) => (float[2,3,4] v0_0)
    <
      int64[2] wide = {3, 4}, int64[1] short = {4}, int64[3] pads3 = {1, 2, 3}, int64[6] pads = {0, 1, 2, 3, 0, 0}, int64[2] pads2 = {1, 2},
      int64[1] axes = {-2}, int64[1] none_axes = {7}, int64[1] zero = {0}, int64[2] flat = {6, 4}, int64[3] kept = {0, 0, 4}, int64[3] guessed = {0, -1, 2},
      int64[1] flat1 = {1}, int64[2] empty = {0, 7}, int64[1] starts = {1}, int64[1] ends = {-1}, int64[2] ends2 = {0, -1}, int64[1] far = {9223372036854775807},
      int64[1] low = {-9223372036854775807}, int64[1] back = {-3}, int64[1] steps = {2}, int64[1] down = {-2}, int64[2] sizes = {1, 1}, int64[2] odd = {-1, 5}
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

const BLAMED = "internal: pass 'declaring' failed (passes before it: none)";

describe("every rule", () => {
  const { context } = readSubject('\n<ir_version: 10, opset_import: ["" : 24]>\ng (float x) => (float x) {}');
  const model = modelOf(LINES);
  const { nodes } = model.graph;

  it("gives a type, and that is what the runtime infers", async () => {
    expect([...new Set(nodes.map(({ opType }) => opType))].sort()).toEqual(TYPED_OPERATORS);
    expect(LINES.filter((_, i) => typeof resultTypes(entryAt(nodes, i))[0] !== "object")).toEqual([]);
    expect(await differences(model)).toEqual([]);
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
      expect(failure).toHaveProperty("cause.message", expect.stringMatching(`= ${node.opType}[^]*node-type: '.*' is said to be`));
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
