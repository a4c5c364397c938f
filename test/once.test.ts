/**
 * A build reads its source once, and binds and lifts it once for each batch size that it runs at, as a network is lifted with its shapes
 * bound. Another cut is lifted from what is bound. Verification opens what was written as its user would: it reads, binds and lifts the
 * step of the artifact.
 */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { InferenceSession } from "onnxruntime-node";
import { expect, it, vi } from "vitest";
import { lift } from "../ir/lift/index.js";
import { readModel } from "../ir/onnx/index.js";
import { build } from "../src/build.js";
import { bindModel } from "../src/job/bound-model.js";
import { cutFor, openJob } from "../src/job/job.js";
import { recipeOverrides } from "../src/cli/options.js";
import { fixtureNamed } from "./support/fixtures.js";

vi.mock("../ir/lift/index.js", async (original) => counted(await original<Readonly<Record<string, unknown>>>(), "lift"));
vi.mock("../ir/onnx/index.js", async (original) => counted(await original<Readonly<Record<string, unknown>>>(), "readModel"));
vi.mock("../src/job/bound-model.js", async (original) => counted(await original<Readonly<Record<string, unknown>>>(), "bindModel"));

/** A module one of whose functions counts its calls. */
function counted(module: Readonly<Record<string, unknown>>, name: string): Readonly<Record<string, unknown>> {
  const called = module[name];
  if (typeof called !== "function") throw new Error(`there is no function '${name}'`);
  return { ...module, [name]: vi.fn((...given: readonly unknown[]): unknown => Reflect.apply(called, undefined, given)) };
}

/** The files that a build reads, and how often it lifts and binds. */
async function workOf(overrides: Parameters<typeof recipeOverrides>[0]): Promise<Readonly<Record<string, number | readonly string[]>>> {
  for (const mocked of [readModel, lift, bindModel]) vi.mocked(mocked).mockClear();
  const dit = fixtureNamed("dit_symbolic/dynamo-20");
  const built = await build(dit.model, {
    overrides: recipeOverrides({
      scheduler: dit.scheduler,
      steps: 6,
      dim: ["height=8", "width=8"],
      input: ["class_labels=1"],
      ...overrides,
    }),
    output: join(mkdtempSync(join(tmpdir(), "smoothcc-once-")), "artifact"),
    ...{
      policy: "smoothcache",
      policyOptions: { alpha: 10 },
      force: false,
      samples: 1,
      runs: 0,
      seed: 0,
      threads: 1,
      warn: () => undefined,
    },
  });
  expect(built.verification.ok).toBe(true);
  return {
    reads: vi.mocked(readModel).mock.calls.map(([file]) => basename(file)),
    lifts: vi.mocked(lift).mock.calls.length,
    binds: vi.mocked(bindModel).mock.calls.length,
  };
}

const READS = ["dynamo-20.onnx", "step.onnx"];

it("one batch", async () => {
  expect(await workOf({ batch: 1 })).toEqual({ reads: READS, lifts: 2, binds: 2 });
});

it("another batch for the calibration", async () => {
  expect(await workOf({ batch: 2 })).toEqual({ reads: READS, lifts: 3, binds: 3 });
});

it("a cut", async () => {
  expect(await workOf({ batch: 1, cut: "block" })).toEqual({ reads: READS, lifts: 2, binds: 2 });
});

it("a plan that is for another cut: what is bound is lifted again", async () => {
  const dit = fixtureNamed("dit_symbolic/dynamo-20");
  const overrides = recipeOverrides({ scheduler: dit.scheduler, steps: 6, dim: ["height=8", "width=8"], batch: 1 });
  const job = await openJob(dit.model, overrides, { threads: 1 });
  for (const mocked of [readModel, lift]) vi.mocked(mocked).mockClear();
  const sessions = vi.spyOn(InferenceSession, "create");
  const cut = await cutFor(job, { cut: "block" }, { threads: 1 });
  expect(cut.model.graph.marks.map(({ site }) => site)).not.toEqual(job.model.graph.marks.map(({ site }) => site));
  expect(await cutFor(cut, { cut: "block" })).toBe(cut);
  expect(vi.mocked(readModel)).not.toHaveBeenCalled();
  expect(vi.mocked(lift)).toHaveBeenCalledTimes(1);
  expect(sessions).not.toHaveBeenCalled();
});
