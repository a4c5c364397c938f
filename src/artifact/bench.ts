/** Times the artifact, the same run without caching, and the loop over the original step: one process each, running in turn. */
import { fork, type ChildProcess } from "node:child_process";
import { mkdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { benchFailed, type Progress } from "../words/index.js";
import { cancelled } from "../../ir/diagnostics.js";
import { WrittenData } from "../../ir/onnx/index.js";
import { readTensor, type TensorData } from "../../ir/tensor.js";
import { type Artifact, feedsOf, writeEmitted } from "./artifact.js";
import { type Answer, answerSchema, type LoopTask, type ModelTask } from "./bench-task.js";
import { dataFilesIn, FILES } from "./manifest.js";
import { linked, placeBeside, tidy } from "../files/index.js";
import { compileModel } from "../compile/index.js";
import type { Model } from "../../ir/graph.js";
import { sampleInputs } from "../job/index.js";
import { assertKernels, type RuntimeOptions } from "../runtime/index.js";

export interface Timing {
  readonly loadMs: number;
  readonly medianMs: number;
  /** The interquartile range. */
  readonly iqrMs: number;
  /** The peak memory of the process. */
  readonly rssBytes: number;
}

export interface Bench {
  readonly device: string;
  /** Null: the runtime's default. */
  readonly threads: number | null;
  readonly runs: number;
  readonly artifact: Timing;
  /** The whole run as one model, nothing reused. */
  readonly uncached: Timing;
  /** The original step, called once a step. */
  readonly loop: Timing;
  /** Of the artifact over the uncached one: measured, the bound by MACs, and the measured one as a share of the bound. */
  readonly speedup: { readonly measured: number; readonly macBound: number; readonly ofBound: number };
}

export interface BenchOptions extends RuntimeOptions {
  /** Default: 5. */
  readonly runs?: number | undefined;
  /** The same run without caching, where it has been compiled already, and what of it lies in the artifact's data files. */
  readonly uncached?: { readonly model: Model; readonly written: WrittenData } | undefined;
  readonly progress?: Progress | undefined;
}

/**
 * One warm-up and `runs` timed runs of each, in turn, so that a machine that changes speed changes all of them.
 * Throws NO_KERNELS, BENCH_FAILED.
 */
export async function bench(artifact: Artifact, options: BenchOptions = {}): Promise<Bench> {
  const { device, threads, runs = 5, progress } = options;
  assertKernels(artifact.job.run, device);
  const folder = await folderBeside(artifact.folder);
  const workers: Worker[] = [];
  try {
    const uncached = await writeUncached(artifact, folder, options);
    const inputs = feedsOf(artifact.job, sampleInputs(artifact.job, 0));
    const feeds = new Map([...inputs].map(([name, data]) => [name, { ...data, shape: [...data.shape], content: inMemory(data) }]));
    const models = [join(artifact.folder, FILES.model), uncached];
    for (const task of [
      ...models.map((model) => ({ model, feeds, device, threads })),
      { loopOf: artifact.folder, extensions: artifact.extensions, device, threads },
    ]) {
      workers.push(await Worker.start(task));
    }
    for (let run = -1; run < runs; run++) {
      for (const worker of workers) await worker.run(run >= 0);
      if (options.signal?.aborted) throw cancelled();
      progress?.("bench", run + 2, runs + 1);
    }
  } finally {
    for (const worker of workers) worker.stop();
    await rm(folder, { recursive: true, force: true });
  }
  const [cached, plain, loop] = workers.map((worker) => worker.timing());
  if (!cached || !plain || !loop) throw new Error("internal: a worker is missing");
  const measured = plain.medianMs / cached.medianMs;
  const macBound = artifact.manifest.macs.bound;
  return {
    device: device ?? "cpu",
    threads: threads ?? null,
    runs,
    artifact: cached,
    uncached: plain,
    loop,
    speedup: { measured, macBound, ofBound: measured / macBound },
  };
}

/** A new folder on the same disk, or in the system's temporary folder if that disk is read-only. */
async function folderBeside(folder: string): Promise<string> {
  const target = resolve(folder);
  try {
    return await newFolder(target);
  } catch {
    return newFolder(join(tmpdir(), basename(target)));
  }
}

async function newFolder(target: string): Promise<string> {
  tidy(target);
  const folder = placeBeside(target);
  await mkdir(folder);
  return folder;
}

/** Writes the artifact's run without caching, linked to the artifact's weights if possible; returns the model file. */
export async function writeUncached(
  { folder, job, plan, manifest }: Artifact,
  into: string,
  { uncached, signal }: Pick<BenchOptions, "uncached" | "signal"> = {},
): Promise<string> {
  const links = await Promise.all(
    dataFilesIn(folder).map(async (name) => ({
      name,
      data: join(folder, name),
      isLinked: await linked(join(folder, name), join(into, name)),
    })),
  );
  const written = new WrittenData(links.every(({ isLinked }) => isLinked) ? uncached?.written : undefined);
  for (const { name, data, isLinked } of links) if (isLinked) written.link(name, data);
  const file = join(into, "uncached.onnx");
  const model = uncached?.model ?? (await compileModel(job, plan, { form: manifest.form })).uncached;
  await writeEmitted(model, file, { written, signal });
  return file;
}

/** The bytes of a tensor, to be sent to another process. */
function inMemory(data: TensorData): { readonly kind: "bytes"; readonly bytes: Uint8Array<ArrayBuffer> } {
  return { kind: "bytes", bytes: Uint8Array.from(readTensor(data)) };
}

class Worker {
  private readonly times: number[] = [];
  private loadMs = 0;
  private rssBytes = 0;

  private constructor(private readonly child: ChildProcess) {}

  static async start(task: ModelTask | LoopTask): Promise<Worker> {
    const worker = new Worker(
      fork(new URL("./bench-worker.js", import.meta.url), { stdio: ["ignore", "ignore", "inherit", "ipc"], serialization: "advanced" }),
    );
    try {
      const answer = await worker.ask(task);
      if (!("loadMs" in answer)) throw benchFailed("it did not load");
      worker.loadMs = answer.loadMs;
      return worker;
    } catch (error) {
      worker.stop();
      throw error;
    }
  }

  async run(counts: boolean): Promise<void> {
    const answer = await this.ask("run");
    if (!("runMs" in answer)) throw benchFailed("it did not run");
    if (counts) this.times.push(answer.runMs);
    this.rssBytes = answer.rssBytes;
  }

  timing(): Timing {
    const { loadMs, rssBytes } = this;
    const sorted = [...this.times].sort((a, b) => a - b);
    return { loadMs, medianMs: quantile(sorted, 0.5), iqrMs: quantile(sorted, 0.75) - quantile(sorted, 0.25), rssBytes };
  }

  stop(): void {
    this.child.kill();
  }

  private ask(message: ModelTask | LoopTask | "run"): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const onExit = (code: number | null): void => {
        reject(benchFailed(`its process ended with ${code ?? "a signal"}`));
      };
      this.child.once("exit", onExit);
      this.child.once("message", (raw) => {
        this.child.off("exit", onExit);
        const answer = answerSchema.parse(raw);
        if ("problem" in answer) reject(benchFailed(answer.problem));
        else resolve(answer);
      });
      this.child.send(message);
    });
  }
}

/** Linear interpolation between the two nearest of the sorted values. */
function quantile(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1);
  const low = sorted[Math.floor(at)] ?? 0;
  const high = sorted[Math.ceil(at)] ?? low;
  return low + (at - Math.floor(at)) * (high - low);
}
