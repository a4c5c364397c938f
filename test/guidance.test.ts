/** Guidance in every form, and sampler rows that are more than sums: against PyTorch's numbers, and artifact against loop. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { ditView, type Node } from "../ir/graph.js";
import { isElementwise } from "../ir/ops.js";
import { writeModel } from "../ir/onnx/index.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { parse } from "../ir/parse.js";
import { runPasses } from "../passes/pass.js";
import unroll from "../passes/unroll.js";
import { cacheName, bind, isPartialCell, relativeL2, samplerTable, type Schedule } from "../schedules/index.js";
import { feedsOf } from "../src/artifact/artifact.js";
import { calibrate } from "../src/calibration/calibrate.js";
import { type Compiled, compileModel } from "../src/compile/compile.js";
import { type Job, openJob, warningsOf } from "../src/job/job.js";
import { choosePlan } from "../src/planning/choose.js";
import { planningForJob } from "../src/planning/planning.js";
import { writePlan } from "../src/job/plan-file.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { Session } from "../src/runtime/session.js";
import { LEARNED } from "./support/guided-cases.js";
import { adjusted, partialSchedule, planOf, randomSchedule } from "./support/jobs.js";
import { codeOf } from "./support/thrown.js";
import { readSubject } from "./support/pass-case.js";
import { tinyStep, type TinyStep } from "./support/tiny-step.js";
import { forms } from "../passes/index.js";
import { startOf } from "../src/reference/start.js";
import { cellsOf } from "./support/runs.js";

const numbers = z.array(z.number());
const result = z.object({ result: numbers });
const recorded = z
  .object({
    ...{ shape: numbers, cond: numbers, uncond: numbers, scale: z.number(), plain: numbers },
    ...{ std: result, norm: result, channels: result },
    imageToImage: result.extend({ config: z.unknown(), steps: z.int(), start: z.int(), x: numbers }),
    ddpm: result.extend({ row: z.record(z.string(), z.unknown()), x: numbers, out: numbers, draw: numbers }),
  })
  .parse(JSON.parse(readFileSync(resolve(import.meta.dirname, "fixtures", "guidance", "recorded.json"), "utf8")));

/** A case of the unroll pass, run: its last latent. */
async function unrolled(text: string, feeds: Readonly<Record<string, readonly number[]>>): Promise<number[]> {
  const { model, context } = readSubject(text);
  const run = await runPasses(model, [unroll], context);
  const session = await Session.open(run, { threads: 1, optimise: "disabled" });
  try {
    const given = run.graph.inputs.map(({ name, type }) => {
      const shape = (type?.shape ?? []).map(Number);
      return [name, tensorOf(type?.elem ?? "float", shape, feeds[name] ?? [])] as const;
    });
    const latent = (await session.run(new Map(given))).get("latent");
    return latent ? tensorNumbers(latent) : [];
  } finally {
    await session.close();
  }
}

describe.each(["batched", "two-calls"] as const)("the guided prediction in the form %s is that of PyTorch", (form) => {
  // The network says what its condition says; the next latent is its output.
  it.each([
    { name: "plain", guided: {}, expected: recorded.plain },
    { name: "rescaled by deviation (HunyuanDiT, LTX)", guided: { rescale: { form: "std", strength: 0.7 } }, expected: recorded.std.result },
    { name: "rescaled by norm (Lumina 2, Qwen-Image)", guided: { rescale: { form: "norm", strength: 1 } }, expected: recorded.norm.result },
    { name: "of some channels (DiT)", guided: { channels: [0, 2] }, expected: recorded.channels.result },
  ])("$name", async ({ guided, expected }) => {
    const { shape, cond, uncond, scale } = recorded;
    const [batch = 0, ...rest] = shape;
    for (const opset of [17, 20]) {
      const rows = form === "batched" ? 2 * batch : batch;
      const latent = await unrolled(
        `# latent: x
# timestep: t
# batch: ${batch}
# guidance: ${form} ${scale} uncond,cond
# guided: ${JSON.stringify(guided)}
# uncond: float[${shape.join()}] said = {${uncond.join()}}
# row: {"timestep": 1, "m": [[0, 1]]}
<ir_version: 8, opset_import: ["" : ${opset}]>
g (float[${rows},${rest.join()}] x, int64[1] t, float[${rows},${rest.join()}] said) => (float[${rows},${rest.join()}] out)
<float[${rows},${rest.join()}] nothing>
{
  nothing = Sub(x, x)
  out = Add(said, nothing)
}`,
        { x: cond, said: cond },
      );
      expect(relativeL2(latent, expected)).toBeLessThan(1e-6);
    }
  });
});

