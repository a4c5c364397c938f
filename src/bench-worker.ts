/** The process that `bench` times things in: loads one candidate, then runs it whenever it is told to. */
import { openArtifact, ArtifactSession } from "./artifact.js";
import { taskSchema, type Answer } from "./bench.js";
import { ReferenceLoop } from "./reference.js";
import { sampleInputs } from "./run-inputs.js";

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
  const { artifact, model, device, threads } = taskSchema.parse(message);
  const runtime = { device, threads };
  const { job } = await openArtifact(artifact, runtime);
  const inputs = sampleInputs(job, 0, { seed: 0 });
  const started = performance.now();
  if (model === undefined) {
    const loop = new ReferenceLoop(job, runtime);
    // The loop opens its session when it first runs.
    await loop.open();
    run = () => loop.run(inputs);
  } else {
    const session = await ArtifactSession.open(model, job, runtime);
    run = () => session.run(inputs);
  }
  return { loadMs: performance.now() - started };
}
