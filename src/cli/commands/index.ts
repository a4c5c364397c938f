/** The known commands. */
import { loadFolder } from "../../../ir/registry.js";
import { isCommand } from "../command.js";

export const commands = await loadFolder(import.meta.url, isCommand);