it("a DDPM row that clamps its sample and learns its variance is diffusers'", async () => {
  const { row, x, out, draw, result: expected } = recorded.ddpm;
  const text = `# latent: x
# timestep: t
# batch: 2
# channels: 0 3 @1
# row: ${JSON.stringify(row)}
<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3,2,2] x, int64[1] t, float[2,6,2,2] said) => (float[2,6,2,2] out)
<float[2,3,2,2] nothing, float[2,6,2,2] twice>
{
  nothing = Sub(x, x)
  twice = Concat<axis = 1>(nothing, nothing)
  out = Add(said, twice)
}`;
  expect(relativeL2(await unrolled(text, { x, said: out, noise: draw }), expected)).toBeLessThan(1e-6);
});

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-guidance-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const DDIM = { _class_name: "DDIMScheduler", clip_sample: false, num_train_timesteps: 100 };

/** A job on a tiny step with classes, six steps of DDIM, class 4 for none. */
async function tinyJob(
  guidance: Readonly<Record<string, unknown>>,
  changes: Readonly<Record<string, unknown>> = {},
  step: TinyStep = {},
): Promise<Job> {
  const home = mkdtempSync(join(folder, "x"));
  await writeModel(parse(tinyStep({ label: true, mlps: 2, ...step })), join(home, "model.onnx"));
  const uncond = z.record(z.string(), z.unknown()).default({}).parse(guidance["uncond"]);
  const halves = guidance["form"] === "batched" || guidance["form"] === "two-calls";
  const recipe = {
    ...{ model: "model.onnx", timestep: "t", scheduler: DDIM, steps: 6, batch: 2 },
    prediction: { channelAxis: 2 },
    guidance: { scale: 2, ...guidance, ...(halves ? { uncond: { label: 4, ...uncond } } : {}) },
    inputs: { size: { calibrate: [[0.3, 0.7]] }, label: { calibrate: [1, 2, 3] } },
    ...changes,
  };
  writeFileSync(join(home, "recipe.json"), JSON.stringify(recipe));
  return openJob(home, {}, { threads: 1 });
}

interface Runs {
  readonly compiled: Compiled;
  readonly artifact: Float32Array;
  readonly loop: Float32Array;
}

/** The emitted model of a schedule and the loop that follows it, on the same noise. */
async function runs(job: Job, schedule: Schedule, form?: string): Promise<Runs> {
  const { plan } = planOf(job, schedule.cells, schedule.adjustments);
  const inputs = sampleInputs(job, 0, { seed: 3 });
  const compiled = await compileModel(job, plan, { form });
  const session = await Session.open(compiled.model, { threads: 1, optimise: "disabled" });
  const loop = new ReferenceLoop(job.run, { threads: 1 });
  try {
    const latent = (await session.run(feedsOf(job, inputs))).get("latent");
    return { compiled, artifact: Float32Array.from(latent ? tensorNumbers(latent) : []), loop: await loop.run(inputs, { plan }) };
  } finally {
    await session.close();
    await loop.close();
  }
}

const uncached = (job: Job): Schedule => ({ steps: job.run.table.rows.length, cells: new Map() });

/** What branches do at the six steps. */
const ROW: Schedule = { steps: 6, cells: new Map([["attn", [1, 0, 0, 1, 0, 0]], ["mlp-1", [1, 1, 0, 0, 1, 0]]]) }; // prettier-ignore

/** What planning says that a run costs without and with a plan, all MACs. */
async function priced(job: Job, schedule: Schedule): Promise<readonly number[]> {
  const file = join(mkdtempSync(join(folder, "x")), "plan.json");
  await writePlan(file, schedule, false);
  const { macs, attention } = (await choosePlan(planningForJob(job), file, {})).summary;
  return [macs.uncached + attention.uncached, macs.planned + attention.planned];
}

/** Rows of Heun's method in sigma-like units: two evaluations a step, the second from where the first led. */
const heun = {
  ...{ name: "heun", prediction: "epsilon", initialScale: 1 },
  rows: [80, 60, 40].flatMap((timestep, i) => [
    {
      timestep,
      inputScale: 1,
      m: { x: 0, out: 1 },
      next: { x: [{ step: 2 * i, weight: 1 }], m: [{ step: 2 * i, weight: -0.3 }], noise: 0 },
    },
    {
      ...{ timestep: timestep - 20, inputScale: 0.9, m: { x: 0, out: 1 } },
      next: { x: [{ step: 2 * i, weight: 1 }], m: [{ step: 2 * i, weight: -0.15 }, { step: 2 * i + 1, weight: -0.15 }], noise: 0 }, // prettier-ignore
    },
  ]),
};

