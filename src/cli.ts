#!/usr/bin/env node
/** The command line: wires the registered commands to commander, prints results and problems, and sets the exit code. */
import { Command as Program, CommanderError } from "commander";
import { CompilerError, cancelled } from "../ir/diagnostics.js";
import { policies } from "../schedules/index.js";
import { commands, type Command } from "./commands/index.js";
import { OPTIONS, parseOptions } from "./options.js";
import { progressOn, silent } from "./progress.js";
import { VERSION } from "./version.js";

const INTERNAL_ERROR = 70;
const USAGE_ERROR = 2;

async function main(argv: readonly string[]): Promise<number> {
  const abort = new AbortController();
  process.once("SIGINT", () => {
    abort.abort(cancelled());
  });
  let exitCode = 0;
  const program = new Program("smoothcc")
    .description("Compiles a diffusion transformer's sampling run into one static ONNX model, reusing what hardly changes.")
    .version(VERSION)
    .exitOverride();
  for (const command of commands.values()) {
    add(program, command, async (argument, given) => {
      exitCode = await perform(command, argument, given, abort.signal);
    });
  }
  try {
    await program.parseAsync(argv);
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : USAGE_ERROR;
  }
  return exitCode;
}

type Action = (argument: string, given: Record<string, unknown>) => Promise<void>;

function add(program: Program, command: Command, action: Action): void {
  const sub = program.command(command.name).description(command.summary).argument(`<${command.argument}>`).exitOverride();
  for (const name of command.options) {
    const { flags, summary } = OPTIONS[name];
    if (command.required?.includes(name)) sub.requiredOption(flags, summary);
    else sub.option(flags, summary);
  }
  if (command.plans) for (const [key, summary] of policyOptions()) sub.option(`--${key} <value>`, summary);
  sub.option("--json", "print one JSON document").option("--quiet", "no progress");
  sub.action((argument: string, given: Record<string, unknown>) => action(argument, given));
}

/** The options of all policies; one that several have is one option. */
function policyOptions(): ReadonlyMap<string, string> {
  const all = new Map<string, string>();
  for (const policy of policies.values()) {
    for (const [key, schema] of Object.entries(policy.options.shape)) {
      all.set(key, [all.get(key), `${policy.name}: ${schema.description ?? key}`].filter((text) => text !== undefined).join("; "));
    }
  }
  return all;
}

async function perform(command: Command, argument: string, given: Record<string, unknown>, signal: AbortSignal): Promise<number> {
  const { json, quiet, ...rest } = given;
  const progress = quiet === true ? undefined : progressOn(process.stderr);
  try {
    const known = Object.entries(rest).filter(([name]) => Object.hasOwn(OPTIONS, name));
    const policy = Object.entries(rest).filter(([name]) => !Object.hasOwn(OPTIONS, name));
    const options = {
      ...parseOptions(Object.fromEntries(known)),
      policyOptions: Object.fromEntries(policy.map(([name, value]) => [name, String(value)])),
    };
    const outcome = await command.run(argument, options, {
      signal,
      progress: progress?.report ?? silent,
      warn: (message) => {
        progress?.stop();
        process.stderr.write(`warning: ${message}\n`);
      },
    });
    progress?.stop();
    process.stdout.write(json === true ? `${JSON.stringify(outcome.json, undefined, 2)}\n` : `${outcome.text}\n`);
    return outcome.exitCode ?? 0;
  } catch (error) {
    progress?.stop();
    return complain(error, json === true);
  }
}

/** Problems go to stderr, for people or as JSON; anything that is no CompilerError is our bug. */
function complain(error: unknown, json: boolean): number {
  if (error instanceof CompilerError) {
    const { code, message, hint, where } = error;
    const place = Object.entries(where).filter(([, at]) => at !== undefined && at !== "");
    const text = json
      ? JSON.stringify({ error: { code, message, hint, where } })
      : [`error ${code}: ${message}`, ...place.map(([what, at]) => `  ${what}: ${String(at)}`), `  ${hint}`].join("\n");
    process.stderr.write(`${text}\n`);
    return error.exitCode;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(
    `internal: ${text}\n${error instanceof Error && error.cause instanceof Error ? `caused by: ${error.cause.stack ?? ""}\n` : ""}`,
  );
  process.stderr.write("This is a bug in smoothcc; please report it with the command that you ran.\n");
  return INTERNAL_ERROR;
}

process.exitCode = await main(process.argv);
