/** What a command is, and the registry of them: one file a command. */
import { loadFolder } from "../../../ir/registry.js";
import { isCommand } from "../command.js";

export const commands = await loadFolder(import.meta.url, isCommand);
