/** Which inputs are taken for latent and time, in small steps that differ in nothing else; and that a run tells each of them its time. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ditView } from "../ir/graph.js";
import { lift } from "../ir/lift/index.js";
import { writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { relativeL2 } from "../schedules/index.js";
import { openJob } from "../src/job/job.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { thrownBy } from "./support/thrown.js";
import { tinyStep } from "./support/tiny-step.js";

interface Embedding {
  /** Inputs beside the latent `x` [b, 6, 4]. */
  readonly inputs: string;
  readonly weights?: string;
  /** Nodes that make `gate`, [b, 1, 4] or [b, 6, 4]. */
  readonly nodes: string;
}

const WAVES = "angle = Mul(col, freq)  sine = Sin(angle)  gate = Unsqueeze(sine, one)";
const TABLE = `float[9,4] table = {${Array.from({ length: 36 }, (_, i) => Math.cos(i).toFixed(3)).join(", ")}}`;
const SQUARE = `float[4,4] square = {${Array.from({ length: 16 }, (_, i) => Math.cos(i).toFixed(3)).join(", ")}}`;
const PLAIN: Embedding = { inputs: "float[b] t", nodes: `col = Unsqueeze(t, one)  ${WAVES}` };

/** The tiny step with another way from its inputs to the gate. */
function stepWith({ inputs, weights = "", nodes }: Embedding): string {
  const whole = tinyStep()
    .replace("int64[b] t, float[2] size", inputs)
    .replace("float[1,4] freq", `${weights}${weights && ", "}float[1,4] freq`);
  const [head = "", rest = ""] = whole.split("e0 = Cast");
  const [, ...behind] = rest.split("gate = Unsqueeze(sine, one)");
  const body = behind
    .join("")
    .replace("sum = ReduceSum<keepdims = 0>(size)  scaled = Mul(h1, sum)  out = MatMul(scaled, w_out)", "out = MatMul(h1, w_out)");
  return `${head}${nodes}${body}`;
}

const lifted = (embedding: Embedding, timestep?: string | readonly string[]) => ditView(lift(parse(stepWith(embedding)), { timestep }));

