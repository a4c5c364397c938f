/** Runs in parts: played one after the other by sessions of this file, they give what the whole model gives, bit for bit. */
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { allNodes } from "../ir/analysis.js";
import type { TensorData } from "../ir/tensor.js";
import { ArtifactSession, feedsOf, runSegments, writeArtifact } from "../src/artifact/artifact.js";
import { FILES, readManifest } from "../src/artifact/manifest.js";
import { compileModel } from "../src/compile/compile.js";
import type { Job } from "../src/job/job.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { toRuntime } from "../src/runtime/tensors.js";
import { fixtureNamed } from "./support/fixtures.js";
import { openFixture, planOf, randomSchedule } from "./support/jobs.js";
import { rejectedCodeOf } from "./support/thrown.js";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-segments-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** A random plan, compiled whole and in parts. */
async function emit(job: Job, segments: number, seed = 5): Promise<string> {
  const schedule = randomSchedule(job, seed);
  const compiled = await compileModel(job, planOf(job, schedule.cells).plan, { segments });
  const target = join(mkdtempSync(join(folder, "x")), "artifact");
  await writeArtifact(target, { job, schedule, compiled }, false);
  return target;
}

/** As the whole is loaded: weights that are rearranged for speed are summed in another order. */
const LOADED = { graphOptimizationLevel: "disabled", extra: { session: { disable_prepacking: "1" } } } as const;

/** Plays the models that the manifest names, each fed with what it asks for: as a program would that knows nothing else. */
async function play(artifact: string, feeds: ReadonlyMap<string, TensorData>): Promise<ReadonlyMap<string, Tensor>> {
  const values = new Map(Array.from(feeds, ([name, data]) => [name, toRuntime(data)]));
  for (const { model } of readManifest(artifact).segments) {
    const session = await InferenceSession.create(join(artifact, model), LOADED);
    const own = Object.fromEntries(session.inputNames.map((name) => [name, values.get(name) ?? new Tensor("float32", [], [0])]));
    for (const [name, value] of Object.entries(await session.run(own))) values.set(name, value);
    await session.release();
  }
  return values;
}

const MULTISTEP = { _class_name: "DPMSolverMultistepScheduler", num_train_timesteps: 1000, beta_schedule: "linear", solver_order: 2 };

describe.each([
  { name: "dit/dynamo-20", form: "batched", segments: 3 },
  { name: "sd3/torchscript-17", form: "none", segments: 2 },
  { name: "flux2/dynamo-23", form: "none", segments: 5 },
] as const)("$name in $segments parts", ({ name, form, segments }) => {
  it("gives what the whole gives", async () => {
    const job = await openFixture(fixtureNamed(name), form, { steps: 7, ...(form === "batched" && { scheduler: MULTISTEP }) });
    const artifact = await emit(job, segments);
    const feeds = feedsOf(job, sampleInputs(job, 0, { seed: 3 }));
    const session = await ArtifactSession.open(join(artifact, FILES.model), {});
    const whole = await session.run(feeds).finally(() => session.close());
    expect((await play(artifact, feeds)).get("latent")?.data).toEqual(whole);
    const told: number[][] = [];
    const played = await runSegments(artifact, readManifest(artifact), feeds, {
      onSegment: (done, rows, latent) => told.push([done, rows, latent.shape[0] ?? 0]),
    });
    expect([...played.keys()]).toEqual(["latent"]);
    expect(told.map(([done]) => done)).toEqual(readManifest(artifact).segments.map(({ to }) => to));
    expect(told.every(([, rows, batch]) => rows === 7 && batch === job.run.batch)).toBe(true);
  });
});

describe("parts", () => {
  it("hold every node once, and no weight that the whole does not hold", async () => {
    const job = await openFixture(fixtureNamed("dit/dynamo-20"), "none", { steps: 6 });
    const schedule = randomSchedule(job, 1);
    const { plan } = planOf(job, schedule.cells);
    const whole = await compileModel(job, plan);
    const cut = await compileModel(job, plan, { segments: 3 });
    expect(cut.segments.map(({ from, to }) => [from, to])).toEqual([[0, 2], [2, 4], [4, 6]]); // prettier-ignore
    const count = cut.segments.reduce((sum, { model }) => sum + allNodes(model.graph).length, 0);
    expect(count).toBe(whole.nodes.emitted);
    const [one, three] = [await emit(job, 1, 1), await emit(job, 3, 1)];
    expect(readManifest(one).segments).toEqual([]);
    expect(readFileSync(join(one, FILES.model)).equals(readFileSync(join(three, FILES.model)))).toBe(true);
    expect(statSync(join(three, FILES.data)).size).toBe(statSync(join(one, FILES.data)).size);
  });

  it("are refused where a run cannot be cut", async () => {
    const job = await openFixture(fixtureNamed("dit/dynamo-20"), "none", { steps: 4 });
    const schedule = randomSchedule(job, 1);
    const { plan } = planOf(job, schedule.cells);
    expect(await rejectedCodeOf(compileModel(job, plan, { segments: 5 }))).toBe("BAD_OPTION");
    expect(await rejectedCodeOf(compileModel(job, plan, { segments: 2, form: "loop" }))).toBe("FORM_UNSUPPORTED");
  });
});
