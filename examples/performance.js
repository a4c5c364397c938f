// Measures what the compiled runs are worth: cached against uncached, uncached against the step-by-step loop, and every optional
// pass by itself. Prints the Markdown of docs/performance.md.
//
//   node examples/performance.js [MODEL…] [--steps n] [--batch n] [--runs n] [--threads n]
//
// MODEL defaults to the glyph model beside this file, at batch 8. All ratios are of runs that took turns in one go.
import { mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bench, compile, openArtifact, openJob, plan, planningFor, writeArtifact } from "smoothcc";
import { passes } from "smoothcc/passes";
import { bind } from "smoothcc/schedules";

const number = { type: "string" };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { steps: number, batch: number, runs: number, threads: number },
});
const given = (name) => (values[name] === undefined ? undefined : Number(values[name]));
const models = positionals.length > 0 ? positionals : [fileURLToPath(new URL("glyphs", import.meta.url))];
const [steps, batch, runs, threads] = [given("steps"), given("batch") ?? 8, given("runs") ?? 7, given("threads")];
const folder = await mkdtemp(join(tmpdir(), "smoothcc-performance-"));

async function timed(job, interval, without) {
  const { schedule } = await plan(planningFor(job), "fora", { interval });
  const compiled = await compile(job, bind(schedule, job.table, job.model.dit.branches, job.context.guidance), { without });
  await writeArtifact(folder, { job, schedule, compiled }, true);
  return { compiled, times: await bench(await openArtifact(folder, { threads }), { runs, threads }) };
}

const ms = ({ medianMs, iqrMs }) => `${medianMs.toFixed(0)} ± ${iqrMs.toFixed(0)}`;
const MB = (bytes) => (bytes / 1e6).toFixed(0);

try {
  console.log(
    `${cpus()[0]?.model.trim()}, ${threads ?? "all"} threads; ${runs} runs each, in turn; ms: median ± distance of the quartiles.\n`,
  );
  console.log(
    "| model | fora | cached, ms | uncached, ms | step loop, ms | cached faster | MACs allow | of that | uncached faster than loop | load, ms | RSS, MB |",
  );
  console.log("|---|---|---|---|---|---|---|---|---|---|---|");
  for (const model of models) {
    const job = await openJob(model, { steps, batch });
    for (const interval of [2, 3]) {
      const { artifact, uncached, loop, speedup } = (await timed(job, interval)).times;
      const cells = [
        `${basename(model)}, batch ${batch}, ${job.table.rows.length} steps`,
        `n = ${interval}`,
        ms(artifact),
        ms(uncached),
        ms(loop),
        `${speedup.measured.toFixed(2)}×`,
        `${speedup.macBound.toFixed(2)}×`,
        `${(100 * speedup.ofBound).toFixed(1)} %`,
        `${(loop.medianMs / uncached.medianMs).toFixed(2)}×`,
        artifact.loadMs.toFixed(0),
        `${MB(artifact.rssBytes)}, ${MB(uncached.rssBytes)}, ${MB(loop.rssBytes)}`,
      ];
      console.log(`| ${cells.join(" | ")} |`);
    }
  }
  console.log("\nWithout one pass, at n = 2; times are against the step loop of the same go:\n");
  console.log("| model | without | nodes | time / loop | peak memory of a run, MB |");
  console.log("|---|---|---|---|---|");
  const optional = [...passes.values()].filter(({ isOptional }) => isOptional).map(({ name }) => name);
  for (const model of models) {
    const job = await openJob(model, { steps, batch });
    for (const without of [[], ...optional.map((name) => [name])]) {
      const { compiled, times } = await timed(job, 2, without);
      const ratio = times.artifact.medianMs / times.loop.medianMs;
      const name = without.length > 0 ? `\`-${without.join()}\`` : "nothing";
      console.log(
        `| ${basename(model)} | ${name} | ${compiled.nodes.emitted} | ${ratio.toFixed(3)} | ${(compiled.memory.activations / 1e6).toFixed(1)} |`,
      );
    }
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
