/**
 * The compute that plans leave, against SmoothCache's Table 1 (arXiv 2411.10510): DiT-XL/2 at 256², as a step of its shape. The
 * table counts the linear layers of attention and MLP at a batch of 64: 12 · 1152² · 256 tokens · 28 blocks · 64 a step; what it
 * counts beside them is not known, so that differences are exact and totals are not.
 */
import { describe, expect, it } from "vitest";
import { Builder, shapeOf } from "../ir/build.js";
import { graphMacs, type Macs, stepCost, totalMacs } from "../ir/cost.js";
import { type Attribute, constant, ditView, inputValue, type Model, type Value } from "../ir/graph.js";
import { lift } from "../ir/lift/index.js";
import { tensorOf } from "../ir/tensor.js";
import type { StandardOperator } from "../ir/operators.js";
import { parse } from "../ir/parse.js";
import { byteSize, elementCount } from "../ir/types.js";
import { parseSchedule, type Schedule } from "../schedules/index.js";
import { summarise } from "../src/planning/summary.js";
import type { Planning } from "../src/planning/planning.js";
import { compileModel } from "../src/compile/compile.js";
import { fixtures } from "./support/fixtures.js";
import { openFixture, planOf, randomSchedule } from "./support/jobs.js";
import { LOOPED } from "./support/models.js";
import { choose, inputOf } from "./support/policy-input.js";
import { bind, cachesOf, type Half } from "../schedules/index.js";

const BATCH = 64;
const BLOCKS = 28;
const WIDTH = 1152;
const HEADS = 16;
const TOKENS = 256;
const STREAM = [BATCH, TOKENS, WIDTH];

/** The step: patches, blocks with adaLN, a last layer. Its weights are addresses of a file that there is not. */
class Step {
  private readonly build = new Builder();

  model(): Model {
    const x = inputValue("x", { elem: "float", shape: [BATCH, 4, 32, 32] });
    const t = inputValue("t", { elem: "float", shape: [BATCH, 256] });
    const y = inputValue("y", { elem: "float", shape: [BATCH, WIDTH] });
    const patches = this.op("Conv", [x, this.weight([WIDTH, 4, 2, 2])], [BATCH, WIDTH, 16, 16], {
      strides: { kind: "ints", value: [2n, 2n] },
    });
    const tokens = this.transposed(this.shaped(patches, [BATCH, WIDTH, TOKENS]), [0, 2, 1]);
    const time = this.linear(this.silu(this.linear(this.op("Sin", [t], [BATCH, 256]), WIDTH)), WIDTH);
    const active = this.silu(this.op("Add", [time, y], [BATCH, WIDTH]));
    let stream = tokens;
    for (let block = 0; block < BLOCKS; block++) stream = this.block(stream, active);
    const [shift, scale] = this.modulation(active, 2);
    const out = this.linear(this.modulated(stream, shift, scale), 32);
    const picture = this.transposed(this.shaped(out, [BATCH, 16, 16, 2, 2, 8]), [0, 5, 1, 3, 2, 4]);
    return {
      graph: {
        name: "dit",
        inputs: [x, t, y],
        outputs: [{ name: "out", value: this.shaped(picture, [BATCH, 8, 32, 32]) }],
        nodes: this.build.nodes,
        marks: [],
      },
      opsets: new Map([["", 20]]),
      irVersion: 10,
      metadata: new Map(),
    };
  }

  private block(stream: Value, active: Value): Value {
    const [shift, scale, gate, mlpShift, mlpScale, mlpGate] = this.modulation(active, 6);
    const attended = this.gated(stream, gate, this.attention(this.modulated(stream, shift, scale)));
    const hidden = this.linear(this.modulated(attended, mlpShift, mlpScale), 4 * WIDTH);
    return this.gated(attended, mlpGate, this.linear(this.op("Gelu", [hidden], shapeOf(hidden)), WIDTH));
  }

  private attention(input: Value): Value {
    const split = [BATCH, HEADS, TOKENS, WIDTH / HEADS];
    const all = this.linear(input, 3 * WIDTH);
    const [query, key, value] = [0, 1, 2].map((i) => {
      const part = this.build.slice(all, 2, i * WIDTH, (i + 1) * WIDTH, this.name("Slice"));
      return this.transposed(this.shaped(part, [BATCH, TOKENS, HEADS, WIDTH / HEADS]), [0, 2, 1, 3]);
    });
    if (!query || !key || !value) throw new Error("attention takes three");
    const square = [BATCH, HEADS, TOKENS, TOKENS];
    const scores = this.op("Softmax", [this.op("MatMul", [query, this.transposed(key, [0, 1, 3, 2])], square)], square);
    return this.linear(this.shaped(this.transposed(this.op("MatMul", [scores, value], split), [0, 2, 1, 3]), STREAM), WIDTH);
  }

