/**
 * Two networks in one run: what is emitted against a loop that is written here by hand, over sessions of the two exports, along a plan and
 * without one; what plans, traces, prices and folders have of the second; and what is refused.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { constant, type Graph, type Value, withGraph } from "../ir/graph.js";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { rewrite } from "../ir/rewrite.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { elementCount } from "../ir/types.js";
import { bind, type Cell, relativeL2, type Schedule, type ScheduleCell } from "../schedules/index.js";
import { feedsOf, openArtifact, writeArtifact } from "../src/artifact/artifact.js";
import { verify } from "../src/artifact/verify.js";
import { calibrate } from "../src/calibration/calibrate.js";
import { type Compiled, compileModel } from "../src/compile/compile.js";
import { readJson } from "../src/files/json.js";
import { readNpy } from "../src/files/npy.js";
import { cutFor, type Job, openJob, warningsOf, withBatch } from "../src/job/job.js";
import { readPlan, writePlan } from "../src/job/plan-file.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { openJobSource } from "../src/job/source.js";
import { choosePlan } from "../src/planning/choose.js";
import { planningForJob, planningFromTrace } from "../src/planning/planning.js";
import { runsOf } from "../src/planning/runs.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { startOf } from "../src/reference/start.js";
import { Session } from "../src/runtime/session.js";
import { cli } from "./support/cli.js";
import { fixtureNamed } from "./support/fixtures.js";
import { randomSchedule } from "./support/jobs.js";
import { cellsOf } from "./support/runs.js";
import { codeOf, rejectedCodeOf, thrownBy } from "./support/thrown.js";
import { tinyStep, type TinyStep } from "./support/tiny-step.js";

const ONE_THREAD = { threads: 1 } as const;
const AS_IT_IS = { ...ONE_THREAD, optimise: "disabled" } as const;

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-experts-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const STEP: TinyStep = { label: true, mlps: 2 };

/** The step of the first network; that of the second has the numbers of each matrix in reverse, and the same classes. */
const TEXTS = [tinyStep(STEP), otherWeights(tinyStep(STEP))] as const;

function otherWeights(text: string): string {
  return text.replace(/(float\[\d+,\d+\] (?:w_|up|down)\w* = \{)([^}]*)\}/g, (_, head: string, numbers: string) => {
    return `${head}${numbers.split(", ").reverse().join(", ")}}`;
  });
}

/** Of Euler's method in a flow: times are a thousand times as large. */
const SIGMAS = [1, 0.85, 0.7, 0.5, 0.3, 0.1];
/** The second network is told times below that of the third step. */
const BORDER = 3;
const LABELS = [1, 2];
const NO_LABEL = 4;
const SIZE = [0.3, 0.7];

type Facts = Readonly<Record<string, unknown>>;

interface Given {
  readonly guidance?: Facts;
  readonly network?: Facts;
  readonly changes?: Facts;
  readonly texts?: readonly string[];
}

/** A folder with the two networks and their recipe. */
async function homeOf({
  guidance = { form: "none" },
  network = { belowTime: 700 },
  changes = {},
  texts = TEXTS,
}: Given = {}): Promise<string> {
  const home = mkdtempSync(join(folder, "x"));
  const files = ["model.onnx", "low/model.onnx"];
  for (const [i, text] of texts.entries()) {
    const file = join(home, files[i] ?? "");
    mkdirSync(dirname(file), { recursive: true });
    await writeModel(parse(text), file);
  }
  const halves = ["batched", "two-calls"].includes(String(guidance["form"]));
  const recipe = {
    ...{ model: "model.onnx", timestep: "t", networks: [{ model: "low/model.onnx", ...network }] },
    ...{ scheduler: { _class_name: "FlowMatchEulerDiscreteScheduler" }, sampling: { sigmas: SIGMAS }, steps: SIGMAS.length, batch: 2 },
    prediction: { channelAxis: 2 },
    guidance: { ...guidance, ...(halves ? { uncond: { label: NO_LABEL } } : {}) },
    inputs: { size: { calibrate: [SIZE] }, label: { calibrate: [LABELS] } },
    ...changes,
  };
  writeFileSync(join(home, "recipe.json"), JSON.stringify(recipe));
  return home;
}

async function jobOf(given?: Given): Promise<Job> {
  return openJob(await homeOf(given), {}, ONE_THREAD);
}

