/**
 * Networks in the precisions that people deploy, as their converters make them (test/fixtures/quantised): an artifact gives what the loop
 * over the file gives in ONNX Runtime, with the same kernels, and what is wrong is found in a network that rounds inside as well.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { executionOrder, uses } from "../ir/analysis.js";
import { scalarLike } from "../ir/build.js";
import { weightBytes } from "../ir/bytes.js";
import { type Graph, isOp, makeOp, type Model, only, type Value } from "../ir/graph.js";
import { isRequantisation, unpacksWeights } from "../ir/ops.js";
import { rewrite } from "../ir/rewrite.js";
import { type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { elementCount, staticShape } from "../ir/types.js";
import { relativeL2, type Schedule } from "../schedules/index.js";
import { openArtifact, writeArtifact } from "../src/artifact/artifact.js";
import { calibrate } from "../src/calibration/index.js";
import { type Check, type Verification, verify } from "../src/artifact/verify.js";
import { compileModel } from "../src/compile/compile.js";
import { readJson } from "../src/files/json.js";
import { type Job, openJob, planFor } from "../src/job/job.js";
import type { RecipeOverrides } from "../src/job/source.js";
import { AS_WRITTEN, Session } from "../src/runtime/session.js";

const FILES = resolve(import.meta.dirname, "fixtures", "quantised");
const RUNTIME = { threads: 1 };
const SETTINGS = { ...RUNTIME, seed: 0, samples: 4 };

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-quantised-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

function openFile(name: string, overrides: RecipeOverrides = {}): Promise<Job> {
  const scheduler = join(FILES, "scheduler_config.json");
  return openJob(join(FILES, `${name}.onnx`), { scheduler, steps: 6, inputs: new Map([["text", 0.5]]), ...overrides }, RUNTIME);
}

/** Every branch computed at every other step; `late`: one step later. */
function everyOther(job: Job, late = false): Schedule {
  const row = job.run.rows.map((_, step) => (step === 0 || (step % 2 === 1) === late ? 1 : 0));
  return { steps: row.length, cells: new Map([["*", row]]) };
}

/** Verifies an artifact in the folder of which lies what `alter` makes of the compiled model, and a schedule that may be another. */
async function verified(job: Job, { alter, stored }: { alter?: (model: Model) => Model; stored?: Schedule } = {}): Promise<Verification> {
  const schedule = everyOther(job);
  const compiled = await compileModel(job, planFor(job, schedule));
  const target = join(mkdtempSync(join(folder, "x")), "artifact");
  const model = alter?.(compiled.model) ?? compiled.model;
  await writeArtifact(target, { job, schedule: stored ?? schedule, compiled: { ...compiled, model } }, false);
  return verify(await openArtifact(target, RUNTIME), SETTINGS);
}

function comparison({ checks }: Verification): Check {
  const check = checks.find(({ name }) => name.startsWith("artifact"));
  if (!check) throw new Error("nothing was compared");
  return check;
}

/** The run with the last product of its first branch off by a tenth. */
function offByATenth(model: Model): Model {
  const [first] = model.graph.marks;
  const graph = rewrite(model.graph, (node, original) => {
    if (original !== first?.value.producer) return undefined;
    const made = only(node);
    const { node: scaled, value } = makeOp("Mul", [made, scalarLike(made, 1.1)], { name: "off", type: made.type });
    return { nodes: [node, scaled], outputs: [value] };
  });
  return { ...model, graph };
}

describe.each([
  ...["float", "int8", "int4", "nbits4", "bnb4", "float8"].map((name) => ({ name, limit: 1e-5, usual: 1e-6 })),
  ...["half", "mixed"].map((name) => ({ name, limit: 5e-3, usual: 1e-3 })),
])("$name", ({ name, limit, usual }) => {
  it("is what the loop is, with the same kernels on both sides", async () => {
    const verification = await verified(await openFile(name));
    expect(verification.ok).toBe(true);
    const check = comparison(verification);
    expect(check).toMatchObject({ ok: true, limit });
    expect(check.relL2).toBeLessThan(usual);
  });

  it("is found out where it follows another plan, or where a branch is off", async () => {
    const job = await openFile(name);
    const late = comparison(await verified(job, { stored: everyOther(job, true) }));
    expect(late.ok).toBe(false);
    expect(late.relL2).toBeGreaterThan(5 * late.limit);
    const off = comparison(await verified(job, { alter: offByATenth }));
    expect(off.ok).toBe(false);
    expect(off.relL2).toBeGreaterThan(2 * off.limit);
  });
});

describe.each(["int8", "int16", "int4", "nbits4", "bnb4", "float8"])("the weights of %s", (name) => {
  it("stay as small as they are in the file, and are unpacked one at a time", async () => {
    const job = await openFile(name);
    const { graph } = (await compileModel(job, planFor(job, everyOther(job)))).model;
    // Tables of what the time comes to at six steps; the weights take 7 kB packed, 28 kB in float.
    expect(weightBytes(graph)).toBeLessThanOrEqual(weightBytes(job.network.read.graph) + 1024);
    const order = executionOrder(graph);
    const unpacked = new Set<Value>();
    const left = new Map(uses(graph));
    for (const node of order) {
      if (unpacksWeights(node)) for (const value of node.outputs) unpacked.add(value);
      expect(unpacked.size).toBeLessThanOrEqual(1);
      for (const value of unpacked) {
        const readers = left.get(value)?.filter((reader) => reader !== node) ?? [];
        left.set(value, readers);
        if (readers.length === 0) unpacked.delete(value);
      }
    }
  });
});

