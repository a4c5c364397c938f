/** Cells that compute some tokens: what artifacts do with them is what the loop over the exporter's step does, and they cost what they compute. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeL2 } from "../schedules/index.js";
import { ArtifactSession, feedsOf, writeArtifact } from "../src/artifact/artifact.js";
import { FILES } from "../src/artifact/manifest.js";
import { compileModel } from "../src/compile/compile.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { ReferenceLoop } from "../src/reference/loop.js";
import { fixtures } from "./support/fixtures.js";
import { nullClassOf, openFixture, partialSchedule, planOf } from "./support/jobs.js";

const RUNTIME = { threads: 1 };

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-tokens-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe.each(fixtures.map((fixture, seed) => ({ ...fixture, fixture, seed })))("$name", ({ fixture, seed }) => {
  it("computes what the loop over the step computes, along a random plan of tokens", async () => {
    const job = await openFixture(fixture, nullClassOf(fixture) === undefined ? "none" : "batched");
    const schedule = partialSchedule(job, seed);
    const { plan } = planOf(job, schedule.cells, schedule.adjustments);
    const compiled = await compileModel(job, plan);
    expect(compiled.cuda).toMatchObject({ missing: [], kernels: compiled.nodes.emitted, copies: [] });
    const target = join(mkdtempSync(join(folder, "x")), "artifact");
    await writeArtifact(target, { job, schedule, compiled }, false);
    const inputs = sampleInputs(job, 0, { seed: 3 });
    const session = await ArtifactSession.open(join(target, FILES.model), RUNTIME);
    const loop = new ReferenceLoop(job.run, RUNTIME);
    try {
      const truth = await loop.run(inputs, { plan });
      const found = relativeL2(await session.run(feedsOf(job, inputs)), truth);
      expect(found).toBeLessThanOrEqual(fixture.isHalf ? 5e-3 : 1e-5);
      expect(relativeL2(await loop.run(inputs), truth)).toBeGreaterThan(1e-4);
    } finally {
      await session.close();
      await loop.close();
    }
  });
});
