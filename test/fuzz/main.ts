/**
 * `npm run fuzz -- [--minutes N | --inputs N] [--seed S] [--reader NAME] [--input I]`: gives every reader damaged and hostile inputs, and
 * says which of them are answered by neither a value nor a CompilerError, or take too much time or memory.
 *
 * An input is made again from its reader, the seed and its number: `--reader onnx --seed 7 --input 1234`. Findings are kept as
 * files in out/fuzz/. Exit code 1 if there are any.
 */
import { fork } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { extname, join } from "node:path";
import { parseArgs } from "node:util";
import { Inputs, ROOT } from "./inputs.js";
import { readers } from "./readers.js";
import { type Done, type Finding, type Order, PROGRESS, SECONDS } from "./worker.js";

/** Seconds after which a worker that is still at the same input is taken to hang. */
const PATIENCE = 6 * SECONDS;

/** Findings of one kind that are shown and kept. */
const KEPT = 3;

const { values } = parseArgs({
  options: {
    minutes: { type: "string" },
    inputs: { type: "string" },
    seed: { type: "string" },
    reader: { type: "string" },
    input: { type: "string" },
  },
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
const names = values.reader === undefined ? Object.keys(readers) : values.reader.split(",");
const lanes = Math.min(availableParallelism(), names.length);
const minutes = Number(values.minutes ?? ((values.inputs ?? values.input) ? Infinity : 1));
const found = join(ROOT, "out/fuzz");
let count = 0;
let findings = 0;

console.log(`seed ${seed}`);
const waiting = [...names];
await Promise.all(
  Array.from({ length: lanes }, async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await fuzz(name);
  }),
);
console.log(`${count} inputs, ${findings} findings${findings > 0 ? `, in ${found}` : ""}`);
process.exitCode = findings > 0 ? 1 : 0;

/** All inputs of one reader. A worker that hangs or dies is replaced by another, which goes on behind the input. */
async function fuzz(name: string): Promise<void> {
  const reader = readers[name];
  if (!reader) throw new Error(`There is no reader '${name}'. Known: ${Object.keys(readers).join(", ")}.`);
  const inputs = new Inputs(name, reader);
  const started = Date.now();
  const until = started + (minutes * 60_000 * lanes) / names.length;
  const only = values.input === undefined ? undefined : Number(values.input);
  const to = only === undefined ? Number(values.inputs ?? Infinity) : only + 1;
  const kinds = new Map<string, number>();
  const report = ({ index, problem }: Finding): void => {
    findings++;
    const kind = problem.replace(/\d+|".*?"|'.*?'/g, "…");
    const known = kinds.get(kind) ?? 0;
    kinds.set(kind, known + 1);
    if (known >= KEPT) return;
    const file = `${name}-${seed}-${index}${extname(reader.file)}`;
    mkdirSync(found, { recursive: true });
    writeFileSync(join(found, file), inputs.at(seed, index));
    console.log(`${name} --seed ${seed} --input ${index}: ${problem}`);
  };
  const from = only ?? -inputs.cases.length;
  let next = from;
  let [read, peak] = [0, 0];
  let slowest: Done["slowest"] = { index: next, ms: 0 };
  while (next < to && Date.now() < until) {
    const done = await watched({ reader: name, seed, from: next, to, until }, report);
    next = done.next;
    read += done.read;
    peak = Math.max(peak, done.peakBytes);
    if (done.slowest.ms > slowest.ms) slowest = done.slowest;
  }
  const given = next - from;
  count += given;
  const seconds = (Date.now() - started) / 1000;
  console.log(
    `${name.padEnd(10)} ${String(given).padStart(8)} inputs (${read} read), ${Math.round(given / seconds)} / s, slowest ${slowest.ms.toFixed(0)} ms (input ${slowest.index}), peak ${Math.round(peak / 2 ** 20)} MB${[...kinds].map(([kind, times]) => `\n  ${times} × ${kind.slice(0, 300)}`).join("")}`,
  );
}

/** A worker's run, up to its end or to the input at which it stops. */
async function watched(order: Omit<Order, "folder">, report: (finding: Finding) => void): Promise<Done> {
  const folder = mkdtempSync(join(tmpdir(), "smoothcc-fuzz-"));
  const progress = join(folder, PROGRESS);
  const at = (): number => Number((existsSync(progress) && readFileSync(progress, "utf8")) || order.from);
  const worker = fork(
    new URL("worker.js", import.meta.url),
    [order.reader, ...[order.seed, order.from, order.to, order.until].map(String), folder],
    {
      execArgv: ["--max-old-space-size=1024"],
    },
  );
  const done: Done[] = [];
  worker.on("message", (message) => {
    if (isDone(message)) done.push(message);
    else if (isFinding(message)) report(message);
  });
  let last = { index: at(), since: Date.now() };
  const watch = setInterval(() => {
    const index = at();
    if (index !== last.index) last = { index, since: Date.now() };
    else if (Date.now() - last.since > 1000 * PATIENCE) worker.kill("SIGKILL");
  }, 500);
  const [code, signal] = await new Promise<readonly unknown[]>((settle) => worker.once("close", (...how) => { settle(how); })); // prettier-ignore
  clearInterval(watch);
  const index = at();
  rmSync(folder, { recursive: true });
  const [whole] = done;
  if (whole) return whole;
  report({ index, problem: worker.killed ? `takes more than ${PATIENCE} s` : `the process ends with ${String(signal ?? code)}` });
  return { next: index + 1, read: 0, slowest: { index, ms: 0 }, peakBytes: 0 };
}

function isDone(message: unknown): message is Done {
  return typeof message === "object" && message !== null && "next" in message;
}

function isFinding(message: unknown): message is Finding {
  return typeof message === "object" && message !== null && "problem" in message;
}
