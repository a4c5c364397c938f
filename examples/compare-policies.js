// Compares policies on one model at about the same compute: one calibration, an artifact for each, the same unseen noise for all.
// Prints a Markdown table.
//
//   node examples/compare-policies.js [MODEL] [samples] [policy,…] [--steps n] [--guidance scale] [--scheduler FILE] [--calibration n]
//
// MODEL defaults to the glyph model beside this file; samples (default 32) are seeds that calibration never saw; policies default
// to all that need no file; the calibration has 10 samples unless told.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  ArtifactSession,
  calibrate,
  compile,
  feedsOf,
  cutFor,
  openArtifact,
  openJob,
  plan,
  planFor,
  planningForJob,
  psnr,
  rangeOf,
  ReferenceLoop,
  relativeL2,
  runsOf,
  sampleInputs,
  writeArtifact,
} from "smoothcc";
import { halfWidth, mean } from "smoothcc/schedules";

const text = { type: "string" };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { steps: text, guidance: text, scheduler: text, calibration: text },
});
const [MODEL = fileURLToPath(new URL("glyphs", import.meta.url)), samples = 32, wanted] = positionals;
const SAMPLES = Number(samples);
const WANTED = wanted?.split(",");
const given = (name) => (values[name] === undefined ? undefined : Number(values[name]));
const CALIBRATION = { samples: given("calibration") ?? 10, seed: 0 };
const UNSEEN_SEED = 1000;
/** Shares of the compute; the interval at which a uniform schedule has about that share; options with which Δ-DiT, PAB and Token Caching have. */
const BUDGETS = [
  { share: 0.5, interval: 2, blocks: { interval: 3, blocks: 6 }, attention: { spatial: 3, mlp: 2, window: "50,950" }, tokens: [3, 0.25] },
  { share: 0.34, interval: 3, blocks: { interval: 9, blocks: 6 }, attention: { spatial: 5, mlp: 3, window: "50,950" }, tokens: [4, 0.125] },
  {
    share: 0.2,
    interval: 5,
    blocks: { interval: 12, blocks: 7 },
    attention: { spatial: 9, mlp: 6, window: "25,975" },
    tokens: [7, 0.0625],
  },
];

/** Token Caching of all blocks, as the last one is an eighth of the example network. */
const tokenCaching = ([interval, ratio], how) => ({ intervals: `${interval},${interval}`, ratio, kv: "cached", last: 0, ...how });

/** How each policy is asked for a budget. */
const CANDIDATES = {
  fora: ({ interval }) => ({ interval }),
  smoothcache: ({ share, interval }) => ({ share, k: interval + 2 }),
  "block-caching": ({ share }) => ({ share }),
  "block-caching, adjusted": ({ share }) => ({ share, adjust: "scale-shift" }),
  "delta-dit": ({ blocks }) => blocks,
  magcache: ({ share, interval }) => ({ share, k: 2 * interval - 1, retention: Number((0.2 / interval).toFixed(2)) }),
  pab: ({ attention }) => attention,
  lemica: ({ share, interval }) => ({ share, k: interval + 2 }),
  taylorseer: ({ interval }) => ({ interval, order: 2, phase: "smoothcache", warmup: 1 }),
  hicache: ({ interval }) => ({ interval, order: 2, phase: "smoothcache", warmup: 1 }),
  "ab-cache": ({ interval }) => ({ interval, order: 2, phase: "smoothcache", warmup: 1 }),
  foca: ({ interval }) => ({ interval, phase: "smoothcache", warmup: 1 }),
  l2p: ({ interval }) => ({ interval, phase: "smoothcache", warmup: 1 }),
  dpcache: ({ share }) => ({ share }),
  budget: ({ interval }) => ({ share: uniformFills(interval) / job.run.table.rows.length }),
  "token-caching, in turn": ({ tokens }) => tokenCaching(tokens, { by: "stagger" }),
  "token-caching, in turn, forecast": ({ tokens }) => tokenCaching(tokens, { by: "stagger", order: 2 }),
  "token-caching, clusters": ({ tokens }) => tokenCaching(tokens, { by: "cluster", propagate: 0.5 }),
  "token-caching, by change": ({ tokens }) => tokenCaching(tokens, { by: "change" }),
  "token-caching, by a mask": ({ tokens }) => tokenCaching(tokens, { by: "mask" }),
  "token-caching, by a mask, moved": ({ tokens }) => tokenCaching(tokens, { by: "mask", move: "fitted" }),
  "fewer steps": ({ interval }) => ({ steps: uniformFills(interval) }),
};