  private modulation(active: Value, count: number): readonly Value[] {
    const all = this.linear(active, count * WIDTH);
    return Array.from({ length: count }, (_, i) =>
      this.shaped(this.build.slice(all, 1, i * WIDTH, (i + 1) * WIDTH, this.name("Slice")), [BATCH, 1, WIDTH]),
    );
  }

  private modulated(stream: Value, shift: Value | undefined, scale: Value | undefined): Value {
    if (!shift || !scale) throw new Error("there is no modulation");
    const norm = this.op(
      "LayerNormalization",
      [stream, constant("ones", tensorOf("float", [WIDTH], new Float32Array(WIDTH).fill(1)))],
      STREAM,
    );
    const factor = this.op("Add", [scale, constant("one", tensorOf("float", [], [1]))], shapeOf(scale));
    return this.op("Add", [this.op("Mul", [norm, factor], STREAM), shift], STREAM);
  }

  private gated(stream: Value, gate: Value | undefined, branch: Value): Value {
    if (!gate) throw new Error("there is no gate");
    return this.op("Add", [stream, this.op("Mul", [gate, branch], STREAM)], STREAM);
  }

  private silu(value: Value): Value {
    return this.op("Mul", [value, this.op("Sigmoid", [value], shapeOf(value))], shapeOf(value));
  }

  private linear(value: Value, width: number): Value {
    const shape = [...shapeOf(value).slice(0, -1), width];
    const product = this.op("MatMul", [value, this.weight([shapeOf(value).at(-1) ?? 0, width])], shape);
    return this.op("Add", [product, this.weight([width])], shape);
  }

  private shaped(value: Value, shape: readonly number[]): Value {
    return this.op("Reshape", [value, constant("shape", tensorOf("int64", [shape.length], shape))], shape);
  }

  private transposed(value: Value, perm: readonly number[]): Value {
    const shape = perm.map((axis) => shapeOf(value)[axis] ?? 1);
    return this.op("Transpose", [value], shape, { perm: { kind: "ints", value: perm.map(BigInt) } });
  }

  private op(
    opType: StandardOperator,
    inputs: readonly Value[],
    shape: readonly number[],
    attributes: Record<string, Attribute> = {},
  ): Value {
    return this.build.op(opType, inputs, this.name(opType), { elem: "float", shape }, attributes);
  }

  private name(opType: string): string {
    return `${opType}_${this.build.nodes.length}`;
  }

  private weight(shape: readonly number[]): Value {
    const content = { kind: "file", file: "/nowhere", offset: 0, length: byteSize("float", elementCount(shape)) } as const;
    return constant("weight", { elem: "float", shape, content });
  }
}

const model = lift(new Step().model(), { latent: "x", timestep: "t" });
const { total, branches } = stepCost(model);
const macsOf = (site: string): Macs => branches.get(site) ?? { linear: NaN, attention: NaN };
const sites = cachesOf(ditView(model).branches, [["cond", "uncond"]]).map((cache) => ({ ...cache, macs: macsOf(cache.site) }));

const of = { structure: "dit", sampler: { name: "none", digest: "" }, guidance: { form: "batched", scale: 1 } };
const planning = (steps: number): Planning => ({
  run: { of, caches: sites, called: new Array<readonly Half[]>(steps).fill(["cond", "uncond"]) },
  timesteps: new Array<number>(steps).fill(0),
  macs: total,
  sites,
});
const tera = (schedule: Schedule): number => {
  const made = planning(schedule.steps);
  return summarise(made, schedule, bind(schedule, made.run).cells).macs.planned / 1e12;
};
const everyBranch = (row: string): Schedule => parseSchedule({ "*": Array.from(row, Number) }, "row");

