// Compares policies on one model: one calibration, one artifact each, the same unseen noise for all. Prints a Markdown table.
//
//   node examples/compare-policies.js [MODEL] [samples]
//
// MODEL defaults to the glyph model beside this file; samples (default 16) are seeds that calibration never saw.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bench, calibrate, compile, openArtifact, openJob, plan, planningOf, verify, writeArtifact } from "smoothcc";
import { bind } from "smoothcc/schedules";

const MODEL = process.argv[2] ?? fileURLToPath(new URL("glyphs", import.meta.url));
const SAMPLES = Number(process.argv[3] ?? 16);
const RUNS = Number(process.argv[4] ?? 9);
const UNSEEN_SEED = 1000;

const CANDIDATES = [
  ["smoothcache", { share: 0.5 }],
  ["smoothcache", { share: 0.34 }],
  ["smoothcache", { share: 0.2, k: 7 }],
  ["fora", { interval: 2 }],
  ["fora", { interval: 3 }],
  ["fora", { interval: 5 }],
];

const job = await openJob(MODEL, {});
const trace = await calibrate(job, { samples: 10, seed: 0 });
const folder = await mkdtemp(join(tmpdir(), "smoothcc-compare-"));
console.log("| policy | computed | MACs | faster at most | measured | error (relative L2) | PSNR |");
console.log("|---|---|---|---|---|---|---|");
try {
  for (const [policy, options] of CANDIDATES) {
    const { schedule, summary } = await plan(planningOf(trace), policy, options);
    const compiled = await compile(job, bind(schedule, job.table, job.model.dit.branches, job.context.guidance));
    await writeArtifact(folder, { job, schedule, compiled }, true);
    const artifact = await openArtifact(folder, {});
    const { ok, fidelity } = await verify(artifact, { seed: UNSEEN_SEED, samples: SAMPLES });
    if (!ok) throw new Error(`${policy}: the artifact is not what its plan says`);
    const { speedup } = await bench(artifact, { runs: RUNS });
    const given = Object.entries(options).map(([name, value]) => ` --${name} ${value}`);
    const computed = Object.entries(summary.computed).map(([kind, steps]) => `${kind} ${steps}`);
    const share = (100 * compiled.macs.emitted) / compiled.macs.uncached;
    const cells = [
      `\`${policy}${given.join("")}\``,
      `${computed.join(", ")} of ${summary.steps}`,
      `${share.toFixed(0)} %`,
      `${speedup.macBound.toFixed(2)}×`,
      `${speedup.measured.toFixed(2)}×`,
      fidelity.relL2.toFixed(4),
      `${fidelity.psnr.toFixed(1)} dB`,
    ];
    console.log(`| ${cells.join(" | ")} |`);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
