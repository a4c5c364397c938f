/** Lifting of networks that other authors built in other ways, against what PyTorch recorded of them: `fixtures/zoo`, see its README. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { ditView, type Model } from "../ir/graph.js";
import { lift } from "../ir/lift/index.js";
import { readModel } from "../ir/onnx/index.js";
import { tensorNumbers } from "../ir/tensor.js";
import { relativeL2 } from "../schedules/index.js";
import { readNpy } from "../src/files/npy.js";
import { openJob } from "../src/job/job.js";
import { Session } from "../src/runtime/session.js";

const ROOT = join(import.meta.dirname, "fixtures", "zoo");

const branchesSchema = z.array(
  z.object({ file: z.string(), kind: z.string(), block_index: z.int(), stream: z.string(), gated: z.boolean() }),
);

const networks = readdirSync(ROOT, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .flatMap(({ name }) => readdirSync(join(ROOT, name)).flatMap((file) => (file.endsWith(".onnx") ? [{ name, file }] : [])));

describe.each(networks)("$name/$file", ({ name, file }) => {
  const folder = join(ROOT, name);
  const truth = branchesSchema.parse(JSON.parse(readFileSync(join(folder, "branches.json"), "utf8")));

  it("has the recorded branches, and nothing else", async () => {
    const lifted = lift(await readModel(join(folder, file)));
    const { branches } = ditView(lifted);
    expect(branches.map(({ kind, block, stream, gated }) => ({ kind, block, stream, gated }))).toEqual(
      truth.map(({ kind, block_index: block, stream, gated }) => ({ kind, block, stream, gated })),
    );
    const values = await marked(lifted, folder);
    for (const [i, { site }] of branches.entries()) {
      const recorded = tensorNumbers(readNpy(join(folder, truth[i]?.file ?? "")));
      expect(relativeL2(values.get(site) ?? [], recorded), site).toBeLessThanOrEqual(1e-5);
    }
  });
});

it("takes whole times that a sampler misses by rounding", async () => {
  const folder = mkdtempSync(join(tmpdir(), "smoothcc-zoo-"));
  const scheduler = join(folder, "scheduler_config.json");
  writeFileSync(scheduler, JSON.stringify({ _class_name: "FlowMatchEulerDiscreteScheduler", shift: 1 }));
  const { run } = await openJob(join(ROOT, "groot", "dynamo-20.onnx"), { scheduler, steps: 4 }, { threads: 1 });
  // 1000 · (1 − k · 0.333), which is 333.99999999999994 in doubles.
  expect(run.table.rows.map(({ timestep }) => timestep)).toEqual([1000, 667, 334, 1]);
  rmSync(folder, { recursive: true });
});

/** The values of all branches on the recorded inputs. */
async function marked(lifted: Model, folder: string): Promise<ReadonlyMap<string, readonly number[]>> {
  const outputs = lifted.graph.marks.map(({ site, value }) => ({ name: site, value }));
  const session = await Session.open({ ...lifted, graph: { ...lifted.graph, outputs } }, { optimise: "basic" });
  const results = await session.run(
    new Map(lifted.graph.inputs.map((input) => [input.name, readNpy(join(folder, "inputs", `${input.name}.npy`))])),
  );
  await session.close();
  return new Map(Array.from(results, ([site, value]) => [site, tensorNumbers(value)]));
}