const clipped = { ...DDIM, clip_sample: true, clip_sample_range: 0.5 };
const wide = { prediction: { channelAxis: 2, channels: [0, 4] } };

describe.each([...forms.keys()])("the artifact, %s, computes what the loop over the step computes, along a random plan", (form) => {
  it.each([
    { about: "batched, the unconditional half first", guidance: { form: "batched", order: ["uncond", "cond"] } },
    { about: "batched, a scale for each step", guidance: { form: "batched", scale: [3, 7, 2, 6, 4, 0.5] } },
    { about: "batched, a scale for each step, some of them 1", guidance: { form: "batched", scale: [3, 1, 2, 1, 4, 0.5] }, drops: true },
    { about: "batched, within a window", guidance: { form: "batched", interval: [1, 4] }, drops: true },
    { about: "batched, a window, the unconditional half first", guidance: { form: "batched", order: ["uncond", "cond"], interval: [0, 3] }, drops: true },
    { about: "two calls", guidance: { form: "two-calls" } },
    { about: "two calls within a window", guidance: { form: "two-calls", interval: [2, 4] }, drops: true },
    { about: "two calls, some channels, rescaled", guidance: { form: "two-calls", channels: [1, 3], rescale: { form: "std", strength: 0.6 } } },
    { about: "batched, some channels, rescaled", guidance: { form: "batched", channels: [1, 3], rescale: { form: "norm" } } },
    { about: "embedded", guidance: { form: "embedded" }, step: { guidance: true } },
    { about: "embedded, a scale for each step", guidance: { form: "embedded", scale: [1, 2, 3, 9, 5, 6] }, step: { guidance: true } },
    { about: "a fixed class in two calls", guidance: { form: "two-calls" }, changes: { inputs: { size: { fix: [0.3, 0.7] }, label: { fix: 3 } } } },
    { about: "a fixed class in one", guidance: { form: "batched", interval: [1, 3] }, changes: { inputs: { size: { fix: [0.3, 0.7] }, label: { fix: 3 } } }, drops: true },
    { about: "clamped samples", guidance: { form: "batched" }, changes: { scheduler: clipped } },
    { about: "clamped samples, without guidance", guidance: { form: "none", scale: 1 }, changes: { scheduler: clipped } },
    { about: "learned variance in one call", guidance: { form: "batched" }, changes: { scheduler: LEARNED, steps: 3, ...wide }, step: { width: 8 } },
    { about: "learned variance in two", guidance: { form: "two-calls" }, changes: { scheduler: LEARNED, steps: 3, ...wide }, step: { width: 8 } },
    { about: "two evaluations a step", guidance: { form: "batched" }, changes: { scheduler: heun, steps: 6 } },
    { about: "two evaluations a step, two calls each", guidance: { form: "two-calls" }, changes: { scheduler: heun, steps: 6 } },
  ])("$about", async ({ guidance, changes, step, drops = false }) => {
    const job = await tinyJob(guidance, changes, step);
    if (form === "loop" && drops) {
      await expect(runs(job, randomSchedule(job, 7), form)).rejects.toMatchObject({ code: "FORM_UNSUPPORTED" });
      return;
    }
    const { artifact, loop } = await runs(job, randomSchedule(job, 7), form);
    expect(relativeL2(artifact, loop)).toBeLessThanOrEqual(1e-5);
    // What the plan leaves out is seen in the result.
    expect(relativeL2((await runs(job, uncached(job))).loop, loop)).toBeGreaterThan(1e-4);
  }); // prettier-ignore
});