describe.each(["int8", "int16", "int4", "nbits4", "bnb4"])("%s with --precision fp16", (name) => {
  it("keeps scales, zero points and what quantises, and is verified against the step as it is", async () => {
    const job = await openFile(name, { precision: "fp16" });
    const { graph } = (await compileModel(job, planFor(job, everyOther(job)))).model;
    const { graph: plain } = (await compileModel(await openFile(name), planFor(job, everyOther(job)))).model;
    const quantisers = ({ nodes }: Graph): readonly string[] =>
      nodes.filter((node) => !isOp(node, "Cast") && isRequantisation(node)).map(({ opType }) => opType);
    expect(quantisers(graph)).toEqual(quantisers(plain));
    const check = comparison(await verified(job));
    expect(check).toMatchObject({ ok: true });
    expect(check.relL2).toBeGreaterThan(2e-5);
    expect(comparison(await verified(job, { stored: everyOther(job, true) })).ok).toBe(false);
  });
});

describe("a network of many small jumps", () => {
  it("may be off by what it jumps itself, and the check says so", async () => {
    const check = comparison(await verified(await openFile("int16", { steps: 20 })));
    const { relL2, limit, sensitivity = NaN, note } = check;
    expect(check).toMatchObject({ ok: true });
    // Two right ways to round are this far apart; otherwise nothing was measured.
    expect(relL2).toBeGreaterThan(1e-5);
    expect(limit).toBe(2 * sensitivity);
    expect(limit).toBeLessThan(1e-3);
    expect(note).toContain(sensitivity.toExponential(1));
  });

  it("is found out as others are, whatever was measured", async () => {
    const job = await openFile("int16", { steps: 20 });
    for (const wrong of [await verified(job, { stored: everyOther(job, true) }), await verified(job, { alter: offByATenth })]) {
      const check = comparison(wrong);
      expect(check.ok).toBe(false);
      expect(check.relL2).toBeGreaterThan(5 * check.limit);
      expect(check.sensitivity).toBeGreaterThan(1e-6);
    }
  });
});

describe("an export of bfloat16", () => {
  /** The prediction of a step for inputs of cosines, as for predictions.json. */
  async function predicted(job: Job): Promise<readonly number[]> {
    const { graph } = job.model;
    const session = await Session.open(job.model, { ...RUNTIME, ...AS_WRITTEN });
    const feeds = graph.inputs.map(({ name, type }): [string, TensorData] => {
      const shape = staticShape(type) ?? [];
      const values = Array.from({ length: elementCount(shape) }, (_, i) => Math.cos(i));
      return [name, tensorOf(type?.elem ?? "float", shape, values)];
    });
    const [prediction] = (await session.run(new Map(feeds))).values();
    await session.close();
    return prediction ? tensorNumbers(prediction) : [];
  }

  it("asked for in float is what PyTorch computes in float with the same weights", async () => {
    const recorded = z.record(z.string(), z.array(z.number())).parse(readJson(join(FILES, "predictions.json")));
    const widened = await predicted(await openFile("bfloat16", { precision: "fp32" }));
    // The export has rounded the numbers of GELU and the scale of attention as well, which PyTorch has inside of its operators.
    expect(relativeL2(widened, recorded["bfloat16"] ?? [])).toBeLessThan(3e-4);
    // That the weights were rounded is seen.
    expect(relativeL2(widened, recorded["float32"] ?? [])).toBeGreaterThan(1e-3);
    expect(relativeL2(await predicted(await openFile("float")), recorded["float32"] ?? [])).toBeLessThan(1e-5);
  });

  it.each([
    { precision: "fp32" as const, limit: 1e-5 },
    { precision: "fp16" as const, limit: 5e-3 },
  ])("is verified in $precision against the step in float, and the check says so", async ({ precision, limit }) => {
    const job = await openFile("bfloat16", { precision });
    const check = comparison(await verified(job));
    expect(check).toMatchObject({ ok: true, limit });
    expect(check.note).toContain("bfloat16");
    expect(comparison(await verified(job, { stored: everyOther(job, true) })).ok).toBe(false);
  });

  it("is refused on the CPU without that", async () => {
    await expect(openFile("bfloat16").then((job) => verified(job))).rejects.toMatchObject({ code: "NO_KERNELS" });
  });
});

it("float8 is calibrated, though the runtime's optimiser makes of it what the runtime refuses", async () => {
  const job = await openFile("float8");
  await expect(calibrate(job, { ...RUNTIME, seed: 0, samples: 1 })).resolves.toMatchObject({ samples: [0], steps: 6 });
});
