/** What a command does with each artifact of a folder, as one result. */
import type { Member } from "../artifact/index.js";
import type { CommandResult } from "./command.js";

/** The result for an artifact; for a folder of several those of each by name, of which one that fails is enough. */
export async function eachOf(
  members: readonly Member[],
  perform: (folder: string, name?: string) => Promise<CommandResult>,
): Promise<CommandResult> {
  const results = new Map<string, CommandResult>();
  for (const { name, folder } of members) {
    if (name === undefined) return perform(folder);
    results.set(name, await perform(folder, name));
  }
  const ok = [...results.values()].every(({ exitCode = 0 }) => exitCode === 0);
  return {
    json: { ok, variants: Object.fromEntries(Array.from(results, ([name, { json }]) => [name, json])) },
    text: Array.from(results, ([name, { text }]) => `${name}:\n${text}`).join("\n\n"),
    exitCode: ok ? 0 : 1,
  };
}