/** What the output of attention is at a step: computed, or a sum of what it was at others. */
type Attention = "compute" | readonly (readonly [step: number, weight: number])[];

/**
 * The run by hand. A step whose attention is not computed is the same text without it, and with an input in its place. `scales`: guidance
 * at each step, in two calls.
 */
async function byHand(
  noise: Float32Array,
  { border = BORDER, scales, attention = () => "compute", from = 0, to = SIGMAS.length, texts = TEXTS }: {
    readonly border?: number;
    readonly scales?: readonly number[];
    readonly attention?: (step: number) => Attention;
    readonly from?: number;
    readonly to?: number;
    readonly texts?: readonly string[];
  } = {}, // prettier-ignore
): Promise<Float32Array> {
  const shape = [2, 6, 4];
  const sessions = new Map<string, Session>();
  const sessionOf = async (step: number, cached: boolean): Promise<Session> => {
    const text = texts[step < border ? 0 : 1] ?? "";
    const whole = text.replace("(float[b,6,4] out)", "(float[b,6,4] out, float[b,6,4] o)");
    const without = text
      .replace(/q = MatMul[\s\S]*?o = MatMul\(a, w_o\)/, "")
      .replace("float[b,6,4] x,", "float[b,6,4] x, float[b,6,4] o,");
    const chosen = cached ? without : whole;
    const session = sessions.get(chosen) ?? (await Session.open(parse(chosen), AS_IT_IS));
    sessions.set(chosen, session);
    return session;
  };
  const kept = new Map<string, readonly number[]>();
  let x = [...noise];
  for (let step = from; step < to; step++) {
    const what = attention(step);
    const predict = async (half: string, label: readonly number[]): Promise<number[]> => {
      const sum =
        what === "compute"
          ? []
          : x.map((_, i) => what.reduce((total, [k, weight]) => total + weight * (kept.get(`${half}${k}`)?.[i] ?? NaN), 0));
      const given = new Map([
        ["x", tensorOf("float", shape, x)],
        ["t", tensorOf("int64", [2], [Math.round(1000 * (SIGMAS[step] ?? NaN)), Math.round(1000 * (SIGMAS[step] ?? NaN))])],
        ["size", tensorOf("float", [2], SIZE)],
        ["label", tensorOf("int64", [2], label)],
        ...(what === "compute" ? [] : [["o", tensorOf("float", shape, sum)] as const]),
      ]); // prettier-ignore
      const results = await (await sessionOf(step, what !== "compute")).run(given);
      const [out, o] = ["out", "o"].map((name) => results.get(name));
      if (o) kept.set(`${half}${step}`, tensorNumbers(o));
      return out ? tensorNumbers(out) : [];
    };
    const cond = await predict("cond", LABELS);
    const scale = scales?.[step] ?? 1;
    const uncond = scale === 1 ? cond : await predict("uncond", [NO_LABEL, NO_LABEL]);
    const next = (SIGMAS[step + 1] ?? 0) - (SIGMAS[step] ?? NaN);
    x = x.map((value, i) => Math.fround(value + next * ((uncond[i] ?? NaN) + scale * ((cond[i] ?? NaN) - (uncond[i] ?? NaN)))));
  }
  for (const session of sessions.values()) await session.close();
  return Float32Array.from(x);
}

interface Ran {
  readonly compiled: Compiled;
  readonly noise: Float32Array;
  readonly artifact: readonly number[];
  readonly loop: Float32Array;
}

/** What is emitted for a schedule, run, and the reference loop along it. */
async function runs(job: Job, schedule: Schedule, seed = 3): Promise<Ran> {
  const plan = bind(schedule, job.run);
  const inputs = sampleInputs(job, 0, { seed });
  const compiled = await compileModel(job, plan);
  const session = await Session.open(compiled.model, AS_IT_IS);
  const loop = new ReferenceLoop(job.run, ONE_THREAD);
  try {
    const latent = (await session.run(feedsOf(job, inputs))).get("latent");
    return { compiled, noise: inputs.noise, artifact: latent ? tensorNumbers(latent) : [], loop: await loop.run(inputs, { plan }) };
  } finally {
    await session.close();
    await loop.close();
  }
}

const uncached: Schedule = { steps: SIGMAS.length, cells: new Map() };

function attn(...row: readonly ScheduleCell[]): Schedule {
  return { steps: SIGMAS.length, cells: new Map([["attn", row]]) };
}

