/**
 * Networks in the precisions that people deploy, as their converters make them (test/fixtures/quantised): an artifact gives what the loop
 * over the file gives in ONNX Runtime, with the same kernels, and what is wrong is found in a network that rounds inside as well.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { constant, makeOp, type Model, only } from "../ir/graph.js";
import { rewrite } from "../ir/rewrite.js";
import { tensorOf } from "../ir/tensor.js";
import type { Schedule } from "../schedules/index.js";
import { openArtifact, writeArtifact } from "../src/artifact/artifact.js";
import { type Check, type Verification, verify } from "../src/artifact/verify.js";
import { compileModel } from "../src/compile/compile.js";
import { type Job, openJob, planFor } from "../src/job/job.js";
import type { RecipeOverrides } from "../src/job/source.js";

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
  const check = checks[1];
  if (!check) throw new Error("nothing was compared");
  return check;
}

/** The run with the last product of its first branch off by a tenth. */
function offByATenth(model: Model): Model {
  const [first] = model.graph.marks;
  const graph = rewrite(model.graph, (node, original) => {
    if (original !== first?.value.producer) return undefined;
    const { node: scaled, value } = makeOp("Mul", [only(node), constant("tenth", tensorOf("float", [], [1.1]))], {
      ...only(node),
      name: "off",
    });
    return { nodes: [node, scaled], outputs: [value] };
  });
  return { ...model, graph };
}

describe.each(["float", "int8", "int4", "nbits4"])("%s", (name) => {
  it("is what the loop is, with the same kernels on both sides", async () => {
    const check = comparison(await verified(await openFile(name)));
    expect(check.limit).toBe(1e-5);
    expect(check).toMatchObject({ ok: true });
    expect(check.relL2).toBeLessThan(1e-6);
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