describe("the artifact computes what the loop computes, along a plan that computes some tokens", () => {
  it.each([
    { about: "batched", guidance: { form: "batched" } },
    { about: "batched, within a window", guidance: { form: "batched", interval: [1, 4] } },
    { about: "batched, a window, the unconditional half first", guidance: { form: "batched", order: ["uncond", "cond"], interval: [0, 3] } },
    { about: "two calls within a window", guidance: { form: "two-calls", interval: [2, 4] } },
  ])("$about", async ({ guidance }) => {
    const job = await tinyJob(guidance);
    for (const seed of [1, 2, 3]) {
      const schedule = partialSchedule(job, seed);
      const cells = [...schedule.cells.values()].flat().filter(isPartialCell);
      expect(new Set(cells.map(({ by }) => by))).toContain("change");
      const { artifact, loop } = await runs(job, schedule);
      expect(relativeL2(artifact, loop)).toBeLessThanOrEqual(1e-5);
      expect(relativeL2((await runs(job, uncached(job))).loop, loop)).toBeGreaterThan(1e-4);
    }
    await expect(runs(job, partialSchedule(job, 1), "loop")).rejects.toMatchObject({ code: "FORM_UNSUPPORTED" });
  }); // prettier-ignore
});

describe.each(["batched", "two-calls"])("what the unconditional half sees as an input of the run: %s", (form) => {
  const said = { label: { calibrate: [1, 2, 3] }, label_uncond: { calibrate: [0, 2] }, size: { calibrate: [[0.3, 0.7]] } };
  const asked = { form, uncond: { label: { input: true } } };

  it("comes out as the loop has it, and as the same values do that are constants", async () => {
    const job = await tinyJob(asked, { inputs: said });
    const [given, constant] = [await runs(job, uncached(job)), await tinyJob({ form, uncond: { label: [0, 2] } })];
    expect(given.compiled.model.graph.inputs.map(({ name }) => name)).toEqual(["x", "size", "label", "label_uncond"]);
    expect(relativeL2(given.artifact, given.loop)).toBeLessThanOrEqual(1e-5);
    expect(relativeL2(given.artifact, (await runs(constant, uncached(constant))).artifact)).toBeLessThanOrEqual(1e-5);
    const other = sampleInputs(job, 0, { seed: 3, inputs: new Map([["label_uncond", 4]]) }).conditions.get("label_uncond");
    expect(other && { shape: other.shape, numbers: tensorNumbers(other) }).toEqual({ shape: [2], numbers: [4, 4] });
    const along = await runs(job, randomSchedule(job, 7));
    expect(relativeL2(along.artifact, along.loop)).toBeLessThanOrEqual(1e-5);
    expect(relativeL2(along.loop, given.loop)).toBeGreaterThan(1e-4);
  });

  it("can be fixed, and is known only where it is asked for", async () => {
    const fixed = await tinyJob(asked, { inputs: { ...said, label_uncond: { fix: 4 } } });
    const { artifact, compiled } = await runs(fixed, uncached(fixed));
    expect(compiled.model.graph.inputs.map(({ name }) => name)).toEqual(["x", "size", "label"]);
    const plain = await tinyJob({ form });
    expect(relativeL2(artifact, (await runs(plain, uncached(plain))).artifact)).toBeLessThanOrEqual(1e-6);
    await expect(tinyJob({ form }, { inputs: said })).rejects.toMatchObject({ code: "UNKNOWN_NAME" });
    const silent = await tinyJob(asked);
    expect(codeOf(() => sampleInputs(silent, 0, { seed: 3 }))).toBe("MISSING_INPUT");
  });
});

describe("forms agree", () => {
  it("one call in either order, and two", async () => {
    const forms = [{ form: "batched" }, { form: "batched", order: ["uncond", "cond"] }, { form: "two-calls" }, { form: "none" }];
    const [first, ...rest] = await Promise.all(forms.map(async (form) => runs(await tinyJob(form), uncached(await tinyJob(form)))));
    const distances = rest.map(({ artifact }) => relativeL2(artifact, first?.artifact ?? []));
    expect(Math.max(...distances.slice(0, 2))).toBeLessThan(1e-5);
    // Without guidance it is another result.
    expect(distances[2]).toBeGreaterThan(1e-3);
  });

  it("a scale of 1, given or by a window, is the conditional half alone", async () => {
    const none = await tinyJob({ form: "none", scale: 1 });
    const { artifact, compiled } = await runs(none, uncached(none));
    for (const guidance of [
      { form: "batched", scale: 1 },
      { form: "two-calls", scale: [1, 1, 1, 1, 1, 1] },
    ]) {
      const alone = await runs(await tinyJob(guidance), uncached(none));
      expect(relativeL2(alone.artifact, artifact)).toBeLessThan(1e-6);
      expect(alone.compiled.macs).toEqual(compiled.macs);
    }
  });
});

