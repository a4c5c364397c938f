/**
 * Loaded before a program (`node --import`): ends its process by a signal in front of the n-th change of the disk, or counts the changes.
 * TORTURE_AT has the number and TORTURE_SIGNAL the signal; TORTURE_COUNT has a file for the count.
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const { TORTURE_AT, TORTURE_SIGNAL = "SIGKILL", TORTURE_COUNT } = process.env;
const CHANGES = ["link", "mkdir", "open", "rename", "rm", "writeFile"] as const;
const SYNC_CHANGES = ["renameSync", "rmSync"] as const;
let changes = 0;

function change(): void {
  if (++changes === Number(TORTURE_AT)) process.kill(process.pid, TORTURE_SIGNAL);
}

/** The object with functions in place of its own that count first. */
function counted<Name extends string>(object: Readonly<Record<Name, unknown>>, names: readonly Name[]): void {
  for (const name of names) {
    const own = object[name];
    if (typeof own !== "function") continue;
    const replaced = (...given: readonly unknown[]): unknown => {
      change();
      return Reflect.apply(own, object, given);
    };
    Object.defineProperty(object, name, { value: replaced, writable: true, configurable: true, enumerable: true });
  }
}

counted(fs.promises, CHANGES);
counted(fs, SYNC_CHANGES);
syncBuiltinESMExports();
const { writeFileSync } = fs;
if (TORTURE_COUNT !== undefined) process.on("exit", () => { writeFileSync(TORTURE_COUNT, String(changes)); }); // prettier-ignore