describe("the run calls the second network below the border", () => {
  it.each([
    { about: "a time, which itself is not below", network: { belowTime: 700 } },
    { about: "a row", network: { from: BORDER } },
    { about: "another row", network: { from: 1 }, border: 1 },
    { about: "a time that the run begins below", network: { belowTime: 2000 }, border: 0 },
    { about: "a time that the run does not get to", network: { belowTime: 100 }, border: SIGMAS.length },
    { about: "two calls, a scale of its own", network: { from: BORDER, scale: 2 }, guidance: { form: "two-calls", scale: 3 }, scales: [3, 3, 3, 2, 2, 2] },
    { about: "one call, a scale of its own", network: { from: BORDER, scale: 2 }, guidance: { form: "batched", scale: 3 }, scales: [3, 3, 3, 2, 2, 2] },
    { about: "one call, the scale that leaves out a half", network: { from: BORDER, scale: 1 }, guidance: { form: "batched", scale: 3 }, scales: [3, 3, 3, 1, 1, 1] },
    { about: "one call, a list of scales", network: { from: 2, scale: 4 }, guidance: { form: "batched", scale: [1, 2, 3, 4, 5, 6] }, scales: [1, 2, 4, 4, 4, 4], border: 2 },
    { about: "two calls, within a window", network: { from: BORDER, scale: 4 }, guidance: { form: "two-calls", scale: 3, interval: [1, 5] }, scales: [1, 3, 3, 4, 4, 1] },
  ])("$about", async ({ network, guidance, scales, border = BORDER }) => {
    const job = await jobOf({ network, ...(guidance && { guidance }) });
    const { artifact, loop, noise } = await runs(job, uncached);
    const truth = await byHand(noise, { border, ...(scales && { scales }) });
    expect(relativeL2(artifact, truth)).toBeLessThanOrEqual(1e-5);
    expect(relativeL2(loop, truth)).toBeLessThanOrEqual(1e-5);
    // Which network is called when is seen in the result.
    if (border > 0) expect(relativeL2(await byHand(noise, { border: border - 1, ...(scales && { scales }) }), truth)).toBeGreaterThan(1e-3);
  }); // prettier-ignore

  it("with exports of a batch of their own, and other names of their dimensions", async () => {
    const [first, second] = TEXTS;
    for (const texts of [
      [first, second.replaceAll("[b", "[rows")],
      [first.replaceAll("[b", "[2"), second.replaceAll("[b", "[2")],
    ]) {
      const { artifact, noise } = await runs(await jobOf({ texts }), uncached);
      expect(relativeL2(artifact, await byHand(noise))).toBeLessThanOrEqual(1e-5);
    }
  });

  it("with a scale of its own as an input of the network, which is one for each step", async () => {
    const text = tinyStep({ ...STEP, guidance: true });
    const texts = [text, otherWeights(text)];
    const own = await jobOf({ texts, guidance: { form: "embedded", scale: 3 }, network: { from: BORDER, scale: 2 } });
    const list = await jobOf({ texts, guidance: { form: "embedded", scale: [3, 3, 3, 2, 2, 2] } });
    const plain = await jobOf({ texts, guidance: { form: "embedded", scale: 3 } });
    const [one, other, third] = [await runs(own, uncached), await runs(list, uncached), await runs(plain, uncached)];
    expect(one.artifact).toEqual(other.artifact);
    expect(relativeL2(one.artifact, one.loop)).toBeLessThanOrEqual(1e-5);
    expect(relativeL2(third.artifact, one.artifact)).toBeGreaterThan(1e-4);
  });

  it("in half precision, within what that rounds", async () => {
    const { artifact, noise } = await runs(await jobOf({ changes: { precision: "fp16" } }), uncached);
    expect(relativeL2(artifact, await byHand(noise))).toBeLessThanOrEqual(5e-3);
  });

  it("from the start of an image, whose run before it calls both", async () => {
    const job = await jobOf({ changes: { strength: 0.5 } });
    expect(job.run.borders).toEqual([0]);
    const whole = sampleInputs(job, 0, { seed: 3 }).noise;
    const { noise } = await startOf(job, 0, { seed: 3, ...ONE_THREAD });
    expect(relativeL2(noise, await byHand(whole, { to: 3 }))).toBeLessThanOrEqual(1e-5);
    const loop = new ReferenceLoop(job.run, ONE_THREAD);
    const result = await loop.run({ ...sampleInputs(job, 0, { seed: 3 }), noise });
    await loop.close();
    expect(relativeL2(result, await byHand(whole))).toBeLessThanOrEqual(1e-5);
  });
});

