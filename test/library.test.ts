/** What the library promises: options that are checked, an end when it is asked for, and the same bytes however many work at once. */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { beforeAll, describe, expect, it } from "vitest";
import * as smoothcc from "../src/index.js";
import { fixtureNamed } from "./support/fixtures.js";
import { rejectedCodeOf } from "./support/thrown.js";

const ROOT = resolve(import.meta.dirname, "..");
const { model, scheduler } = fixtureNamed("dit/dynamo-20");
const home = mkdtempSync(join(tmpdir(), "smoothcc-library-"));
const overrides = { scheduler, steps: 4, inputs: new Map([["class_labels", 1]]) };
const schedule = { steps: 4, cells: new Map([["attn", [1, 0, 1, 0]] as const]) };

/** Opens, compiles and writes; returns the folder. */
async function compiled(name: string, runtime: { readonly signal?: AbortSignal } = {}): Promise<string> {
  const job = await smoothcc.openJob(model, overrides, runtime);
  const folder = join(home, name);
  const contents = { job, schedule, compiled: await smoothcc.compile(job, smoothcc.planFor(job, schedule)) };
  await smoothcc.writeArtifact(folder, contents, false, runtime.signal);
  return folder;
}

/** The digest of every file, by name. */
function digests(folder: string): Readonly<Record<string, string>> {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => statSync(join(folder, file)).isFile());
  return Object.fromEntries(
    files.map((file) => [
      file,
      createHash("sha256")
        .update(readFileSync(join(folder, file)))
        .digest("hex"),
    ]),
  );
}

describe("options", () => {
  const output = join(home, "none");
  const wrong: Readonly<Record<string, readonly [given: object, code: string, word: string]>> = {
    "no output": [{}, "BAD_OPTION", "output"],
    "one that there is not": [{ output, smaples: 3 }, "UNKNOWN_NAME", "smaples"],
    "a number as a text": [{ output, samples: "3" }, "BAD_OPTION", "samples"],
    "a negative seed": [{ output, seed: -1 }, "BAD_OPTION", "seed"],
    "something else for a signal": [{ output, signal: true }, "BAD_OPTION", "signal"],
    "an unknown override": [{ output, overrides: { step: 4 } }, "UNKNOWN_NAME", "step"],
    "a policy that there is not": [{ output, policy: "smooth", overrides }, "UNKNOWN_NAME", "smooth"],
  };

  it.each(Object.entries(wrong))("of a build are refused by a CompilerError: %s", async (_, [given, code, word]) => {
    // As JavaScript may call it.
    const built: unknown = Reflect.apply(smoothcc.build, undefined, [model, given]);
    await expect(built).rejects.toMatchObject({ name: "CompilerError", code });
    await expect(built).rejects.toThrow(word);
    expect(readdirSync(home)).not.toContain("none");
  });

  it("have the defaults of the command line", async () => {
    const job = await smoothcc.openJob(model, overrides);
    const trace = await smoothcc.calibrate(job, { samples: 1 });
    expect(trace).toEqual(await smoothcc.calibrate(job, { samples: 1, seed: 0 }));
    expect(smoothcc.sampleInputs(job, 0)).toEqual(smoothcc.sampleInputs(job, 0, { seed: 0 }));
  });
});

