/** A process that gives a reader inputs, one after the other. `main.ts` starts it and watches it. */
import { openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { CompilerError } from "../../ir/diagnostics.js";
import { Inputs } from "./inputs.js";
import { readers } from "./readers.js";

/** What a worker is asked for: inputs from one number to below another, as long as there is time. */
export interface Order {
  readonly reader: string;
  readonly seed: number;
  readonly from: number;
  readonly to: number;
  readonly until: number;
  /** Of this process alone. */
  readonly folder: string;
}

/** An input that a reader is wrong about, and how. */
export interface Finding {
  readonly index: number;
  readonly problem: string;
}

export interface Done {
  readonly next: number;
  readonly read: number;
  readonly slowest: { readonly index: number; readonly ms: number };
  readonly peakBytes: number;
}

/** Seconds of the processor that an input may take: others may be at work on this machine. */
export const SECONDS = 10;

/** Bytes by which an input may let the process grow, and how many for each of its own bytes. */
const GROWTH = { base: 256 << 20, each: 24 };

/** The file in which a worker keeps the number of the input that it is at. */
export const PROGRESS = "progress";

export async function work({ reader: name, seed, from, to, until, folder }: Order, report: (finding: Finding) => void): Promise<Done> {
  const reader = readers[name];
  if (!reader) throw new Error(`there is no reader '${name}'`);
  const inputs = new Inputs(name, reader);
  const file = join(folder, reader.file);
  const progress = openSync(join(folder, PROGRESS), "w");
  let slowest = { index: from, ms: 0 };
  let read = 0;
  let peak = process.resourceUsage().maxRSS;
  let index = Math.max(from, -inputs.cases.length);
  for (; index < to && (index < 0 || Date.now() < until); index++) {
    const input = inputs.at(seed, index);
    writeSync(progress, String(index).padEnd(16), 0);
    writeFileSync(file, input);
    peak = Math.max(peak, process.resourceUsage().maxRSS);
    const started = process.cpuUsage();
    try {
      await reader.run(file);
      read++;
    } catch (error) {
      if (!(error instanceof CompilerError)) report({ index, problem: problemOf(error) });
    }
    const { user, system } = process.cpuUsage(started);
    const ms = (user + system) / 1000;
    const grown = (process.resourceUsage().maxRSS - peak) * 1024;
    if (ms > slowest.ms) slowest = { index, ms };
    if (ms > SECONDS * 1000) report({ index, problem: `takes ${(ms / 1000).toFixed(1)} s` });
    if (grown > GROWTH.base + GROWTH.each * input.length) report({ index, problem: `takes ${Math.round(grown / 2 ** 20)} MB` });
    // Lets messages out.
    if (index % 64 === 0) await new Promise(setImmediate);
  }
  return { next: index, read, slowest, peakBytes: process.resourceUsage().maxRSS * 1024 };
}

/** What was thrown, and where. */
function problemOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const at = error.stack?.split("\n").find((line) => /^ +at /.test(line) && !line.includes("node:")) ?? "";
  return `${error.message.slice(0, 400)} ${at.replace(/.*\/dist\//, "").trim()}`;
}

if (process.send) {
  const send = process.send.bind(process);
  const [reader = "", seed, from, to, until, folder = ""] = process.argv.slice(2);
  const order = { reader, seed: Number(seed), from: Number(from), to: Number(to), until: Number(until), folder };
  send(await work(order, send), () => {
    process.disconnect();
  });
}