describe("caches end at the border", () => {
  it.each([
    { about: "no guidance", guidance: { form: "none" } },
    { about: "two calls", guidance: { form: "two-calls", scale: 3 }, scales: [3, 3, 3, 3, 3, 3] },
  ])("and begin anew behind it: $about", async ({ guidance, scales }) => {
    const { artifact, loop, noise } = await runs(await jobOf({ guidance }), attn(1, 0, 0, 0, 0, 0));
    const attention = (step: number): Attention => (step === 0 || step === BORDER ? "compute" : [[step < BORDER ? 0 : BORDER, 1]]);
    const truth = await byHand(noise, { attention, ...(scales && { scales }) });
    expect(relativeL2(artifact, truth)).toBeLessThanOrEqual(1e-5);
    expect(relativeL2(loop, truth)).toBeLessThanOrEqual(1e-5);
    expect(relativeL2(await byHand(noise, scales && { scales }), truth)).toBeGreaterThan(1e-3);
  });

  it("unless the plan reads across it", async () => {
    const job = await jobOf();
    const { artifact, loop, noise } = await runs(job, { ...attn(1, 1, 0, 0, [[0, -1], [1, 2]], 0), across: true }); // prettier-ignore
    const attention = (step: number): Attention => (step < 2 ? "compute" : step === 4 ? [[0, -1], [1, 2]] : [[1, 1]]); // prettier-ignore
    const truth = await byHand(noise, { attention });
    expect(relativeL2(artifact, truth)).toBeLessThanOrEqual(1e-5);
    expect(relativeL2(loop, truth)).toBeLessThanOrEqual(1e-5);
  });

  it.each(["none", "batched", "two-calls"])("along random plans of all branches: %s", async (form) => {
    for (const across of [false, true]) {
      const job = await jobOf({ guidance: { form, scale: 3 }, network: { from: 2, scale: 2 } });
      const { artifact, loop } = await runs(job, { ...randomSchedule(job, 11), across });
      expect(relativeL2(artifact, loop)).toBeLessThanOrEqual(1e-5);
    }
  });

  const kinds = (cells: readonly Cell[]): string =>
    cells.map((cell) => (cell.kind === "terms" ? cell.terms.map(({ step }) => step).join("+") : cell.kind.charAt(0))).join(" ");

  it("in the cells that are bound", async () => {
    const job = await jobOf();
    const row = (schedule: Schedule): string => kinds(cellsOf(bind(schedule, job.run), "attn-0"));
    expect(row(attn(1, 0, 1, 0, 0, 0))).toBe("c 0 c c 3 3");
    expect(row(attn(1, 0, 1, 1, 0, [[3, 2], [2, -1]]))).toBe("c 0 c c 3 c"); // prettier-ignore
    expect(row({ ...attn(1, 0, 1, 0, 0, [[2, 2]]), across: true })).toBe("c 0 c 2 2 2");
    // Guidance leaves a half out at the border: the first call of it behind it computes.
    const guided = await jobOf({ guidance: { form: "two-calls", scale: [3, 3, 3, 1, 3, 3] } });
    expect(kinds(cellsOf(bind(attn(1, 0, 0, 0, 0, 0), guided.run), "attn-0@uncond"))).toBe("c 0 0 i c 4");
    expect(kinds(cellsOf(bind(attn(1, 0, 0, 0, 0, 0), guided.run), "attn-0"))).toBe("c 0 0 c 3 3");
  });
});

