/** The worker process of `bench`: loads one candidate, then runs it on every request. */
import { type Answer, type LoopTask, type ModelTask, taskSchema } from "./bench-task.js";
import { FASTEST, Session, Sessions } from "../runtime/index.js";

let run: (() => Promise<unknown>) | undefined;

process.on("message", (message) => {
  answer(message).then(
    (reply) => process.send?.(reply),
    (error: unknown) => process.send?.({ problem: error instanceof Error ? error.message : String(error) } satisfies Answer),
  );
});

async function answer(message: unknown): Promise<Answer> {
  if (run) {
    const started = performance.now();
    await run();
    return { runMs: performance.now() - started, rssBytes: process.resourceUsage().maxRSS * 1024 };
  }
  const task = taskSchema.parse(message);
  return "model" in task ? loadModel(task) : loadLoop(task);
}

async function loadModel({ model, feeds, device, threads }: ModelTask): Promise<Answer> {
  const started = performance.now();
  const session = await Session.open(model, { device, threads, optimise: "disabled" });
  run = () => session.run(feeds);
  return { loadMs: performance.now() - started };
}

async function loadLoop({ loopOf, extensions, device, threads }: LoopTask): Promise<Answer> {
  // Loaded here and not above: a process that times a model starts sooner without the compiler, and its memory is that of the model.
  const [{ openArtifact }, { decoded, encoded, ReferenceLoop }, { sampleInputs }] = await Promise.all([
    import("./artifact.js"),
    import("../reference/index.js"),
    import("../job/index.js"),
  ]);
  const { job } = await openArtifact(loopOf, { extensions, check: false, device, threads });
  const inputs = sampleInputs(job, 0);
  const started = performance.now();
  const loop = new ReferenceLoop(job.run, { device, threads, ...FASTEST });
  // The loop opens its session when it first runs.
  await loop.open();
  const companions = new Sessions({ device, threads, ...FASTEST });
  run = async () => {
    const conditions = await encoded(job, inputs.conditions, companions);
    await decoded(job, await loop.run({ ...inputs, conditions }), conditions, companions);
  };
  return { loadMs: performance.now() - started };
}
