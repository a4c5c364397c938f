/** Streams that go on in unusual ways: every module that PyTorch ran is a branch, with its kind and its values, and there are no others. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { z } from "zod";
import { ditView } from "../ir/graph.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { relativeL2 } from "../schedules/index.js";
import { openJob } from "../src/job/job.js";
import { Session } from "../src/runtime/session.js";

/** Made by `generate.py` there. */
const FOLDER = join(import.meta.dirname, "fixtures", "blocks");
const folder = mkdtempSync(join(tmpdir(), "smoothcc-blocks-"));
const scheduler = join(folder, "scheduler_config.json");
writeFileSync(scheduler, JSON.stringify({ _class_name: "FlowMatchEulerDiscreteScheduler", shift: 1 }));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const numbers = z.array(z.number());
const expectedSchema = z.record(
  z.string(),
  z.object({
    inputs: z.record(z.string(), z.object({ shape: numbers, values: numbers })),
    branches: z.array(z.object({ kind: z.string(), values: numbers })),
  }),
);
const expected = expectedSchema.parse(JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8")));

/** The numbers in another order are the same value in another layout. */
const ascending = (values: readonly number[]): readonly number[] => values.toSorted((a, b) => a - b);

it.each(Object.entries(expected))("%s", async (name, { inputs, branches: truth }) => {
  const job = await openJob(join(FOLDER, `${name}.onnx`), { scheduler, steps: 2 }, { threads: 1 });
  const { graph } = job.model;
  const { branches, warnings } = ditView(job.model);
  expect(warnings).toEqual([]);
  const outputs = graph.marks.map(({ site, value }) => ({ name: site, value }));
  const session = await Session.open({ ...job.model, graph: { ...graph, outputs } }, { optimise: "disabled" });
  const feeds = Object.entries(inputs).map(([input, { shape, values }]) => [input, tensorOf("float", shape, values)] as const);
  const results = await session.run(new Map(feeds));
  await session.close();
  const left = new Set(truth.map(({ kind, values }) => ({ kind, values: ascending(values) })));
  for (const { site, kind } of branches) {
    const value = results.get(site);
    const values = ascending(value ? tensorNumbers(value) : []);
    const same = [...left].find((one) => one.values.length === values.length && relativeL2(values, one.values) <= 1e-5);
    expect(same?.kind, site).toBe(kind);
    if (same) left.delete(same);
  }
  expect([...left].map(({ kind }) => kind)).toEqual([]);
});
