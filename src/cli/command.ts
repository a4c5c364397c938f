/** The interface of a command: a file of `commands/`. */
import { hasMethods, type Named } from "../../ir/registry.js";
import type { OptionName, Options } from "./options.js";
import type { Progress } from "../words/index.js";

/** What a command may use of its environment. */
export interface Host {
  readonly signal: AbortSignal;
  readonly progress: Progress;
  readonly warn: (message: string) => void;
  /** Prints a message before the result is available. Silent if progress is. */
  readonly note: (message: string) => void;
}

/** A result: `json` is one JSON document, `text` the same for people. Exit code 1 means that a check failed. */
export interface CommandResult {
  readonly json: object;
  readonly text: string;
  readonly exitCode?: 0 | 1;
}

export interface Command extends Named {
  readonly summary: string;
  /** The argument in the usage line: MODEL, DIR, TRACE, …; with three dots if there may be several. */
  readonly argument: string;
  readonly options: readonly OptionName[];
  readonly required?: readonly OptionName[];
  /** Whether it chooses a plan. If so, it takes the options of every policy. */
  readonly plans?: boolean;
  /** `others`: the arguments after the first. */
  run(argument: string, options: Options, host: Host, others: readonly string[]): Promise<CommandResult>;
}

export function isCommand(candidate: unknown): candidate is Command {
  return hasMethods(candidate, "run");
}
