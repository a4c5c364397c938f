/** What a command is: a file of `commands/`. */
import { hasMethods, type Named } from "../../ir/registry.js";
import type { OptionName, Options } from "./options.js";
import type { Progress } from "../words/index.js";

/** What a command may use of the world around it. */
export interface Host {
  readonly signal: AbortSignal;
  readonly progress: Progress;
  readonly warn: (message: string) => void;
  /** Something worth knowing now, before the result is there; silent with the progress. */
  readonly note: (message: string) => void;
}

/** A result: `json` is one document of the contract, `text` the same for people. Exit code 1: checked and not good enough. */
export interface CommandResult {
  readonly json: unknown;
  readonly text: string;
  readonly exitCode?: 0 | 1;
}

export interface Command extends Named {
  readonly summary: string;
  /** The word of the usage line: MODEL, DIR, TRACE; with three dots if there may be several. */
  readonly argument: string;
  readonly options: readonly OptionName[];
  readonly required?: readonly OptionName[];
  /** Whether it chooses a plan, and so takes the options of every policy. */
  readonly plans?: boolean;
  /** `others`: the arguments after the first. */
  run(argument: string, options: Options, host: Host, others: readonly string[]): Promise<CommandResult>;
}

export function isCommand(candidate: unknown): candidate is Command {
  return hasMethods(candidate, "run");
}
