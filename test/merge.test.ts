/** Memory of cached runs, and the order in which the runtime runs their nodes: branches are added up where they are computed. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { expect, it } from "vitest";
import { z } from "zod";
import { executionOrder } from "../ir/analysis.js";
import { shapeOf } from "../ir/build.js";
import type { Model } from "../ir/graph.js";
import { readModel } from "../ir/onnx/index.js";
import { elementCount } from "../ir/types.js";
import { CACHE_PASSES, RUN_PASSES, STEP_PASSES } from "../passes/index.js";
import { type PlanContext, type Pass, runPasses } from "../passes/pass.js";
import dce from "../passes/dce.js";
import reuse from "../passes/reuse.js";
import { writeEmitted } from "../src/artifact/artifact.js";
import { openJob } from "../src/job/job.js";
import { memoryOf } from "../src/compile/memory.js";
import { planOf } from "./support/jobs.js";

/** The glyph model over six steps, of which every other one computes. */
async function run(passes: readonly Pass[]): Promise<Model> {
  const job = await openJob(join(import.meta.dirname, "..", "examples", "glyphs"), { steps: 6 });
  const row = [1, 0, 1, 0, 1, 0] as const;
  const { plan } = planOf(
    job,
    new Map([
      ["attn", row],
      ["mlp", row],
    ]),
  );
  return runPasses<PlanContext>(job.model, [...STEP_PASSES, ...RUN_PASSES, ...passes], { ...job.questions, run: job.run, plan });
}

it("a run keeps one sum, in place of every branch", async () => {
  const [uncached, kept, merged] = await Promise.all([run([]), run([reuse, dce]), run(CACHE_PASSES)]);
  const [mark] = kept.graph.marks;
  const branch = 4 * elementCount(mark ? shapeOf(mark.value) : []);
  const more = (model: Model): number => memoryOf(model, uncached, "hidden_states").cache / branch;
  // Of eight blocks with two branches each.
  expect(more(kept)).toBeGreaterThan(8);
  expect(more(merged)).toBeLessThan(2);
});

it("the runtime runs nodes in the order that memory is counted in", async () => {
  const folder = mkdtempSync(join(tmpdir(), "smoothcc-merge-"));
  try {
    const file = join(folder, "model.onnx");
    await writeEmitted(await run(CACHE_PASSES), file);
    const session = await InferenceSession.create(file, {
      graphOptimizationLevel: "disabled",
      enableProfiling: true,
      profileFilePrefix: join(folder, "profile"),
    });
    const { graph } = await readModel(file);
    const feeds = graph.inputs.map((input) => {
      const count = elementCount(shapeOf(input));
      const data = input.type?.elem === "float" ? new Float32Array(count) : new BigInt64Array(count);
      return [input.name, new Tensor(data, shapeOf(input))] as const;
    });
    await session.run(Object.fromEntries(feeds));
    session.endProfiling();
    const profile = readdirSync(folder).find((name) => name.startsWith("profile")) ?? "";
    const events = z.array(z.object({ name: z.string(), ts: z.number() })).parse(JSON.parse(readFileSync(join(folder, profile), "utf8")));
    const kernels = events.filter(({ name }) => name.endsWith("_kernel_time")).sort((a, b) => a.ts - b.ts);
    const expected = executionOrder(graph).map(({ name }) => `${name}_kernel_time`);
    expect(expected.length).toBeGreaterThan(500);
    expect(kernels.map(({ name }) => name)).toEqual(expected);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
