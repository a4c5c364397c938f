/** Nobody is told anything: no store of events, no look for their host, in any process or thread, whatever the environment says. */
import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, describe, expect, it } from "vitest";

const ROOT = resolve(import.meta.dirname, "..");
const CLI = join(ROOT, "dist", "src", "cli", "cli.js");
const STEP = join(ROOT, "test", "fixtures", "dit", "dynamo-20.onnx");

const folder = mkdtempSync(join(tmpdir(), "smoothcc-quiet-"));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=open,openat,creat,socket"];
const isTraced = ((): boolean => {
  try {
    execFileSync("strace", [...strace.slice(1), "-o", "/dev/null", "true"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

/** What a process and its children leave in a home of their own and, where strace is at hand, what they write elsewhere and speak to. */
async function traces(args: readonly string[], given: NodeJS.ProcessEnv = {}): Promise<readonly string[]> {
  const home = mkdtempSync(join(folder, "home-"));
  const log = join(folder, "trace.txt");
  const own = { HOME: home, XDG_CACHE_HOME: join(home, ".cache"), TMPDIR: home, ORT_DISABLE_TELEMETRY: undefined };
  const [command = "", ...rest] = [...(isTraced ? [...strace, "-o", log] : []), process.execPath, ...args];
  await promisify(execFile)(command, rest, { env: { ...process.env, ...own, ...given } });
  const left = readdirSync(home, { recursive: true, encoding: "utf8" }).map((file) => join(home, file));
  const calls = isTraced && existsSync(log) ? readFileSync(log, "utf8").split("\n") : [];
  const allowed = new RegExp(`"(${folder}/given/|/dev/)|AF_UNIX|AF_NETLINK`);
  return [...left, ...calls.filter((call) => /O_WRONLY|O_RDWR|O_CREAT|creat\(|socket\(/.test(call) && !allowed.test(call))];
}

describe("telemetry", () => {
  it("is off in a build and in the processes that it starts, even if the environment says otherwise", async () => {
    const out = join(folder, "given", "artifact");
    const short = ["--steps", "3", "--samples", "1", "--runs", "1", "--policy", "fora", "--interval", "2"];
    const argv = ["build", STEP, "-o", out, "--scheduler", join(STEP, "..", "scheduler_config.json"), ...short];
    expect(await traces([CLI, ...argv, "--input", "class_labels=1"], { ORT_DISABLE_TELEMETRY: "0" })).toEqual([]);
    expect(existsSync(join(out, "report.html"))).toBe(true);
  });

  /** A worker with a copy of the environment, in which alone smoothcc is imported. */
  const worker = `
    new (require("node:worker_threads").Worker)(\`(async () => {
      const { Session } = await import("${join(ROOT, "dist/src/index.js")}");
      await (await Session.open("${STEP}", { optimise: "disabled" })).close();
    })().catch((error) => { console.error(error.code); process.exit(1); })\`, { eval: true }).on("exit", (code) => process.exit(code))`;

  it("is off where smoothcc is imported in a worker thread alone", async () => {
    expect(await traces(["-e", worker])).toEqual([]);
  });

  it("is never on: a worker that cannot switch it off opens nothing", async () => {
    const permission = process.allowedNodeEnvironmentFlags.has("--permission") ? "--permission" : "--experimental-permission";
    const rights = ["worker", "addons", "fs-read=*", "fs-write=*"].map((right) => `--allow-${right}`);
    await expect(traces([permission, ...rights, "-e", worker])).rejects.toThrow("TELEMETRY_ON");
  });
});
