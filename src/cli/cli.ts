#!/usr/bin/env node
/** The command line: wires the registered commands to commander, prints results and problems, and sets the exit code. */
import { existsSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Command as Program, CommanderError } from "commander";
import type { z } from "zod";
import { badUsage, oneLine, printable, silent, VERSION } from "../words/index.js";
import { cancelled, CompilerError, EXIT_CODES, fileNotWritten } from "../../ir/diagnostics.js";
import { passes } from "../../passes/index.js";
import { optionWord, policies } from "../../schedules/index.js";
import { commands } from "./commands/index.js";
import type { Command, Host } from "./command.js";
import { asExported } from "./as-exported.js";
import { isRepeatable, type Options, OPTIONS, parseOptions, runtimeOptions } from "./options.js";
import { progressOn, type ProgressStream } from "./progress.js";

const INTERNAL_ERROR = 70 satisfies keyof typeof EXIT_CODES;
const USAGE_ERROR = 2 satisfies keyof typeof EXIT_CODES;

/** The environment of a command line: what it prints to, and what cancels it. */
export interface Terminal {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: ProgressStream;
  readonly signal: AbortSignal;
}

/** Runs a command line (without node and the script); returns the exit code. Throws nothing. */
export async function main(argv: readonly string[], terminal: Terminal): Promise<number> {
  let exitCode = 0;
  const program = new Program("smoothcc")
    .description("Compiles a diffusion transformer's sampling run into one static ONNX model, reusing what hardly changes.")
    .version(VERSION)
    .configureOutput({
      writeOut: (text) => terminal.stdout.write(text),
      writeErr: (text) => terminal.stderr.write(text),
      outputError: () => undefined,
    })
    .exitOverride();
  for (const command of commands.values()) {
    add(program, command, async (words, given) => {
      exitCode = await perform(command, words, given, terminal);
    });
  }
  try {
    const stray = strayCommand(argv);
    await program.parseAsync(stray === undefined ? argv : [stray], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    if (argv.length === 0) return USAGE_ERROR;
    return complain(usageError(error), argv.includes("--json"), terminal.stderr);
  }
  return exitCode;
}

/** The first word, if it should be a command but is not. With `--help`, commander would print its help instead of an error. */
function strayCommand([first, second]: readonly string[]): string | undefined {
  const word = first === "help" ? second : first;
  return word === undefined || word.startsWith("-") || word === "help" || commands.has(word) ? undefined : word;
}

/** Commander's error message, with the nearest known word if it suggests one. */
function usageError({ message }: CommanderError): CompilerError {
  const [problem = "", suggestion] = message.replace(/^error: /, "").split("\n");
  return badUsage(problem.replace(/\.$/, ""), suggestion?.replace(/^\((.*)\)$/, "$1"));
}

type Action = (words: readonly string[], given: Record<string, unknown>) => Promise<void>;

function add(program: Program, command: Command, action: Action): void {
  const sub = program.command(command.name).description(command.summary).argument(`<${command.argument}>`).exitOverride();
  for (const name of command.options) {
    const { flags, summary } = OPTIONS[name];
    if (isRepeatable(name))
      sub.option(flags, `${summary}; may be given again`, (value, all: readonly string[] | undefined) => [...(all ?? []), value]);
    else if (command.required?.includes(name)) sub.requiredOption(flags, summary);
    else sub.option(flags, summary);
  }
  if (command.plans) for (const [word, summary] of policyOptions()) sub.option(`--${word} <value>`, summary);
  if (command.plans) sub.addHelpText("after", listed("Policies", [...policies.values()]));
  const optional = [...passes.values()].filter(({ isOptional }) => isOptional);
  if (command.options.includes("passes")) sub.addHelpText("after", listed("Optional passes", optional));
  sub.option("--json", "print one JSON document").option("--quiet", "no progress");
  sub.action((argument: string | readonly string[], given: Record<string, unknown>) => action([argument].flat(), given));
}

/** A list of names for the help text, one per line. */
function listed(title: string, all: readonly { readonly name: string; readonly summary: string }[]): string {
  const width = Math.max(...all.map(({ name }) => name.length));
  return ["", `${title}:`, ...all.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`)].join("\n");
}

/** The options of all policies, as on the command line. An option of several policies is listed once, with each meaning once. */
function policyOptions(): ReadonlyMap<string, string> {
  const all = new Map<string, Map<string, readonly string[]>>();
  for (const { name, options } of policies.values()) {
    for (const [key, { description = key }] of Object.entries<z.ZodType>(options.shape)) {
      const meanings = all.get(key) ?? new Map<string, readonly string[]>();
      all.set(key, meanings.set(description, [...(meanings.get(description) ?? []), name]));
    }
  }
  const text = ([meaning, names]: readonly [string, readonly string[]]): string => `${names.join(", ")}: ${meaning}`;
  return new Map([...all].map(([key, meanings]) => [optionWord(key), [...meanings].map(text).join("; ")]));
}

async function perform(
  command: Command,
  [argument = "", ...others]: readonly string[],
  given: Record<string, unknown>,
  terminal: Terminal,
): Promise<number> {
  const { json, quiet, ...rest } = given;
  const { stdout, stderr, signal } = terminal;
  const progress = quiet === true ? undefined : progressOn(stderr);
  let options: Options = { policyOptions: {} };
  try {
    const known = Object.entries(rest).filter(([name]) => Object.hasOwn(OPTIONS, name));
    const policy = Object.entries(rest).filter(([name]) => !Object.hasOwn(OPTIONS, name));
    options = {
      ...parseOptions(Object.fromEntries(known)),
      policyOptions: Object.fromEntries(policy.map(([name, value]) => [name, String(value)])),
    };
    const say = (message: string): void => {
      progress?.stop();
      stderr.write(`${oneLine(message)}\n`);
    };
    const host: Host = {
      signal,
      progress: progress?.report ?? silent,
      warn: (message) => {
        say(`warning: ${message}`);
      },
      note: progress ? say : () => undefined,
    };
    const outcome = await command.run(argument, options, host, others);
    progress?.stop();
    // No-break spaces are for pages. In a terminal, plain spaces can be copied and searched.
    const text = json === true ? JSON.stringify(outcome.json, undefined, 2) : outcome.text.replaceAll("\u00a0", " ");
    stdout.write(`${printable(text)}\n`);
    return outcome.exitCode ?? 0;
  } catch (error) {
    progress?.stop();
    // Any error of a cancelled run is reported as the cancellation.
    const reason = signal.aborted ? cancelled() : await asExported(error, argument, options, runtimeOptions(options, signal));
    return complain(reason, json === true, stderr);
  }
}

/** Prints an error to stderr, as text or JSON. Anything but a CompilerError is our bug. */
function complain(error: unknown, json: boolean, stderr: NodeJS.WritableStream): number {
  if (error instanceof CompilerError) {
    const { code, message, hint, where } = error;
    const place = Object.entries(where).filter(([, at]) => at !== undefined && at !== "");
    const text = json
      ? JSON.stringify({ error: { code, message, hint, where } })
      : // A message may show lines of a graph. Behind the first all are indented: no name in it can pass for a line of ours.
        [
          `error ${code}: ${message.replaceAll("\n", "\n  ")}`,
          ...[...place.map(([what, at]) => `${what}: ${String(at)}`), hint].map((text) => `  ${oneLine(text)}`),
        ].join("\n");
    stderr.write(`${printable(text)}\n`);
    return error.exitCode;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const cause = error instanceof Error && error.cause instanceof Error ? `caused by: ${error.cause.stack ?? ""}\n` : "";
  stderr.write(printable(`internal: ${text}\n${cause}`));
  stderr.write("This is a bug in smoothcc; please report it with the command that you ran.\n");
  return INTERNAL_ERROR;
}

/** Whether node was started with this file, possibly through a link of npm. */
function isEntry(): boolean {
  const [, script = ""] = process.argv;
  const found = [script, `${script}.js`].find((file) => existsSync(file));
  return found !== undefined && realpathSync(found) === fileURLToPath(import.meta.url);
}

if (isEntry()) {
  const { stdout, stderr } = process;
  const abort = new AbortController();
  // One may come twice for one key press (from the terminal, and from npm).
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.on(signal, () => {
      abort.abort(cancelled());
    });
  let lost: number | undefined;
  for (const [name, stream] of Object.entries({ stdout, stderr })) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      // At EPIPE the reader of the pipe has seen enough.
      if (error.code === "EPIPE" || lost !== undefined) return;
      lost = complain(fileNotWritten(name, error.message), process.argv.includes("--json"), stderr);
      process.exitCode = lost;
    });
  }
  const exitCode = await main(process.argv.slice(2), { stdout, stderr, signal: abort.signal });
  process.exitCode = lost ?? exitCode;
}
