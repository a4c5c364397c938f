/**
 * Two networks in one run: what is emitted against a loop that is written here by hand, over sessions of the two exports, along a plan and
 * without one; what plans, traces, prices and folders have of the second; and what is refused.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { bind, type Cell, relativeL2, type Schedule } from "../schedules/index.js";
import { feedsOf, openArtifact, writeArtifact } from "../src/artifact/artifact.js";
import { verify } from "../src/artifact/verify.js";
import { calibrate } from "../src/calibration/calibrate.js";
import { compileModel } from "../src/compile/compile.js";
import { type Job, openJob, warningsOf } from "../src/job/job.js";
import { writePlan } from "../src/job/plan-file.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { choosePlan } from "../src/planning/choose.js";
import { planningForJob, planningFromTrace } from "../src/planning/planning.js";
import { runsOf } from "../src/planning/runs.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { startOf } from "../src/reference/start.js";
import { Session } from "../src/runtime/session.js";
import { cli } from "./support/cli.js";
import { planOf, randomSchedule } from "./support/jobs.js";
import { cellsOf } from "./support/runs.js";
import { rejectedCodeOf } from "./support/thrown.js";
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

/** What is emitted for a schedule, run, and the reference loop along it. */
async function runs(job: Job, schedule: Schedule) {
  const plan = bind(schedule, job.run);
  const inputs = sampleInputs(job, 0, { seed: 3 });
  const compiled = await compileModel(job, plan);
  const session = await Session.open(compiled.model, AS_IT_IS);
  const loop = new ReferenceLoop(job.run, ONE_THREAD);
  try {
    const latent = (await session.run(feedsOf(job, inputs))).get("latent");
    return { compiled, plan, noise: inputs.noise, artifact: latent ? tensorNumbers(latent) : [], loop: await loop.run(inputs, { plan }) };
  } finally {
    await session.close();
    await loop.close();
  }
}

const uncached: Schedule = { steps: SIGMAS.length, cells: new Map() };

function attn(...row: NonNullable<ReturnType<Schedule["cells"]["get"]>>): Schedule {
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