describe("a window", () => {
  it.each(["batched", "two-calls"])("leaves out half of the work of the steps outside: %s", async (form) => {
    const whole = await tinyJob({ form });
    const window = await tinyJob({ form, interval: [1, 3] });
    const full = (await runs(whole, uncached(whole))).compiled.macs.uncached;
    const { macs } = (await runs(window, uncached(window))).compiled;
    // Two of six steps are guided; both halves of a step share what does not see the class.
    const none = await tinyJob({ form: "none", scale: 1 });
    const half = (await runs(none, uncached(none))).compiled.macs.uncached / 6;
    expect(macs.uncached).toBeCloseTo(2 * (full / 6) + 4 * half, 6);
    expect(macs.uncached).toBeLessThan(0.75 * full);
  });

  it.each(["batched", "two-calls"])("is in the price of a plan, which is that of what is emitted: %s", async (form) => {
    const job = await tinyJob({ form, interval: [1, 3] }, {}, { shift: true });
    const { macs } = (await runs(job, ROW)).compiled;
    expect(await priced(job, ROW)).toEqual([macs.uncached, macs.emitted]);
  });

  it("is calibrated with both halves at every step", async () => {
    const trace = await calibrate(await tinyJob({ form: "two-calls", interval: [1, 3] }), { samples: 1, seed: 0, threads: 1 });
    expect(Object.keys(trace.sites)).toEqual(["attn-0", "mlp-0", "mlp-1", "attn-0@uncond", "mlp-0@uncond", "mlp-1@uncond"]);
    expect(trace.sites["mlp-1@uncond"]?.norm.every((norm) => norm > 0)).toBe(true);
  });

  it("saves nothing where the export has a fixed batch, and says so", async () => {
    const home = mkdtempSync(join(folder, "x"));
    await writeModel(parse(tinyStep({ label: true }).replaceAll("[b", "[2")), join(home, "model.onnx"));
    const guidance = { form: "batched", scale: 3, interval: [1, 2], uncond: { label: 4 } };
    const inputs = { size: { calibrate: [[0.3, 0.7]] }, label: { calibrate: [1] } };
    writeFileSync(
      join(home, "recipe.json"),
      JSON.stringify({ model: "model.onnx", timestep: "t", scheduler: DDIM, steps: 3, guidance, inputs }),
    );
    const job = await openJob(home, {}, { threads: 1 });
    expect(warningsOf(job)).toEqual([expect.stringContaining("'two-calls'")]);
    const { artifact, loop } = await runs(job, uncached(job));
    expect(relativeL2(artifact, loop)).toBeLessThanOrEqual(1e-5);
  });
});

describe("an evaluation whose output the sampler does not use", () => {
  it("is in no price", async () => {
    const rows = [90, 70, 50, 30, 20, 10].map((timestep, k) => ({
      ...{ timestep, inputScale: 1, m: { x: 0, out: 1 } },
      next: { x: [{ step: k, weight: 1 }], m: k === 3 ? [] : [{ step: k, weight: -0.2 }], noise: 0 },
    }));
    const scheduler = { name: "idle", prediction: "epsilon", initialScale: 1, rows };
    const job = await tinyJob({ form: "batched" }, { scheduler }, { shift: true });
    const { macs } = (await runs(job, ROW)).compiled;
    expect(await priced(job, ROW)).toEqual([macs.uncached, macs.emitted]);
  });
});

describe("two calls", () => {
  it("have a cache each: a plan may name one", async () => {
    const job = await tinyJob({ form: "two-calls" });
    const row = [1, 0, 0, 1, 0, 0] as const;
    const { compiled, artifact, loop } = await runs(job, { steps: 6, cells: new Map([["attn@uncond", row]]) });
    const computed = (name: string): number => compiled.model.graph.marks.filter((mark) => cacheName(mark) === name).length;
    expect([computed("attn-0"), computed("attn-0@uncond"), computed("mlp-0@uncond")]).toEqual([6, 2, 6]);
    expect(relativeL2(artifact, loop)).toBeLessThanOrEqual(1e-5);
  });
});