describe("work at once", () => {
  let artifact: string;
  beforeAll(async () => {
    artifact = await compiled("alone");
  });

  it("compiles to the same bytes as one after the other", async () => {
    const together = await Promise.all(["one", "two", "three"].map((name) => compiled(name)));
    const expected = digests(artifact);
    expect(Object.keys(expected)).toContain("model.onnx");
    for (const folder of together) expect(digests(folder)).toEqual(expected);
  });

  it("runs an artifact in two worker threads with the numbers of the main thread", async () => {
    const { job } = await smoothcc.openArtifact(artifact);
    const session = await smoothcc.ArtifactSession.open(join(artifact, "model.onnx"), { threads: 1 });
    const expected = await session.run(smoothcc.feedsOf(job, smoothcc.sampleInputs(job, 0)));
    await session.close();
    const library = pathToFileURL(join(ROOT, "dist", "src", "index.js")).href;
    const code = `
      const { parentPort, workerData } = require("node:worker_threads");
      import("${library}").then(async ({ ArtifactSession, feedsOf, openArtifact, sampleInputs }) => {
        const { job } = await openArtifact(workerData);
        const session = await ArtifactSession.open(workerData + "/model.onnx", { threads: 1 });
        parentPort.postMessage(await session.run(feedsOf(job, sampleInputs(job, 0))));
        await session.close();
      });`;
    const results = await Promise.all(
      [1, 2].map(
        () =>
          new Promise<unknown>((resolve, reject) => {
            new Worker(code, { eval: true, workerData: artifact }).once("message", resolve).once("error", reject);
          }),
      ),
    );
    for (const result of results) expect(result).toEqual(expected);
  });
});

describe("a signal", () => {
  /** Everything that takes one. What has a progress is stopped by it in the middle; the others after a moment. */
  const tasks: Readonly<Record<string, (signal: AbortSignal, reached: () => void, folder: string) => Promise<unknown>>> = {
    build: (signal, progress, output) => smoothcc.build(model, { overrides, output, samples: 2, runs: 1, signal, progress }),
    "the end of a build": (signal, onCompiled, output) =>
      smoothcc.build(model, { overrides, output, policy: "fora", policyOptions: { interval: 2 }, runs: 0, signal, onCompiled }),
    "open a job": (signal) => smoothcc.openJob(model, overrides, { signal }),
    calibrate: async (signal, progress) => smoothcc.calibrate(await smoothcc.openJob(model, overrides), { samples: 2, signal, progress }),
    plan: async (signal, reached) => {
      const job = await smoothcc.openJob(model, overrides);
      const runs = smoothcc.runsOf(job, { samples: [0, 1], signal });
      const planning = { ...smoothcc.planningForJob(job, await smoothcc.calibrate(job, { samples: 2 })), runs, progress: reached };
      return smoothcc.plan(planning, "budget", { share: 0.5 }).finally(() => runs.close());
    },
    "compile and write": (signal) => compiled("cancelled", { signal }),
    verify: async (signal, progress) => smoothcc.verify(await smoothcc.openArtifact(join(home, "alone")), { samples: 2, signal, progress }),
    bench: async (signal, progress) => smoothcc.bench(await smoothcc.openArtifact(join(home, "alone")), { runs: 50, signal, progress }),
    run: async (signal) => {
      const { job } = await smoothcc.openArtifact(join(home, "alone"));
      const session = await smoothcc.ArtifactSession.open(join(home, "alone", "model.onnx"), { signal });
      return session.run(smoothcc.feedsOf(job, smoothcc.sampleInputs(job, 0))).finally(() => session.close());
    },
  };

  it.each(Object.entries(tasks))("that is aborted before it begins ends it, and leaves nothing: %s", async (_, task) => {
    const before = readdirSync(home);
    expect(await rejectedCodeOf(task(AbortSignal.abort(), () => undefined, join(home, "cancelled")))).toBe("CANCELLED");
    expect(readdirSync(home)).toEqual(before);
  });

  // Bench starts processes of the built program: that it ends in the middle is seen in test/errors.test.ts.
  it.each(Object.entries(tasks).filter(([name]) => name !== "bench"))(
    "that is aborted in the middle ends it, and leaves nothing: %s",
    async (name, task) => {
      const before = readdirSync(home);
      const abort = new AbortController();
      const stop = (): void => {
        abort.abort();
      };
      const hasProgress = !["open a job", "compile and write", "run"].includes(name);
      if (!hasProgress) setTimeout(stop, 1);
      expect(await rejectedCodeOf(task(abort.signal, stop, join(home, "cancelled")))).toBe("CANCELLED");
      expect(readdirSync(home)).toEqual(before);
    },
  );
});