describe("DiT-XL/2 at a batch of 64", () => {
  it("has 28 branches of each kind, whose linear layers take 7.3057 T a step", () => {
    expect(["attn", "mlp"].map((kind) => sites.filter((site) => site.kind === kind).length)).toEqual([BLOCKS, BLOCKS]);
    const [attn, mlp] = [macsOf("attn-0").linear, macsOf("mlp-27").linear];
    expect([attn, mlp]).toEqual([4, 8].map((factor) => factor * WIDTH ** 2 * TOKENS * BATCH));
    expect(sites.reduce((sum, { macs }) => sum + macs.linear, 0) / 1e12).toBeCloseTo(7.305739, 6);
    // 2 · 256² · 1152 · 28 · 64: the products of attention, which the table leaves out.
    expect(sites.reduce((sum, { macs }) => sum + macs.attention, 0)).toBe(2 * TOKENS ** 2 * WIDTH * BLOCKS * BATCH);
  });

  it.each([
    [30, 219.36],
    [50, 365.59],
    [70, 511.83],
  ])("takes as much in %d steps as the table says, but for 0.2 %%", (steps, wanted) => {
    expect(Math.abs(tera(everyBranch("1".repeat(steps))) / wanted - 1)).toBeLessThan(0.002);
  });

  /** What the table has without caching, less what it has for a plan. */
  const saved = (schedule: Schedule): number => tera(everyBranch("1".repeat(schedule.steps))) - tera(schedule);

  // Rows of SmoothCache's published files; the last figure is printed with one digit.
  it.each([
    ["50-N-3-threshold-0.08", `10010101${"1".repeat(42)}`, 365.59 - 336.37, 0.01],
    ["50-N-3-threshold-0.18", `1000100100${"10".repeat(18)}1011`, 365.59 - 175.65, 0.01],
    ["30-N-3-threshold-0.35", `100${"10".repeat(12)}111`, 219.36 - 117.08, 0.01],
    ["70-N-3-threshold-0.08", `1000100100${"10".repeat(28)}1011`, 511.83 - 248.8, 0.05],
  ])("saves with %s what the table says", (_, row, wanted, within) => {
    expect(Math.abs(saved(everyBranch(row)) - wanted)).toBeLessThan(within);
  });

  it.each([
    [30, 2, 219.36 - 117.08],
    [50, 2, 365.59 - 190.25],
    [50, 3, 365.59 - 131.81],
    [70, 2, 511.83 - 263.43],
    [70, 3, 511.83 - 175.77],
  ])("saves in %d steps with FORA at every step of %d what the table says", async (steps, interval, wanted) => {
    const shared = sites.map((site) => ({ ...site, share: site.macs.linear / total.linear }));
    const { schedule } = await choose("fora", { interval }, inputOf(steps, shared));
    expect(Math.abs(saved(schedule) - wanted)).toBeLessThan(0.01);
  });

  it("saves with as many cells as Learning-to-Cache leaves out what the table says", () => {
    // 50-N-2-l2c.json: 329 of attention and 335 of MLPs; which of them does not matter.
    const rows = ["attn", "mlp"].flatMap((kind) => {
      let left = kind === "attn" ? 329 : 335;
      return Array.from({ length: BLOCKS }, (_, block) => [
        `${kind}-${block}`,
        Array.from({ length: 50 }, (_, k) => (k % 2 === 1 && left-- > 0 ? 0 : 1)),
      ]);
    });
    expect(Math.abs(saved(parseSchedule(Object.fromEntries(rows), "rows")) - (365.59 - 278.71))).toBeLessThan(0.01);
  });
});

describe("a loop", () => {
  it.each(["dit/dynamo-20", "sd3/torchscript-17", "flux/dynamo-23", "stdit3/dynamo-20"])(
    "costs what the unrolled run does: %s",
    async (name) => {
      const fixture = fixtures.find((candidate) => candidate.name === name);
      if (!fixture) throw new Error(`no fixture ${name}`);
      const job = await openFixture(fixture, "none");
      const { plan } = planOf(job, randomSchedule(job, 7).cells);
      const [unrolled, loop] = [await compileModel(job, plan), await compileModel(job, plan, { form: "loop" })];
      expect(graphMacs(loop.model.graph)).toEqual(graphMacs(unrolled.model.graph));
      expect(graphMacs(loop.uncached.graph)).toEqual(graphMacs(unrolled.uncached.graph));
      expect(loop.macs.bound).toBeGreaterThan(1.2);
    },
  );

  const total = (text: string): number => totalMacs(graphMacs(parse(text).graph));

  it("counts its body once for each iteration, and an If by the side that each takes", () => {
    // 2·2·2 a product, in two of three iterations.
    expect(total(LOOPED)).toBe(16);
    expect(total(LOOPED.replace("{1, 0, 1}", "{0, 0, 1}"))).toBe(8);
  });

  it("takes the dearer side where the condition is not known, and one iteration where their number is not", () => {
    const given = (constant: string, input: string): string =>
      LOOPED.replace(constant, "").replace("(float[2,2] x)", `(float[2,2] x, ${input})`);
    expect(total(given("bool[3] computes = {1, 0, 1},", "bool[3] computes"))).toBe(24);
    expect(total(given("int64 trips = {3},", "int64 trips"))).toBe(8);
  });
});