describe("what plans are made from", () => {
  /** What planning says that a run costs without and with a plan, all MACs. */
  async function priced(job: Job, schedule: Schedule): Promise<readonly number[]> {
    const file = join(mkdtempSync(join(folder, "x")), "plan.json");
    await writePlan(file, schedule, false);
    const { macs, attention } = (await choosePlan(planningForJob(job), file, {})).summary;
    return [macs.uncached + attention.uncached, macs.planned + attention.planned];
  }

  it.each([
    ["repaired", attn(1, 0, 0, 0, 0, 0)],
    ["as it is", { ...attn(1, 0, 0, 0, 0, 0), across: true }],
  ])("a plan is priced as it is compiled: %s", async (_, schedule) => {
    // All branches see the class, so that no two calls have one in common.
    const text = tinyStep({ ...STEP, shift: true });
    const job = await jobOf({ guidance: { form: "two-calls", scale: 3 }, texts: [text, otherWeights(text)] });
    const { macs } = (await runs(job, schedule)).compiled;
    expect(await priced(job, schedule)).toEqual([macs.uncached, macs.emitted]);
  });

  it("a trace measures both, and knows where the second begins", async () => {
    const job = await jobOf();
    const trace = await calibrate(job, { samples: 1, seed: 3, ...ONE_THREAD });
    expect(trace.borders).toEqual([BORDER]);
    const values: (readonly number[])[] = [];
    const loop = new ReferenceLoop(job.run, ONE_THREAD);
    await loop.run(await startOf(job, 0, { seed: 3, ...ONE_THREAD }), {
      observe: (_, branches) => {
        const value = branches.named().get("attn-0");
        values.push(value ? tensorNumbers(value) : []);
      },
    });
    await loop.close();
    const change = (values[BORDER] ?? []).reduce((sum, value, i) => sum + Math.abs(value - (values[BORDER - 1]?.[i] ?? NaN)), 0);
    expect(trace.sites["attn-0"]?.diff[0]?.[BORDER]).toBeCloseTo(change, 4);
    // A plan from the trace alone is priced like one for the job.
    const { summary } = await choosePlan(planningFromTrace(trace), "fora", { interval: 4 });
    expect(summary).toMatchObject({ computed: (await choosePlan(planningForJob(job, trace), "fora", { interval: 4 })).summary.computed });
  });

  const steps = 20;
  // Where the search for a budget probes what an error does: from the values of two steps before.
  const border = 10;
  const long = { scheduler: { _class_name: "DDIMScheduler", clip_sample: false }, sampling: {}, steps };
  const isNear = (cells: readonly Cell[]): boolean =>
    cells.every((cell, step) => cell.kind !== "terms" || cell.terms.every((term) => term.step < border === step < border));

  it.each([
    ["taylorseer", { interval: 5, warmup: 1 }],
    ["hicache", { interval: 5 }],
    ["foca", { interval: 5 }],
    ["ab-cache", { interval: 5 }],
    ["l2p", { interval: 5 }],
    ["dpcache", { share: 0.4 }],
    ["smoothcache", { share: 0.4 }],
  ])("a policy loses one step to the border at most: %s", async (name, options) => {
    // The second network is the first, so that the border is all that differs.
    const both = await jobOf({ texts: [TEXTS[0], TEXTS[0]], network: { from: border }, changes: long });
    const alone = await jobOf({ changes: { ...long, networks: [] } });
    const trace = await calibrate(both, { samples: 1, seed: 0, ...ONE_THREAD });
    const chosen = async (job: Job): ReturnType<typeof choosePlan> => choosePlan(planningForJob(job, trace), name, options);
    const counts = ({ cells }: Awaited<ReturnType<typeof chosen>>): readonly number[] =>
      Array.from(cells, ([, row]) => row.filter(({ kind }) => kind === "compute").length);
    const [split, whole] = [await chosen(both), await chosen(alone)];
    expect([...split.cells].every(([, row]) => isNear(row))).toBe(true);
    for (const [i, count] of counts(whole).entries()) expect(counts(split)[i]).toBeLessThanOrEqual(count + 1);
  });

  it("budget keeps to its share and begins anew, and its error is that of what is emitted", async () => {
    const job = await jobOf({ network: { from: border }, changes: long });
    const trace = await calibrate(job, { samples: 2, seed: 0, ...ONE_THREAD });
    const tried = runsOf(job, { samples: trace.samples, seed: 0, ...ONE_THREAD });
    try {
      const { schedule, cells } = await choosePlan({ ...planningForJob(job, trace), runs: tried }, "budget", { share: 0.5 });
      expect(schedule.predicted?.computedShare).toBeLessThanOrEqual(0.5);
      expect(Object.values(schedule.predicted?.sensitivity ?? {}).flat().every(Number.isFinite)).toBe(true); // prettier-ignore
      for (const [, row] of cells) {
        expect(row.filter(({ kind }) => kind === "compute").length).toBeLessThanOrEqual(steps / 2);
        expect(row[border]?.kind).toBe("compute");
        expect(isNear(row)).toBe(true);
      }
      // The second sample is the one that nothing was fitted to.
      const [cached, whole] = [await runs(await cutFor(job, schedule), schedule, 1), await runs(job, { steps, cells: new Map() }, 1)];
      expect(relativeL2(cached.artifact, whole.artifact)).toBeCloseTo(schedule.predicted?.error ?? NaN, 4);
    } finally {
      await tried.close();
    }
  });

  it("a calibration of one latent binds both to it", async () => {
    const single = await withBatch(await jobOf({ guidance: { form: "batched", scale: 3 } }), 1, ONE_THREAD);
    for (const { graph } of single.run.networks.values())
      expect(graph.inputs.find(({ name }) => name === "x")?.type?.shape).toEqual([2, 6, 4]);
    const trace = await calibrate(single, { samples: 1, seed: 0, inputs: new Map([["label", 1]]), ...ONE_THREAD });
    expect(trace.sites["mlp-1"]?.norm.every((norm) => norm > 0)).toBe(true);
  });

  it("a plan of another border is refused", async () => {
    const [job, other] = [await jobOf(), await jobOf({ network: { from: 2 } })];
    expect(codeOf(() => bind({ ...uncached, of: job.run.of }, other.run))).toBe("PLAN_MISMATCH");
    expect(thrownBy(() => bind({ ...uncached, of: job.run.of }, other.run))?.message).toContain("border between networks: 3, not 2");
    expect(job.run.of.structure).not.toBe((await jobOf({ changes: { networks: [] } })).run.of.structure);
  });

  it("plans that read across stay so in a file, and are nothing for other programs", async () => {
    const across = { ...attn(1, 0, 0, 0, 0, 0), across: true };
    const file = join(mkdtempSync(join(folder, "x")), "plan.json");
    await writePlan(file, across, false);
    expect(readPlan(file)).toMatchObject({ across: true });
    await expect(writePlan(`${file}.txt`, across, false, "smoothcache", (await jobOf()).run.caches)).rejects.toMatchObject({
      code: "PLAN_FORMAT",
    });
  });
});

