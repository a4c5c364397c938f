/**
 * Where something is written: beside its target, under a name that says who writes it, so that what a killed process left there can be
 * told from what is at work. Taking the target's place is one rename.
 */
import { createHash, randomBytes } from "node:crypto";
import { existsSync, lstatSync, readdirSync, readlinkSync, realpathSync, renameSync, rmSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileNotWritten } from "../../ir/diagnostics.js";

const HOST = createHash("sha256").update(hostname()).digest("hex").slice(0, 8);

/** When this process started, in seconds: another process of this number, as in a container that was started again, began at another time. */
const STARTED = Math.round(Date.now() / 1000 - process.uptime());
const SAME_START = 5;

/** Names of other machines' processes are left alone for this long, in seconds, as nobody here knows whether they are at work. */
const FOREIGN_AGE = 7 * 24 * 3600;

/** `partial`: being written. `old`: what was there before, set aside while the new one takes its place. */
type Role = "partial" | "old";

const NAME = /^\.(?<base>.+)\.(?<owner>(?<host>[0-9a-f]{8})-(?<pid>\d+)-(?<started>\d+)-[0-9a-f]{8})\.(?<role>partial|old)$/s;

/** A new name beside a target; beside such a name, one of the same target. */
export function placeBeside(target: string): string {
  const base = NAME.exec(basename(target))?.groups?.["base"] ?? basename(target);
  return join(dirname(target), `.${base}.${HOST}-${process.pid}-${STARTED}-${randomBytes(4).toString("hex")}.partial`);
}

/** Where what is at the target is set aside while the content of a place (`placeBeside`) takes the target. */
export function asideOf(place: string): string {
  return place.replace(/partial$/, "old" satisfies Role);
}

/**
 * Clears up what killed processes left beside a target. One that was killed between setting the old content aside and putting the new
 * one there had finished the new one: it is put there.
 */
export function tidy(target: string): void {
  const folder = dirname(target);
  const left = new Map<string, Role[]>();
  for (const entry of existsSync(folder) ? readdirSync(folder) : []) {
    const { base, owner = "", host, pid, started, role } = NAME.exec(entry)?.groups ?? {};
    if (base !== basename(target)) continue;
    const age = Date.now() / 1000 - (lstatSync(join(folder, entry), { throwIfNoEntry: false })?.mtimeMs ?? 0) / 1000;
    if (host === HOST ? isAtWork(Number(pid), Number(started)) : age < FOREIGN_AGE) continue;
    left.set(owner, [...(left.get(owner) ?? []), role === "old" ? "old" : "partial"]);
  }
  for (const [owner, roles] of left) {
    const nameOf = (role: Role): string => join(folder, `.${basename(target)}.${owner}.${role}`);
    if (roles.includes("old") && !existsSync(target)) renameSync(nameOf(roles.includes("partial") ? "partial" : "old"), target);
    for (const role of roles) rmSync(nameOf(role), { recursive: true, force: true });
  }
}

function isAtWork(pid: number, started: number): boolean {
  if (pid === process.pid) return Math.abs(started - STARTED) < SAME_START;
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // A process of another user may not be asked.
    return isOneOf(error, "EPERM");
  }
}

/** Whether an error is one of the system's, with one of these codes. */
export function isOneOf(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && "code" in error && codes.some((code) => code === error.code);
}

/** The most links that a path may lead through, as in Linux. */
const MAX_LINKS = 40;

/** What a path leads to, be it there or not, so that writing it keeps the link. Throws FILE_NOT_WRITTEN for links that lead in a circle. */
export function behindLinks(path: string): string {
  const there = existsSync(path) ? statSync(path) : undefined;
  if (there) return there.isFile() || there.isDirectory() ? realpathSync(path) : resolve(path);
  let at = resolve(path);
  for (let links = 0; links <= MAX_LINKS; links++) {
    if (!isLink(at)) return at;
    at = resolve(dirname(at), readlinkSync(at));
  }
  throw fileNotWritten(path, "its links lead in a circle.");
}

function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}
