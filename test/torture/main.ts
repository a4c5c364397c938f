/**
 * `npm run torture [-- KILLS]`: kills commands, fills their disk, runs several over one another, changes what they read, and flips every byte
 * of what they wrote. Prints docs/reliability.md. Exit code 1 if anything came out that must not.
 */
import { execFileSync, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { openArtifact } from "../../src/artifact/index.js";
import { damagesOf, FILES } from "../../src/artifact/manifest.js";
import { SUMS } from "../../src/files/index.js";
import { CompilerError } from "../../ir/diagnostics.js";
import { Random } from "../fuzz/random.js";

const ROOT = resolve(import.meta.dirname, "../../..");
const CLI = join(ROOT, "dist/src/cli/cli.js");
const KILL_AT = new URL("kill-at.js", import.meta.url).href;
const MODEL = join(ROOT, "test/fixtures/blocks/learned_numbers.onnx");
const OTHER = join(ROOT, "test/fixtures/blocks/lerp.onnx");
const SCHEDULER = ["--scheduler", join(ROOT, "test/fixtures/dit/scheduler_config.json"), "--steps", "4"];
const KILLS = Number(process.argv[2] ?? 200);
const SEED = 1;
const random = new Random(SEED, 0);
const work = mkdtempSync(join(tmpdir(), "smoothcc-torture-"));

const faults: string[] = [];
const out: string[] = [];
const progress = (done: string): void => {
  console.error(`${Math.round(performance.now() / 1000)} s: ${done}`);
};
const say = (...lines: readonly string[]): void => void out.push(...lines, "");

/** How a process ended, and how long it took in milliseconds. */
interface Ended {
  readonly exit: number | null;
  readonly stderr: string;
  readonly ms: number;
}

/** Runs a command; `after` milliseconds, if that is given, it gets a signal. */
function run(
  argv: readonly string[],
  env: NodeJS.ProcessEnv = {},
  kill?: { readonly after: number; readonly signal: NodeJS.Signals },
): Promise<Ended> {
  const started = performance.now();
  const child = spawn(process.execPath, ["--import", KILL_AT, CLI, ...argv, "--quiet"], { env: { ...process.env, ...env } });
  const timer = kill && setTimeout(() => child.kill(kill.signal), kill.after);
  let stderr = "";
  child.stderr.on("data", (data) => (stderr += String(data)));
  return new Promise((done) => {
    child.on("close", (exit) => {
      clearTimeout(timer);
      done({ exit, stderr, ms: performance.now() - started });
    });
  });
}

async function must(argv: readonly string[], env?: NodeJS.ProcessEnv): Promise<Ended> {
  const ended = await run(argv, env);
  if (ended.exit !== 0) throw new Error(`smoothcc ${argv.join(" ")} ends with ${ended.exit}: ${ended.stderr}`);
  return ended;
}

/** Processes of ours that are still there, once those have had time that end by themselves. */
async function processesLeft(of: string): Promise<number> {
  const left = (): number =>
    readdirSync("/proc").filter((pid) => {
      if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
      try {
        return readFileSync(`/proc/${pid}/environ`, "latin1").includes(`TORTURE=${work}/${of}\0`);
      } catch {
        return false;
      }
    }).length;
  for (let tries = 0; tries < 100 && left() > 0; tries++) await new Promise((done) => setTimeout(done, 100));
  return left();
}

/** What is at a path: a digest of what decides, by another program; undefined if nothing is there. */
function contentOf(path: string): string | undefined {
  if (!existsSync(path)) return undefined;
  if (!statSync(path).isDirectory()) return execFileSync("sha256sum", [path], { encoding: "utf8" }).slice(0, 64);
  try {
    execFileSync("sha256sum", ["--check", "--strict", "--quiet", "SHA256SUMS"], { cwd: path, stdio: "pipe" });
  } catch {
    return "damaged";
  }
  // Reports have times, and manifests those of passes.
  const sums = readFileSync(join(path, "SHA256SUMS"), "utf8").split("\n");
  return sums.filter((line) => /model\.onnx|step\.onnx|config\.pbtxt/.test(line)).join("\n");
}

/** A command that writes to a target, which holds something else before. */
interface Victim {
  readonly name: string;
  readonly argv: (target: string) => readonly string[];
  /** Makes what is there before; nothing if absent. */
  readonly before?: (target: string) => Promise<unknown>;
  /** Whether a checkpoint beside the target is meant to stay until the command is run again. */
  readonly keepsCheckpoint?: boolean;
}

async function victims(): Promise<readonly Victim[]> {
  const at = (name: string): string => join(work, name);
  const plan = at("plan.json");
  writeFileSync(plan, JSON.stringify({ attn: [1, 0, 1, 0], mlp: [1, 0, 1, 0] }));
  const compile = (target: string, ...how: readonly string[]): readonly string[] => [
    "compile",
    MODEL,
    ...SCHEDULER,
    ...how,
    "-o",
    target,
    "--force",
  ];
  const calibrate = (target: string, ...how: readonly string[]): readonly string[] => [
    "calibrate",
    MODEL,
    ...SCHEDULER,
    ...how,
    "-o",
    target,
  ];
  for (const shard of ["1/2", "2/2"]) await must(calibrate(at(`trace-${shard[0]}.json`), "--samples", "2", "--shard", shard));
  await must(compile(at("plain"), "--no-cache"));
  await must(compile(at("cached"), "--plan", plan));
  return [
    { name: "compile", argv: (target) => compile(target, "--plan", plan), before: (target) => must(compile(target, "--no-cache")) },
    {
      name: "build",
      argv: (target) => ["build", MODEL, ...SCHEDULER, "--policy", "fora", "--interval", "2", "--samples", "1", "--runs", "1", "-o", target, "--force"],
      before: (target) => must(compile(target, "--no-cache")),
    },
    { name: "calibrate", argv: (target) => [...calibrate(target, "--samples", "3"), "--resume"], keepsCheckpoint: true },
    {
      name: "merge",
      argv: (target) => ["merge", at("trace-1.json"), at("trace-2.json"), "-o", target, "--force"],
      before: (target) => copyFile(at("trace-1.json"), target),
    },
    {
      name: "serve-package",
      argv: (target) => ["serve-package", at("cached"), "-o", join(target, ".."), "--name", "target", "--force"],
      before: (target) => must(["serve-package", at("plain"), "-o", join(target, ".."), "--name", "target"]),
    },
  ]; // prettier-ignore
}

async function kills(all: readonly Victim[]): Promise<void> {
  const rows = new Map<string, string>();
  let total = 0;
  const attack = async (victim: Victim): Promise<void> => {
    const count = { old: 0, new: 0, absent: 0, other: 0 };
    let leftovers = 0;
    let processes = 0;
    const TORTURE = join(work, victim.name);
    const folder = mkdtempSync(join(work, `${victim.name}-`));
    const target = join(folder, "target");
    await victim.before?.(target);
    const [keep, changes] = [join(work, `${victim.name}-before`), join(work, `${victim.name}-changes`)];
    if (victim.before) cpSync(target, keep, { recursive: true });
    const old = contentOf(target);
    const { ms } = await must(victim.argv(target), { TORTURE_COUNT: changes });
    const whole = contentOf(target);
    const points = Number(readFileSync(changes, "utf8"));
    for (let n = 0; n < KILLS / all.length; n++) {
      total++;
      rmSync(target, { recursive: true, force: true });
      if (victim.before) cpSync(keep, target, { recursive: true });
      const signal = n % 4 === 3 ? "SIGTERM" : "SIGKILL";
      // Half of them in front of a change of the disk, from the last one on.
      const ended =
        n % 2 === 0
          ? await run(victim.argv(target), { TORTURE, TORTURE_AT: String(points - (Math.floor(n / 2) % points)), TORTURE_SIGNAL: signal })
          : await run(victim.argv(target), { TORTURE }, { after: random.below(Math.ceil(ms)), signal });
      processes += await processesLeft(victim.name);
      const now = contentOf(target);
      const state = now === undefined ? "absent" : now === whole ? "new" : now === old ? "old" : "other";
      count[state]++;
      const beside = readdirSync(folder).filter((entry) => entry !== "target");
      const isSaid = ended.exit === 130 || ended.exit === 0;
      if (signal === "SIGTERM" && isSaid && !victim.keepsCheckpoint) leftovers += beside.length;
      await must(victim.argv(target));
      if (contentOf(target) !== whole) faults.push(`${victim.name}: after kill ${n} the next run does not write what it should`);
      leftovers += readdirSync(folder).filter((entry) => entry !== "target").length;
    }
    if (count.other > 0) faults.push(`${victim.name}: ${count.other} kills left something that is neither old nor new`);
    if (leftovers > 0) faults.push(`${victim.name}: ${leftovers} leftovers`);
    if (processes > 0) faults.push(`${victim.name}: ${processes} processes left`);
    const figures = [points, count.old, count.new, count.absent, count.other, leftovers, processes];
    rows.set(victim.name, `| \`${victim.name}\` | ${figures.join(" | ")} |`);
  };
  const waiting = [...all];
  const lane = async (): Promise<void> => {
    for (let victim = waiting.shift(); victim; victim = waiting.shift()) {
      await attack(victim);
      progress(`killed ${victim.name}`);
    }
  };
  await Promise.all([lane(), lane()]);
  say(
    "## Killed",
    `${total} kills, three of four by SIGKILL and the others by SIGTERM; half of them at random moments, half in front of the renames, removals and other`,
    "changes of the disk that the command makes, from the last one backwards. Then the command is run again. Where nothing is at the place, nothing was there",
    "before, or the next run puts there what was.",
    "",
    "| command | changes | old is there | new is there | nothing is | anything else | left beside after the next run | processes left |",
    "|---|---|---|---|---|---|---|---|",
    ...all.map(({ name }) => rows.get(name) ?? ""),
  );
}

async function fullDisk(all: readonly Victim[]): Promise<void> {
  const rows: string[] = [];
  for (const victim of all.filter(({ before }) => before)) {
    const codes = new Set<string>();
    for (const blocks of [0, 1, 4, 16]) {
      const folder = mkdtempSync(join(work, "full-"));
      const target = join(folder, "target");
      await victim.before?.(target);
      const old = contentOf(target);
      const command = `ulimit -f ${blocks}; exec "$@"`;
      const argv = ["-c", command, "bash", process.execPath, CLI, ...victim.argv(target), "--json", "--quiet"];
      const child = spawn("bash", argv, { stdio: ["ignore", "ignore", "pipe"] });
      let stderr = "";
      child.stderr.on("data", (data) => (stderr += String(data)));
      const exit = await new Promise((done) => child.on("close", done));
      codes.add(/"code":"(\w+)"/.exec(stderr)?.[1] ?? String(exit));
      if (exit === 0) continue;
      if (contentOf(target) !== old || readdirSync(folder).length !== 1) faults.push(`${victim.name}: a full disk changes what is there`);
    }
    rows.push(`| \`${victim.name}\` | ${[...codes].join(", ")} |`);
  }
  say(
    "## A full disk",
    "No file may grow beyond 0, 1, 4 or 16 KiB (`ulimit -f`). What was there is whole, and nothing is left beside it.",
    "",
    "| command | how it ends (0: it needs no more) |",
    "|---|---|",
    ...rows,
  );
}

async function twoWriters(compile: Victim): Promise<void> {
  let refused = 0;
  const rounds = 10;
  for (let n = 0; n < rounds; n++) {
    const folder = mkdtempSync(join(work, "two-"));
    const target = join(folder, "target");
    const polite = compile.argv(target).filter((word) => word !== "--force");
    const ended = await Promise.all([run(polite), run(polite)]);
    const exits = ended.map(({ exit }) => exit).sort();
    if (exits.join() === "0,4" && ended.some(({ stderr }) => stderr.includes("FILE_EXISTS"))) refused++;
    else faults.push(`two writers end with ${exits.join()}`);
    const forced = await Promise.all([run(compile.argv(target)), run(compile.argv(target))]);
    if (forced.some(({ exit }) => exit !== 0) || contentOf(target) === "damaged" || readdirSync(folder).length !== 1)
      faults.push("two writers with --force leave no whole artifact");
  }
  say("## Two writers", `Of two processes that compile to one folder at the same time, one is refused (FILE_EXISTS): ${refused} of ${rounds}. With --force, both succeed, and the artifact is one of the two.`); // prettier-ignore
}

async function changedSource(): Promise<void> {
  const count = { refused: 0, first: 0, second: 0 };
  const argv = (model: string, target: string): readonly string[] => [
    "compile",
    model,
    ...SCHEDULER,
    "--no-cache",
    "-o",
    target,
    "--force",
  ];
  const [first, second] = [join(work, "first"), join(work, "second")];
  const { ms } = await must(argv(MODEL, first));
  await must(argv(OTHER, second));
  const [one, other] = [contentOf(first), contentOf(second)];
  const rounds = 40;
  for (let n = 0; n < rounds; n++) {
    const folder = mkdtempSync(join(work, "source-"));
    const [model, target] = [join(folder, "model.onnx"), join(folder, "target")];
    cpSync(MODEL, model);
    setTimeout(
      () => {
        cpSync(OTHER, model);
      },
      random.below(Math.ceil(ms)),
    );
    const { exit } = await run(argv(model, target));
    const content = contentOf(target);
    if (exit !== 0) count.refused++;
    else if (content === one) count.first++;
    else if (content === other) count.second++;
    else faults.push("a source that changes gives an artifact of neither");
  }
  say("## A source that changes", `A model file that is replaced by another while it is compiled, ${rounds} times at random moments: ${count.first} artifacts of the first, ${count.second} of the second, ${count.refused} refused (SOURCE_CHANGED or the like), none of both.`); // prettier-ignore
}

async function flips(): Promise<void> {
  const folder = join(work, "flips");
  // With files of every kind that an artifact may have.
  mkdirSync(join(work, "source"));
  cpSync(MODEL, join(work, "source", "model.onnx"));
  await must(["build", MODEL, ...SCHEDULER, "--policy", "smoothcache", "--alpha", "1", "--samples", "1", "--runs", "1", "-o", folder]);
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => statSync(join(folder, file)).isFile());
  const rows: string[] = [];
  let all = 0;
  for (const file of files.sort()) {
    const path = join(folder, file);
    const bytes = readFileSync(path);
    const unread: readonly string[] = [FILES.trace, FILES.report];
    const isLoaded = !unread.includes(file);
    /** Whether a byte of the list of digests is of a file that `run` does not load. */
    const isOfUnread = (at: number): boolean => {
      const end = bytes.indexOf("\n", at);
      return file === SUMS && unread.includes(bytes.toString("latin1", bytes.lastIndexOf("\n", end - 1) + 1, end).slice(66));
    };
    const missed = { verify: 0, run: 0 };
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << random.below(8));
      writeFileSync(path, flipped);
      // Other files have not changed: they are looked at again once in a while only, as `verify` and `run` themselves do.
      const isAsked = (other: string): boolean => file === SUMS || other === file || all % 500 === 0;
      if ((await damagesOf(folder, isAsked)).length === 0) missed.verify++;
      if (all % 500 === 0 && isLoaded && !isOfUnread(at) && !(await isRefused(folder))) missed.run++;
      all++;
    }
    writeFileSync(path, bytes);
    if (missed.verify + missed.run > 0) faults.push(`${file}: ${missed.verify} and ${missed.run} flipped bytes are not noticed`);
    rows.push(`| ${file} | ${bytes.length} | ${missed.verify} | ${isLoaded ? missed.run : "not loaded"} |`);
  }
  say(
    "## Flipped bytes",
    `In each of the ${all} bytes of a small artifact, one bit is flipped. \`verify\` and \`run\` ask the same digests; \`run\` itself is started for every 500th.`,
    "",
    "| file | bytes | missed by `verify` | missed by `run` |",
    "|---|---|---|---|",
    ...rows,
  );
}

async function isRefused(folder: string): Promise<boolean> {
  try {
    await openArtifact(folder);
    return false;
  } catch (error) {
    return error instanceof CompilerError;
  }
}

say(
  "# Reliability",
  "Printed by `npm run torture > docs/reliability.md` (test/torture/), on Linux. What is promised: a command that is killed, whose disk is full, or that runs",
  "beside others leaves what was there, or the new thing whole; nothing is deleted that smoothcc has not written; every change of an artifact is noticed.",
);
try {
  const all = await victims();
  await kills(all);
  await fullDisk(all);
  progress("filled disks");
  await twoWriters(all[0] ?? fail());
  progress("two writers");
  await changedSource();
  progress("changed sources");
  await flips();
  progress("flipped bytes");
} finally {
  rmSync(work, { recursive: true, force: true });
}
say(faults.length === 0 ? "Nothing else came out." : `**Faults:** ${faults.join("; ")}.`);
console.log(out.join("\n").trim());
process.exitCode = faults.length > 0 ? 1 : 0;

function fail(): never {
  throw new Error("there is no command to try");
}