/** The graph with all weights of so many numbers at least a little smaller. */
function scaled(graph: Graph, least: number): Graph {
  const others = new Map<Value, Value>();
  for (const value of graph.nodes.flatMap(({ inputs }) => inputs.flatMap((input) => input ?? []))) {
    const { name, data } = value;
    if (data?.elem !== "float" || elementCount(data.shape) < least) continue;
    const numbers = tensorNumbers(data).map((number) => 0.9 * number);
    others.set(value, constant(name, tensorOf("float", data.shape, numbers)));
  }
  return rewrite(graph, () => undefined, others);
}

describe("the artifact", () => {
  async function written(job: Job, schedule: Schedule): Promise<string> {
    const target = join(mkdtempSync(join(folder, "x")), "artifact");
    await writeArtifact(target, { job, schedule, compiled: await compileModel(job, bind(schedule, job.run)) }, false);
    return target;
  }

  it("has both steps, opens by them, and is verified by both", async () => {
    const job = await jobOf({ guidance: { form: "two-calls", scale: 3 }, network: { from: BORDER, scale: 2 } });
    const target = await written(job, attn(1, 0, 0, 0, 0, 0));
    const sums = readFileSync(join(target, "SHA256SUMS"), "utf8");
    for (const file of ["model.onnx", "step.onnx", "step-2.onnx"]) expect(sums).toContain(`  ${file}\n`);
    const artifact = await openArtifact(target, ONE_THREAD);
    expect(artifact.manifest.recipe.networks).toEqual([{ model: "step-2.onnx", from: BORDER, scale: 2 }]);
    expect(artifact.job.run.of).toEqual(job.run.of);
    const { checks, ok } = await verify(artifact, ONE_THREAD);
    expect(ok).toBe(true);
    expect(checks.map(({ name }) => name)).toEqual(expect.arrayContaining(["lifted step = exported step", "lifted step of network 2 = exported step"])); // prettier-ignore
    // With other weights in the second step, the emitted run is another than the loop's.
    const second = await readModel(join(target, "step-2.onnx"));
    await writeModel(withGraph(second, scaled(second.graph, 32)), join(target, "step-2.onnx"));
    await expect(openArtifact(target, ONE_THREAD)).rejects.toMatchObject({ code: "ARTIFACT_DAMAGED" });
    const exchanged = await verify(await openArtifact(target, { ...ONE_THREAD, check: false }), ONE_THREAD);
    expect(exchanged.checks.find(({ name }) => name.startsWith("artifact = "))?.ok).toBe(false);
  });

  it("has the weights of each network once", async () => {
    const home = mkdtempSync(join(folder, "x"));
    const first = await readModel(fixtureNamed("dit/dynamo-20").model);
    const second = withGraph(first, scaled(first.graph, 300));
    await writeModel(first, join(home, "high.onnx"));
    await writeModel(second, join(home, "low.onnx"));
    const sizes = new Map<string, number>();
    for (const names of [["high.onnx"], ["low.onnx"], ["high.onnx", "low.onnx"]]) {
      const [model, ...others] = names;
      const recipe = {
        ...{ model, networks: others.map((other) => ({ model: other, from: 2 })), scheduler: { _class_name: "DDIMScheduler" }, steps: 4 },
        ...{ prediction: { channels: [0, 4] }, inputs: { class_labels: { calibrate: [1] } } },
      };
      writeFileSync(join(home, "recipe.json"), JSON.stringify(recipe));
      const target = await written(await openJob(home, {}, ONE_THREAD), { steps: 4, cells: new Map([["attn", [1, 0, 1, 0]]]) });
      const files = readdirSync(target).filter((file) => file.endsWith(".data"));
      sizes.set(names.join(), files.reduce((sum, file) => sum + statSync(join(target, file)).size, 0)); // prettier-ignore
    }
    const [high = NaN, low = NaN, both = NaN] = sizes.values();
    expect(Math.min(high, low)).toBeGreaterThan(1e5);
    // Tensors begin at multiples of 64 bytes.
    expect(Math.abs(both - (high + low))).toBeLessThan(0.01 * both);
  });

  it("cannot be a loop", async () => {
    const job = await jobOf();
    await expect(compileModel(job, bind(uncached, job.run), { form: "loop" })).rejects.toMatchObject({ code: "FORM_UNSUPPORTED" });
  });
});

