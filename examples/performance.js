// Measures what the compiled runs are worth and prints the Markdown of docs/performance.md.
//
//   node examples/performance.js [TABLE] [MODEL…] [--steps n] [--batch n] [--runs n] [--threads n]
//
// TABLE is `speed` (cached against uncached, and uncached against the step-by-step loop), `passes` (without one optional pass at
// a time), `forms` (one loop against the unrolled run) or `compile` (time and memory of compiling, for 1, 2, 4, 8 and 12 times the
// steps). MODEL defaults to the glyph model beside this file. All ratios are of runs that took turns in one go.
import { mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bench, compile, openArtifact, openJob, plan, planFor, planningForJob, writeArtifact } from "smoothcc";
import { passes } from "smoothcc/passes";

const number = { type: "string" };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { steps: number, batch: number, runs: number, threads: number },
});
const given = (name) => (values[name] === undefined ? undefined : Number(values[name]));
const [steps, batch, runs, threads] = [given("steps"), given("batch") ?? 8, given("runs") ?? 7, given("threads")];

const ms = ({ medianMs, iqrMs }) => `${medianMs.toFixed(0)} ± ${iqrMs.toFixed(0)}`;
const MB = (bytes) => (bytes / 1e6).toFixed(0);
const row = (cells) => console.log(`| ${cells.join(" | ")} |`);
const head = (cells) => {
  row(cells);
  row(cells.map(() => "---"));
};

async function compiledAt(job, interval, options = {}) {
  const { schedule } = await plan(planningForJob(job), "fora", { interval });
  const bound = planFor(job, schedule);
  return { schedule, compiled: await compile(job, bound, options) };
}

async function timed(folder, job, interval, options) {
  const { schedule, compiled } = await compiledAt(job, interval, options);
  await writeArtifact(folder, { job, schedule, compiled }, true);
  return { compiled, times: await bench(await openArtifact(folder, { threads }), { runs, threads }) };
}

async function speed(models, folder) {
  head([
    "model",
    "fora",
    "cached, ms",
    "uncached, ms",
    "step loop, ms",
    "cached faster",
    "MACs allow",
    "of that",
    "uncached faster than loop",
  ]);
  for (const model of models) {
    const job = await openJob(model, { steps, batch });
    for (const interval of [2, 3]) {
      const { artifact, uncached, loop, speedup } = (await timed(folder, job, interval)).times;
      row([
        `${basename(model)}, batch ${batch}, ${job.run.rows.length} steps`,
        `n = ${interval}`,
        ms(artifact),
        ms(uncached),
        ms(loop),
        `${speedup.measured.toFixed(2)}×`,
        `${speedup.macBound.toFixed(2)}×`,
        `${(100 * speedup.ofBound).toFixed(1)} %`,
        `${(loop.medianMs / uncached.medianMs).toFixed(2)}×`,
      ]);
    }
  }
}

async function withoutOne(models, folder) {
  head(["model", "without", "nodes", "time / step loop", "peak memory of values, MB"]);
  const optional = [...passes.values()].filter(({ isOptional }) => isOptional).map(({ name }) => name);
  for (const model of models) {
    const job = await openJob(model, { steps, batch });
    for (const without of [[], ...optional.map((name) => [name])]) {
      const { compiled, times } = await timed(folder, job, 2, { without });
      row([
        basename(model),
        without.length > 0 ? `\`-${without.join()}\`` : "nothing",
        compiled.nodes.emitted,
        (times.artifact.medianMs / times.loop.medianMs).toFixed(3),
        (compiled.memory.activations / 1e6).toFixed(1),
      ]);
    }
  }
}

async function forms(models, folder) {
  head(["model", "form", "nodes", "load, ms", "run, ms", "run / step loop", "RSS, MB"]);
  for (const model of models) {
    const job = await openJob(model, { steps, batch });
    for (const form of ["unrolled", "loop"]) {
      const { compiled, times } = await timed(folder, job, 2, { form });
      const { artifact, loop } = times;
      const ratio = (artifact.medianMs / loop.medianMs).toFixed(3);
      row([basename(model), form, compiled.nodes.emitted, artifact.loadMs.toFixed(0), ms(artifact), ratio, MB(artifact.rssBytes)]);
    }
  }
}

async function growth(models) {
  head(["model", "steps", "nodes, uncached", "cached", "processor time, s", "µs a node", "RSS so far, MB"]);
  for (const model of models) {
    for (const times of [1, 2, 4, 8, 12]) {
      const job = await openJob(model, { steps: times * (steps ?? 50), batch });
      const before = process.cpuUsage();
      const { nodes } = (await compiledAt(job, 2)).compiled;
      const { user, system } = process.cpuUsage(before);
      const seconds = (user + system) / 1e6;
      const each = ((1e6 * seconds) / nodes.uncached).toFixed(0);
      row([basename(model), job.steps, nodes.uncached, nodes.emitted, seconds.toFixed(1), each, MB(1024 * process.resourceUsage().maxRSS)]);
    }
  }
}

const TABLES = { speed, passes: withoutOne, forms, compile: growth };
const asked = positionals[0] in TABLES ? [positionals.shift()] : Object.keys(TABLES);
const models = positionals.length > 0 ? positionals : [fileURLToPath(new URL("glyphs", import.meta.url))];
const folder = await mkdtemp(join(tmpdir(), "smoothcc-performance-"));
try {
  console.log(`${cpus()[0]?.model.trim()}, ${threads ?? "all"} threads; ${runs} runs each, in turn; median ± distance of the quartiles.`);
  for (const name of asked) {
    console.log("");
    await TABLES[name](models, folder);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