const NAMES = Object.keys(CANDIDATES).filter((name) => WANTED?.includes(name.split(",")[0]) ?? true);

const overrides = { steps: given("steps"), guidance: given("guidance"), scheduler: values.scheduler };
const job = await openJob(MODEL, overrides);
const trace = await calibrate(job, CALIBRATION);
const runs = runsOf(job, { seed: CALIBRATION.seed, samples: trace.samples });
const loop = new ReferenceLoop(job.run);
const unseen = Array.from({ length: SAMPLES }, (_, sample) => sampleInputs(job, sample, { seed: UNSEEN_SEED }));
const uncached = [];
for (const inputs of unseen) uncached.push(await loop.run(inputs));
await loop.close();

/** Steps that a uniform policy computes here: every n-th, and the last. */
const uniformFills = (interval) => 1 + Math.ceil((job.run.table.rows.length - 1) / interval);

/** Share of the MACs, errors against the uncached runs, and the options as they were given. */
async function measured(name, budget) {
  const options = CANDIDATES[name](budget);
  if (name === "fewer steps") return uncachedWith(options.steps);
  const { schedule } = await plan({ ...planningForJob(job, trace), runs }, name.split(",")[0], options);
  const own = await cutFor(job, schedule);
  const compiled = await compile(own, planFor(own, schedule));
  await writeArtifact(folder, { job: own, schedule, compiled }, true);
  const session = await ArtifactSession.open(join((await openArtifact(folder, {})).folder, "model.onnx"), {});
  const latents = [];
  for (const inputs of unseen) latents.push(await session.run(feedsOf(job, inputs)));
  await session.close();
  const given = Object.entries(options).map(([option, value]) => `--${option} ${value}`);
  return { share: compiled.macs.emitted / compiled.macs.uncached, ...errorsOf(latents), given: given.join(" ") };
}

/** What a run without caching comes to that has fewer steps. */
async function uncachedWith(steps) {
  const shorter = await openJob(MODEL, { ...overrides, steps });
  const loop = new ReferenceLoop(shorter.run);
  const latents = [];
  for (const inputs of unseen) latents.push(await loop.run(inputs));
  await loop.close();
  return { share: shorter.run.table.rows.length / job.run.table.rows.length, ...errorsOf(latents), given: `--steps ${steps}` };
}

/** Mean errors against the uncached runs. */
function errorsOf(latents) {
  const errors = latents.map((latent, i) => relativeL2(latent, uncached[i]));
  const ratios = latents.map((latent, i) => psnr(latent, uncached[i], rangeOf(uncached[i])));
  return { relL2: mean(errors), within: halfWidth(errors), psnr: mean(ratios) };
}

const folder = await mkdtemp(join(tmpdir(), "smoothcc-compare-"));
console.log("| policy | options | share of the MACs | error (relative L2) | PSNR |");
console.log("|---|---|---|---|---|");
try {
  for (const budget of BUDGETS) {
    for (const name of NAMES) {
      const { share, relL2, within, psnr: decibels, given } = await measured(name, budget);
      console.log(
        `| ${name} | \`${given}\` | ${share.toFixed(2)} | ${relL2.toFixed(4)}${within === undefined ? "" : ` ± ${within.toFixed(4)}`} | ${decibels.toFixed(1)} dB |`,
      );
    }
  }
} finally {
  await runs.close();
  await rm(folder, { recursive: true, force: true });
}