describe("networks that do not go together are refused", () => {
  const [first, second] = TEXTS;
  it.each([
    { about: "another name of an input", other: second.replaceAll("size", "area"), message: "has no input 'size'" },
    { about: "one more input", other: otherWeights(tinyStep({ ...STEP, words: true })), message: "has an input 'words'" },
    { about: "another shape of an input", other: second.replaceAll("[b,6,4]", "[b,5,4]"), message: "input 'x' is float[2, 5, 4]" },
    { about: "another type of an input", other: second.replace("int64[b] label", "int32[b] label"), message: "input 'label' is int32[2]" },
    { about: "another prediction", other: otherWeights(tinyStep({ ...STEP, width: 8 })), message: "its prediction is float[2, 6, 8]" },
    {
      about: "one branch less",
      other: otherWeights(tinyStep({ ...STEP, mlps: 1 })),
      message: "only the first network has a branch 'mlp-1'",
    },
    { about: "a branch of another cost", other: wider(second), message: "its branch 'mlp-0' is mlp of block 0" },
    { about: "another opset", other: second.replace('"" : 17', '"" : 16'), message: "version 16 of the operators of 'ai.onnx'" },
    { about: "a fixed batch", other: second.replaceAll("[b", "[3"), message: "input 'x' is float[3, 6, 4]" },
  ])("$about", async ({ other, message }) => {
    const home = await homeOf({ texts: [first, other] });
    const error = await openJob(home, {}, ONE_THREAD).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "NETWORKS_DIFFER", where: { file: join(home, "low", "model.onnx") } });
    expect(String(error)).toContain(message);
  });

  /** The step with a first feed-forward network twice as wide. */
  function wider(text: string): string {
    const numbers = (count: number): string => Array.from({ length: count }, (_, i) => (Math.sin(i) / 2).toFixed(3)).join(", ");
    return text
      .replace(/float\[4,8\] up0 = \{[^}]*\}/, `float[4,16] up0 = {${numbers(64)}}`)
      .replace(/float\[8,4\] down0 = \{[^}]*\}/, `float[16,4] down0 = {${numbers(64)}}`);
  }

  it("and so are a file that is no network, with its name, and a recipe that does not say from where it is called", async () => {
    const home = await homeOf({ texts: [first, second.replace("Softmax<axis = -1>", "Tanh").replaceAll(/MatMul\((\w+), (?:up|down)\d\)/g, "Neg($1)")] }); // prettier-ignore
    await expect(openJob(home, {}, ONE_THREAD)).rejects.toMatchObject({ where: { file: join(home, "low", "model.onnx") } });
    for (const network of [{}, { from: 1, belowTime: 500 }, { from: 0 }])
      expect(await rejectedCodeOf(jobOf({ network }))).toBe("BAD_JSON_FIELD");
    expect(await rejectedCodeOf(jobOf({ network: { from: 1, model: "../low.onnx" } }))).toBe("FILE_OUTSIDE");
    rmSync(join(home, "low"), { recursive: true });
    expect(await rejectedCodeOf(openJob(home, {}, ONE_THREAD))).toBe("FILE_MISSING");
  });

  it("a network that no step calls is warned of", async () => {
    expect(warningsOf(await jobOf())).toEqual([]);
    expect(warningsOf(await jobOf({ network: { belowTime: 5 } }))).toEqual(["No step of the run calls 'low/model.onnx'."]);
    expect(warningsOf(await jobOf({ network: { belowTime: 5000 } }))).toEqual(["No step of the run calls 'model.onnx'."]);
  });
});

