/** The registry of commands: one file per command. */
import { loadFolder } from "../../../ir/registry.js";
import { isCommand } from "../command.js";

export const commands = await loadFolder(import.meta.url, isCommand);
