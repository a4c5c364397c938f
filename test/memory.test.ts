/** Memory that is known beforehand: small graphs counted by hand, and what the system says of a run. */
import { forms } from "../passes/index.js";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { ditView } from "../ir/graph.js";
import { parse } from "../ir/parse.js";
import { staticShape } from "../ir/types.js";
import { bind, type ScheduleCell } from "../schedules/index.js";
import { ArtifactSession, feedsOf, writeEmitted } from "../src/artifact/artifact.js";
import { limitCache } from "../src/compile/cache-limit.js";
import { compileModel } from "../src/compile/compile.js";
import { type Job, openJob } from "../src/job/job.js";
import { memoryOf } from "../src/compile/memory.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { planOf } from "./support/jobs.js";
import { codeOf } from "./support/thrown.js";
import { cellsOf, inTwoCalls } from "./support/runs.js";

const GLYPHS = resolve(import.meta.dirname, "..", "examples", "glyphs");

const folder = mkdtempSync(join(tmpdir(), "smoothcc-memory-"));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Of a graph of float[10,10], unless it says otherwise: 400 bytes each. */
function activations(graph: string, types = "float[10,10] a, float[10,10] b"): number {
  const model = parse(`<ir_version: 10, opset_import: ["" : 20]> g (float[10,10] x) => (float[10,10] y) <${types}> { ${graph} }`);
  return memoryOf(model, model, "x").activations;
}

describe("activations", () => {
  it("are given back after their last reader", () => {
    expect(activations("a = Softmax(x) b = Softmax(a) y = Softmax(b)")).toBe(800);
  });

  it("are written over by an elementwise node that reads them last, and by no other", () => {
    expect(activations("a = Softmax(x) b = Exp(a) y = Tanh(b)")).toBe(400);
    expect(activations("a = Softmax(x) b = Exp(a) y = Add(a, b)")).toBe(800);
    expect(activations("a = Softmax(x) b = Mul(a, a) y = Tanh(b)")).toBe(800);
    // What a run is given stays as it is, and is no activation.
    expect(activations("y = Exp(x)")).toBe(400);
  });

  it("take nothing for a view, which keeps what it shows", () => {
    const types = "int64[1] s = {100}, int64[2] t = {10, 10}, float[10,10] a, float[100] b, float[10,10] c";
    expect(activations("a = Softmax(x) b = Reshape(a, s) c = Reshape(b, t) y = Softmax(c)", types)).toBe(800);
    expect(activations("b = Reshape(x, s) c = Reshape(b, t) y = Softmax(c)", types)).toBe(400);
  });

  it("wait for the next value of their shape", () => {
    // a (400) is dead when c is made, and has the shape of c; b (200) lives beside it, and d (800) finds nothing of its shape.
    const types = "float[10,5] w = {...}, float[5,20] v = {...}, float[20,10] u = {...}, float[10,10] a, float[10,5] b, float[10,20] d";
    expect(activations("a = Softmax(x) b = MatMul(a, w) d = MatMul(b, v) y = MatMul(d, u)", types)).toBe(400 + 200 + 800);
  });
});

describe("a node with graphs", () => {
  it("takes, beside what it gives, what one of them takes at most", () => {
    // c is none of the 400s; of the sides, one takes p and q beside what it gives, the other nothing.
    const sides = `then_branch = t () => (r) <float[10,10] p, float[10,10] q, float[10,10] r> { p = Softmax(a) q = Softmax(p) r = Softmax(q) },
      else_branch = e () => (s) <float[10,10] s> { s = Softmax(a) }`;
    expect(activations(`a = Softmax(x) y = If<${sides}>(c)`, "bool c = {1}, float[10,10] a")).toBe(400 + 400 + 800);
  });

  it("has what a Loop carries twice: given by the iteration before, and made for the next", () => {
    const body = "b (int64 i, bool on, float[10,10] h) => (on, n) <float[10,10] m, float[10,10] n> { m = Softmax(h) n = Softmax(m) }";
    expect(activations(`a = Softmax(x) y = Loop<body = ${body}>(trips, "", a)`, "int64 trips = {3}, float[10,10] a")).toBe(400 + 400 + 800);
  });
});

/** The glyph model at a few steps, and a plan that computes every other one. */
async function glyphs(batch: number, steps: number): Promise<{ readonly job: Job; readonly everyOther: readonly ScheduleCell[] }> {
  const job = await openJob(GLYPHS, { batch, steps }, { threads: 1 });
  return { job, everyOther: Array.from({ length: steps }, (_, step): ScheduleCell => (step % 2 === 0 ? 1 : 0)) };
}