describe("a DDIM step", () => {
  /** Elementwise nodes that a step adds beside those of its network. */
  async function perStep(job: (steps: number) => Promise<Job>): Promise<number> {
    const count = (nodes: readonly Node[]): number => nodes.filter(isElementwise).length;
    const at = async (steps: number): Promise<number> => {
      const { plan } = planOf(await job(steps), new Map());
      return count((await compileModel(await job(steps), plan)).uncached.graph.nodes);
    };
    const { model } = await job(5);
    return (await at(6)) - (await at(5)) - count((await compileStep(model)).nodes);
  }

  async function compileStep(model: Job["model"]): Promise<{ readonly nodes: readonly Node[] }> {
    // Of the network, a step repeats what depends on the latent.
    const { latent } = ditView(model);
    const reached = new Set(model.graph.inputs.filter(({ name }) => name === latent));
    const nodes = model.graph.nodes.filter((node) => {
      const depends = node.inputs.some((value) => value && reached.has(value));
      if (depends) for (const output of node.outputs) reached.add(output);
      return depends;
    });
    return Promise.resolve({ nodes });
  }

  it.each([{ form: "none", scale: 1 }, { form: "batched" }])("costs three elementwise nodes on the latent: $form", async (guidance) => {
    expect(await perStep((steps) => tinyJob(guidance, { steps }))).toBe(3);
  });
});

describe("a run that starts late", () => {
  it("begins its history there, as diffusers does", () => {
    const { config, steps, start, x: first, result: expected } = recorded.imageToImage;
    const { rows, initialScale } = samplerTable(config, { steps, start });
    expect([rows.length, initialScale]).toEqual([steps - start, 1]);
    for (const [i, given] of first.entries()) {
      const latents = [given];
      const history: number[] = [];
      for (const [k, { m, next }] of rows.entries()) {
        const x = latents[k] ?? NaN;
        history.push(m.x * x + m.out * (0.3 * x + Math.cos(k)));
        const sum = (terms: readonly { readonly step: number; readonly weight: number }[], of: readonly number[]): number =>
          terms.reduce((all, { step, weight }) => all + weight * (of[step] ?? NaN), 0);
        latents.push(sum(next.x, latents) + sum(next.m, history));
      }
      expect(latents.at(-1)).toBeCloseTo(expected[i] ?? NaN, 5);
    }
  });

  it("ends where the whole run ends, from the latent that the whole run has there", async () => {
    const whole = await tinyJob({ form: "two-calls" });
    const late = await tinyJob({ form: "two-calls" }, { strength: 0.7 });
    expect([late.run.table.rows.length, late.steps, late.run.table.initialScale]).toEqual([4, 4, 1]);
    const loop = new ReferenceLoop(late.run, { threads: 1 });
    const from = await startOf(late, 0, { seed: 3, threads: 1 });
    const { artifact } = await runs(whole, uncached(whole));
    expect(relativeL2(await loop.run(from), artifact)).toBeLessThan(1e-5);
    await loop.close();
    const { artifact: emitted, loop: followed } = await runs(late, randomSchedule(late, 2));
    expect(relativeL2(emitted, followed)).toBeLessThan(1e-5);
  });

  it("is refused where the sampler reads what came before, or nothing is left to run", () => {
    const lms = { _class_name: "LMSDiscreteScheduler" };
    expect(codeOf(() => samplerTable(lms, { steps: 8, start: 3 }))).toBe("SAMPLER_OPTION");
    expect(codeOf(() => samplerTable(DDIM, { steps: 8, start: 8 }))).toBe("SAMPLER_OPTION");
  });
});

it("a step may have two evaluations: the second half of Heun's, from where a step begins", () => {
  const config = { _class_name: "HeunDiscreteScheduler" };
  const rows = samplerTable(config, { steps: 6 }).rows.length;
  expect([rows, samplerTable(config, { steps: 6, start: 2 }).rows.length]).toEqual([11, 7]);
});

it.each([
  { form: "batched", interval: [1, 4] },
  { form: "two-calls", interval: [1, 5] },
])("scales and shifts, of either half in two calls, of both in one: $form", async (guidance) => {
  const job = await tinyJob(guidance);
  const plain = randomSchedule(job, 7);
  const { artifact, loop } = await runs(job, adjusted(job, plain));
  expect(relativeL2(artifact, loop)).toBeLessThanOrEqual(1e-5);
  expect(relativeL2((await runs(job, plain)).loop, loop)).toBeGreaterThan(1e-4);
});

it("a plan that would read what a half did not compute computes instead", async () => {
  const job = await tinyJob({ form: "two-calls", interval: [2, 4] });
  const plan = bind({ steps: 6, cells: new Map([["attn", [1, 0, 0, 0, 1, 0]]]) }, job.run);
  expect(cellsOf(plan, "attn-0").map(({ kind }) => kind)).toEqual(["compute", "terms", "terms", "terms", "compute", "terms"]);
  expect(cellsOf(plan, "attn-0@uncond").map(({ kind }) => kind)).toEqual(["idle", "idle", "compute", "terms", "idle", "idle"]);
});