describe("ONNX Runtime's own operators cost what those of the standard do that they stand for", () => {
  const zeros = (_: string, dims: string, name: string): string =>
    `float[${dims}] ${name} = {${new Array(elementCount(dims.split(",").map(Number))).fill("0").join(", ")}}`;
  const costOf = (graph: string): Macs =>
    graphMacs(
      parse(`<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]> g ${graph.replace(/weight\[([\d,]+)\] (\w+)/g, zeros)}`).graph,
    );
  const attention = `q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
    qh = Reshape(q, split)  qt = Transpose<perm = [0, 2, 1, 3]>(qh)  kh = Reshape(k, split)  kt = Transpose<perm = [0, 2, 3, 1]>(kh)
    vh = Reshape(v, wide)  vt = Transpose<perm = [0, 2, 1, 3]>(vh)  s = MatMul(qt, kt)  o = MatMul(s, vt)  ot = Transpose<perm = [0, 2, 1, 3]>(o)  y = Reshape(ot, joined)`;
  const projected = (body: string): string =>
    `(float[2,6,8] x) => (float[2,6,12] y) < weight[8,8] wq, weight[8,8] wk, weight[8,12] wv, weight[8,28] wqkv, weight[28] b, int64[4] split = {2, 6, 2, 4}, int64[4] wide = {2, 6, 2, 6}, int64[3] joined = {2, 6, 12},
      float[2,6,8] q, float[2,6,8] k, float[2,6,12] v, float[2,6,2,4] qh, float[2,2,6,4] qt, float[2,6,2,4] kh, float[2,2,4,6] kt, float[2,6,2,6] vh, float[2,2,6,6] vt, float[2,2,6,6] s, float[2,2,6,6] o, float[2,6,2,6] ot> { ${body} }`;

  it.each([
    {
      name: "FusedGemm",
      own: "(float[3,4] x) => (float[3,5] y) <weight[5,4] w> { y = com.microsoft.FusedGemm<transB = 1, activation = \"Relu\">(x, w) }",
      standard: "(float[3,4] x) => (float[3,5] y) <weight[5,4] w, float[3,5] a> { a = Gemm<transB = 1>(x, w) y = Relu(a) }",
    },
    {
      name: "FusedConv",
      own: "(float[2,4,8,8] x) => (float[2,6,4,4] y) <weight[6,4,2,2] w> { y = com.microsoft.FusedConv<strides = [2, 2], activation = \"Relu\">(x, w) }",
      standard: "(float[2,4,8,8] x) => (float[2,6,4,4] y) <weight[6,4,2,2] w> { y = Conv<strides = [2, 2]>(x, w) }",
    },
    {
      name: "MatMulNBits",
      own: "(float[2,6,32] x) => (float[2,6,10] y) <weight[10,1,16] w, weight[10] s> { y = com.microsoft.MatMulNBits<K = 32, N = 10, bits = 4, block_size = 32>(x, w, s) }",
      standard: "(float[2,6,32] x) => (float[2,6,10] y) <weight[32,10] w> { y = MatMul(x, w) }",
    },
    { name: "Attention", own: projected("y = com.microsoft.Attention<num_heads = 2, qkv_hidden_sizes = [8, 8, 12]>(x, wqkv, b)"), standard: projected(attention) },
    {
      name: "MultiHeadAttention",
      own: projected("q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v)"),
      standard: projected(attention),
    },
    {
      name: "MultiHeadAttention, of another length, with keys and values as one",
      own: "(float[2,6,8] q, float[2,5,2,2,4] kv) => (float[2,6,8] y) { y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, kv) }",
      standard: "(float[2,2,6,4] q, float[2,2,4,5] k, float[2,2,5,4] v) => (float[2,2,6,4] y) <float[2,2,6,5] s> { s = MatMul(q, k) y = MatMul(s, v) }",
    },
    {
      name: "GroupQueryAttention, with all in one",
      own: "(float[2,6,16] x) => (float[2,6,8] y) { y = com.microsoft.GroupQueryAttention<num_heads = 2, kv_num_heads = 1>(x) }",
      standard: "(float[2,2,6,4] q, float[2,2,4,6] k, float[2,2,6,4] v) => (float[2,2,6,4] y) <float[2,2,6,6] s> { s = MatMul(q, k) y = MatMul(s, v) }",
    },
  ])("$name", ({ own, standard }) => {
    expect(totalMacs(costOf(standard))).toBeGreaterThan(0);
    expect(costOf(own)).toEqual(costOf(standard));
  }); // prettier-ignore
});