describe("the memory of a run", () => {
  it.for([...forms.keys()])("is what the system says it is, %s", async (form, ctx) => {
    if (process.platform !== "linux") return ctx.skip("there is no /proc");
    const { job, everyOther } = await glyphs(32, 4);
    const { plan } = planOf(job, new Map([["attn", everyOther], ["mlp", everyOther]])); // prettier-ignore
    const { model, memory } = await compileModel(job, plan, { form });
    const file = join(folder, "model.onnx");
    await writeEmitted(model, file);
    const session = await ArtifactSession.open(file, { threads: 1, prepack: true });
    const feeds = feedsOf(job, sampleInputs(job, 0, { seed: 0 }));
    const status = (field: string): number =>
      Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync("/proc/self/status", "utf8"))?.[1]) * 1024;
    // Makes the peak so far that of now.
    writeFileSync("/proc/self/clear_refs", "5");
    const before = status("VmRSS");
    await session.run(feeds);
    const grown = status("VmHWM") - before;
    await session.close();
    expect(memory.activations).toBeGreaterThan(30e6);
    // The weights are pages of the file until they are read.
    expect(grown).toBeGreaterThan(0.8 * memory.activations);
    expect(grown).toBeLessThan(1.35 * (memory.activations + memory.weights));
  });

  it("has in the cache no more than what every branch gives to the next step", async () => {
    const { job, everyOther } = await glyphs(2, 4);
    const { plan } = planOf(job, new Map([["attn", everyOther]]));
    const { memory } = await compileModel(job, plan);
    const bytes = attentionBytes(job).reduce((sum, one) => sum + one, 0);
    expect(memory.cache).toBeGreaterThan(0);
    expect(memory.cache).toBeLessThanOrEqual(bytes);
  });
});

/** What the outputs of each attention branch take, from its shape. */
function attentionBytes({ model }: Job): readonly number[] {
  const ofKind = new Set(ditView(model).branches.flatMap(({ kind, site }) => (kind === "attn" ? [site] : [])));
  return model.graph.marks
    .filter(({ site }) => ofKind.has(site))
    .map(({ value }) => (staticShape(value.type) ?? []).reduce((product, dim) => product * dim, 4));
}

describe("limitCache", () => {
  it("gives up branches until the rest fits, the dearest first", async () => {
    const { job, everyOther } = await glyphs(1, 6);
    const schedule = { steps: 6, cells: new Map([["attn", everyOther], ["mlp", everyOther]]) }; // prettier-ignore
    const sites = ditView(job.model).branches;
    const [one = 0] = attentionBytes(job);
    expect(limitCache(job, schedule, sites.length * one)).toEqual({ schedule, computed: [] });
    const limited = limitCache(job, schedule, (sites.length - 3) * one);
    // A feed-forward branch saves more MACs for the same bytes.
    expect(limited.computed).toEqual(["attn-0", "attn-1", "attn-2"]);
    const { plan } = planOf(job, limited.schedule.cells);
    for (const { site } of sites) {
      const kinds = cellsOf(plan, site).map(({ kind }) => kind);
      expect(kinds.includes("terms"), site).toBe(!limited.computed.includes(site));
    }
    const { memory } = await compileModel(job, plan);
    expect(memory.cache).toBeLessThanOrEqual((sites.length - 3) * one);
  });

  it("counts the tokens that are computed after all as not saved, and keys and values that are kept", async () => {
    const { job } = await glyphs(1, 6);
    const [one = 0] = attentionBytes(job);
    const row = (cell: ScheduleCell): readonly ScheduleCell[] => [1, cell, 1, cell, 1, 1];
    const cells = new Map([["attn-0", row({ tokens: 0.5, by: "stagger", kv: "cached" })], ["attn-1", row(0)]]); // prettier-ignore
    const schedule = { steps: 6, cells };
    // A value of each, and of one its keys and values too, which are as large.
    expect(limitCache(job, schedule, 4 * one).computed).toEqual([]);
    expect(limitCache(job, schedule, 4 * one - 1).computed).toEqual(["attn-0"]);
    // For the same bytes, half of the tokens save less.
    const fresh = { steps: 6, cells: new Map([["attn-0", row(0)], ["attn-1", row({ tokens: 0.5, by: "stagger" })]]) }; // prettier-ignore
    expect(limitCache(job, fresh, 2 * one - 1).computed).toEqual(["attn-1"]);
  });

  it("counts what forecasts keep, and gives up both halves of two calls", async () => {
    const job = await openJob(GLYPHS, { batch: 1, steps: 6 }, { threads: 1 });
    const forecast: readonly ScheduleCell[] = [1, 0, 1, [[0, -1], [2, 2]], 1, 0]; // prettier-ignore
    const [one = 0] = attentionBytes(job);
    const twoCalls = inTwoCalls(job);
    const schedule = { steps: 6, cells: new Map([["attn-0", forecast], ["attn-0@uncond", forecast], ["mlp-1", [1, 0, 1, 1, 1, 1] as const]]) }; // prettier-ignore
    // At step 3 attn-0 keeps the values of steps 0 and 2, for each of two calls.
    expect(limitCache(twoCalls, schedule, 4 * one).computed).toEqual([]);
    const { computed, schedule: limited } = limitCache(twoCalls, schedule, 4 * one - 1);
    expect(computed).toEqual(["attn-0"]);
    const plan = bind(limited, twoCalls.run);
    expect([cellsOf(plan, "attn-0"), cellsOf(plan, "attn-0@uncond")].flat().every((cell) => cell.kind === "compute")).toBe(true);
  });

  it("refuses a limit under which nothing is cached", async () => {
    const { job, everyOther } = await glyphs(1, 4);
    const schedule = { steps: 4, cells: new Map([["attn-3", everyOther]]) };
    expect(codeOf(() => limitCache(job, schedule, 100))).toBe("BAD_OPTION");
  });
});