describe("the time is found", () => {
  it.each<[about: string, embedding: Embedding, timestep: string]>([
    ["in a number for each sample", PLAIN, "t"],
    ["of any name", { ...PLAIN, inputs: "float[b] level", nodes: `col = Unsqueeze(level, one)  ${WAVES}` }, "level"],
    ["of rank 2", { inputs: "float[b,1] level", nodes: `col = Identity(level)  ${WAVES}` }, "level"],
    [
      "of rank 3",
      { inputs: "float[b,1,1] level", weights: "int64[2] flat = {0, 1}", nodes: `col = Reshape(level, flat)  ${WAVES}` },
      "level",
    ],
    ["of rank 0", { inputs: "float level", weights: "int64[2] flat = {1, 1}", nodes: `col = Reshape(level, flat)  ${WAVES}` }, "level"],
    [
      "in a number for each token, embedded and weighed",
      { inputs: "float[b,6] level", weights: `int64[1] two = {2}, ${SQUARE}`, nodes: "col = Unsqueeze(level, two)  angle = Mul(col, freq)  sine = Sin(angle)  gate = MatMul(sine, square)" }, // prettier-ignore
      "level",
    ],
    [
      "behind a quantiser, a Where and a logarithm",
      { inputs: "float[b] level", weights: "float fine = {0.1}", nodes: `whole = QuantizeLinear(level, fine)  near = DequantizeLinear(whole, fine)  on = Greater(near, fine)  most = Where(on, near, fine)  l = Log(most)  col = Unsqueeze(l, one)  ${WAVES}` }, // prettier-ignore
      "level",
    ],
    [
      "in learned frequencies",
      { inputs: "float[b] level, int64[b] label", weights: `float[4,1] own = {0.1, 0.2, 0.3, 0.4}, ${TABLE}`, nodes: "col = Unsqueeze(level, one)  angle = Gemm<transB = 1>(col, own)  wave = Sin(angle)  shade = Gather(table, label)  both = Add(wave, shade)  gate = Unsqueeze(both, one)" }, // prettier-ignore
      "level",
    ],
    [
      "in a table, by its name",
      { inputs: "int64[b] t, int64[b] label", weights: TABLE, nodes: "early = Gather(table, t)  late = Gather(table, label)  both = Add(early, late)  gate = Unsqueeze(both, one)" }, // prettier-ignore
      "t",
    ],
    [
      "where there is no sine, as the only float beside a label",
      { inputs: "float[b] level, int64[b] label", weights: `float[1,4] row = {1, 2, 3, 4}, ${TABLE}`, nodes: "col = Unsqueeze(level, one)  wave = MatMul(col, row)  shade = Gather(table, label)  both = Add(wave, shade)  gate = Unsqueeze(both, one)" }, // prettier-ignore
      "level",
    ],
    [
      "beside positions that turn what the tokens hold",
      { inputs: "float[b] level, float[b,6] places", weights: "int64[1] two = {2}, float[1,4] row = {1, 2, 3, 4}", nodes: "far = Unsqueeze(places, two)  turn = Mul(far, freq)  cosine = Cos(turn)  col = Unsqueeze(level, one)  wave = MatMul(col, row)  above = Unsqueeze(wave, one)  gate = Mul(above, cosine)" }, // prettier-ignore
      "level",
    ],
  ])("%s", (_, embedding, timestep) => {
    expect(lifted(embedding)).toMatchObject({ latent: "x", timestep, guesses: [] });
  });

  it("and is left to the user where several are alike", () => {
    const two = { inputs: "float[b] early, float[b] late", nodes: `sum = Add(early, late)  col = Unsqueeze(sum, one)  ${WAVES}` };
    expect(lifted(two).guesses).toEqual([{ role: "timestep", option: "timestep", candidates: ["early", "late"] }]);
    expect(lifted(two, "late")).toMatchObject({ timestep: "late", guesses: [] });
  });

  it("and told to the network alike, whatever its shape", async () => {
    const run = async (embedding: Embedding): Promise<Float32Array> => {
      const home = mkdtempSync(join(tmpdir(), "smoothcc-ports-"));
      await writeModel(parse(stepWith(embedding)), join(home, "model.onnx"));
      const scheduler = { _class_name: "DDIMScheduler", clip_sample: false };
      writeFileSync(
        join(home, "recipe.json"),
        JSON.stringify({ model: "model.onnx", scheduler, steps: 3, guidance: { form: "batched", scale: 2 } }),
      );
      const job = await openJob(home, {});
      const loop = new ReferenceLoop(job.run);
      const latent = await loop.run(sampleInputs(job, 0, { seed: 1 }));
      await loop.close();
      return latent;
    };
    const known = await run(PLAIN);
    const column: Embedding = { inputs: "float[b,1] t", nodes: `col = Identity(t)  ${WAVES}` };
    const tokens: Embedding = {
      inputs: "float[b,6] t",
      weights: "int64[1] two = {2}",
      nodes: "col = Unsqueeze(t, two)  angle = Mul(col, freq)  gate = Sin(angle)",
    };
    for (const embedding of [column, tokens]) expect(relativeL2(await run(embedding), known)).toBeLessThan(1e-6);
  });
});