it("inspect says which networks there are, and from where each is called", async () => {
  const home = await homeOf();
  const { stdout } = await cli(["inspect", home]);
  expect(stdout).toContain(
    "model.onnx is called from evaluation 0 on\nlow/model.onnx is called from evaluation 3 on, below the time 700\n",
  );
  const { networks } = z.looseObject({ networks: z.unknown() }).parse(JSON.parse((await cli(["inspect", home, "--json"])).stdout));
  expect(networks).toEqual([
    { model: "model.onnx", from: 0 },
    { model: "low/model.onnx", from: 3, belowTime: 700 },
  ]);
});

/** diffusers' pipeline at random weights, recorded (fixtures/complete/generate.py). */
const complete = join(import.meta.dirname, "fixtures", "complete", "wan22");
describe.skipIf(!existsSync(complete))("Wan 2.2 comes out as diffusers' own loop has it", () => {
  const told = z.looseObject({
    ...{ steps: z.int(), guidance_scale: z.number(), guidance_scale_2: z.number().optional() },
    evaluations: z.array(z.tuple([z.string(), z.number()])),
  });

  it.each(["reference", "reference/two_scales"])("%s", async (place) => {
    const home = join(mkdtempSync(join(folder, "x")), "wan22");
    cpSync(complete, home, { recursive: true });
    const reference = join(home, place);
    const {
      steps,
      guidance_scale: guidance,
      guidance_scale_2: scale,
      evaluations,
    } = told.parse(readJson(join(reference, "reference.json")));
    // The two calls of the first step: with the prompt, and with the negative one.
    for (const [i, kind] of ["calibrate", "uncond"].entries()) {
      mkdirSync(join(home, kind));
      cpSync(join(reference, "given", String(i), "encoder_hidden_states.npy"), join(home, kind, "encoder_hidden_states.npy"));
    }
    const { recipe } = await openJobSource(home);
    if (scale !== undefined)
      writeFileSync(join(home, "recipe.json"), JSON.stringify({ ...recipe, networks: recipe.networks.map((own) => ({ ...own, scale })) }));
    const job = await openJob(home, { steps, guidance }, ONE_THREAD);
    const { rows, table } = job.run;
    const called = rows.flatMap(({ calls }, k) =>
      calls.map(({ network }) => [network.includes("network 2") ? "transformer_2" : "transformer", table.rows[k]?.timestep]),
    );
    expect(called).toEqual(evaluations);
    const { model } = await compileModel(job, bind({ steps, cells: new Map() }, job.run));
    const session = await Session.open(model, AS_IT_IS);
    const inputs = sampleInputs(job, 0, { noise: readNpy(join(reference, "noise.npy")) });
    const latent = (await session.run(feedsOf(job, inputs))).get("latent");
    await session.close();
    const truth = tensorNumbers(readNpy(join(reference, "latent.npy")));
    expect(relativeL2(latent ? tensorNumbers(latent) : [], truth)).toBeLessThan(1e-5);
  });
});