describe("a network is refused", () => {
  const problem = (text: string, timestep?: string | readonly string[]) => thrownBy(() => lift(parse(text), { timestep }));

  it("whose time is looked up as a label is, and has no name of a time: the hint names it", () => {
    const alike = { inputs: "int64[b] level, int64[b] label", weights: TABLE, nodes: "early = Gather(table, level)  late = Gather(table, label)  both = Add(early, late)  gate = Unsqueeze(both, one)" }; // prettier-ignore
    const refused = problem(stepWith(alike));
    expect(refused?.message).toContain("one of 'level', 'label'");
    expect(refused?.hint).toContain('"timestep": "level"');
    expect(lifted(alike, "level").timestep).toBe("level");
  });

  it.each<[about: string, embedding: Embedding]>([
    [
      "by weights",
      { inputs: "float[b,4] temb", weights: SQUARE, nodes: "act = Tanh(temb)  mixed = MatMul(act, square)  gate = Unsqueeze(mixed, one)" },
    ],
    ["by the stream", { inputs: "float[b,4] temb", nodes: "gate = Unsqueeze(temb, one)" }],
    ["by a norm", { inputs: "float[b,1,4] temb", weights: "float[4] ones = {1, 1, 1, 1}", nodes: "gate = LayerNormalization(temb, ones)" }],
  ])("whose time would be a vector, used %s", (_, embedding) => {
    const refused = problem(stepWith(embedding), "temb");
    expect(refused).toMatchObject({ code: "NOT_RECOGNISED" });
    expect(refused?.message).toContain("'temb' is no time");
    expect(refused?.hint).toContain("onnx.compose.merge_models");
    expect(problem(stepWith(embedding))?.message).toContain("The graph has no time");
    const customary = {
      ...embedding,
      inputs: embedding.inputs.replace("temb", "timestep"),
      nodes: embedding.nodes.replaceAll("temb", "timestep"),
    };
    expect(problem(stepWith(customary))?.message).toContain("'timestep' is no time");
  });

  it.each<[about: string, embedding: Embedding, named: string, said: string]>([
    [
      "a label, looked up in a table",
      { inputs: "float[b] level, int64[b] label", weights: TABLE, nodes: `col = Unsqueeze(level, one)  angle = Mul(col, freq)  wave = Sin(angle)  shade = Gather(table, label)  both = Add(wave, shade)  gate = Unsqueeze(both, one)` }, // prettier-ignore
      "label",
      "'level' goes into a sine or cosine, as times do, and 'label' does not",
    ],
    [
      "a mask of tokens",
      { inputs: "float[b] level, float[b,6] mask", weights: "int64[1] two = {2}", nodes: `col = Unsqueeze(level, one)  angle = Mul(col, freq)  sine = Sin(angle)  above = Unsqueeze(sine, one)  seen = Unsqueeze(mask, two)  gate = Mul(above, seen)` }, // prettier-ignore
      "mask",
      "'level' goes into a sine or cosine",
    ],
    [
      "truth values",
      { inputs: "float[b] level, bool[b] known", nodes: `told = Cast<to = 1>(known)  near = Mul(level, told)  col = Unsqueeze(near, one)  ${WAVES}` }, // prettier-ignore
      "known",
      "it is bool [b]",
    ],
    [
      "of more axes than tokens have",
      { inputs: "float[b] level, float[b,6,4] place", nodes: `col = Unsqueeze(level, one)  angle = Mul(col, freq)  sine = Sin(angle)  above = Unsqueeze(sine, one)  gate = Mul(above, place)` }, // prettier-ignore
      "place",
      "it is float [b, 6, 4]",
    ],
  ])("whose recipe calls something the time that is none: %s", (_, embedding, named, said) => {
    const refused = problem(stepWith(embedding), named);
    expect(refused).toMatchObject({ code: "NOT_RECOGNISED" });
    expect(refused?.message).toContain(`'${named}' is no time: ${said}`);
    // Not if it stands behind the time, either.
    expect(problem(stepWith(embedding), ["level", named])?.message).toContain(`'${named}' is no time`);
    expect(lifted(embedding, "level").timestep).toBe("level");
  });

  it("but not where it is called as times are, or is a time of tokens beside another number in a sine", () => {
    const table = { inputs: "int64[b] timestep, float[b] guidance", weights: TABLE, nodes: `early = Gather(table, timestep)  col = Unsqueeze(guidance, one)  angle = Mul(col, freq)  wave = Sin(angle)  both = Add(early, wave)  gate = Unsqueeze(both, one)` }; // prettier-ignore
    expect(lifted(table, "timestep").timestep).toBe("timestep");
    const tokens = { inputs: "float[b,6] level, float[b] guidance", weights: `int64[1] two = {2}, ${SQUARE}`, nodes: "far = Unsqueeze(level, two)  turn = Mul(far, freq)  sine = Sin(turn)  mixed = MatMul(sine, square)  col = Unsqueeze(guidance, one)  angle = Mul(col, freq)  wave = Sin(angle)  above = Unsqueeze(wave, one)  gate = Add(mixed, above)" }; // prettier-ignore
    expect(lifted(tokens, "level").timestep).toBe("level");
  });

  it("whose latent would be ids", () => {
    const ids = (shape: string, out: string): string =>
      `<ir_version: 8, opset_import: ["" : 17]> g (int64[${shape}] ids, float[b] t, float[b,77,4] text) => (float[${out}] logits) { logits = Identity(text) }`;
    for (const [shape, out] of [
      ["b,16", "b,16,32"],
      ["b,8,8", "b,8,8,32"],
      ["b,3,8,8", "b,3,256,8,8"],
      ["b,1,8,8", "b,1,8,8"],
    ].map(([a = "", b = ""]) => [a, b] as const)) {
      const refused = problem(ids(shape, out));
      expect(refused?.message).toContain("'ids', which is of type int64");
      expect(refused?.message).toContain("'logits' has scores");
    }
    // A map of classes beside a float latent is a condition.
    const map = stepWith({ ...PLAIN, inputs: "float[b] t, int64[b,6] classes", nodes: `zero = Cast<to = 1>(classes)  z = ReduceMax<axes = [1], keepdims = 0>(zero)  tz = Add(t, z)  col = Unsqueeze(tz, one)  ${WAVES}` }); // prettier-ignore
    expect(ditView(lift(parse(map)))).toMatchObject({ latent: "x", timestep: "t", conditions: ["classes"] });
  });
});
