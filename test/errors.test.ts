/**
 * Every diagnostic has a case. `test/cases/errors/<CODE>/cases.json` lists command lines that must fail with that code; the
 * other files of the folder are their input; `*.onnx.json` is an ONNX file in the JSON form of its messages, `*.onnx.txt` in text.
 * What no command line reaches is called here.
 */
import { execFileSync, spawn } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { onnx } from "onnx-proto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { CompilerError, nearest } from "../ir/diagnostics.js";
import { constant, inputValue, makeNode, makeOp, type Node, only, type Value } from "../ir/graph.js";
import { encodeModel, writeModel } from "../ir/onnx/index.js";
import { readFile } from "../ir/open-file.js";
import { readTensor, tensorNumbers } from "../ir/tensor.js";
import { parse } from "../ir/parse.js";
import { passes } from "../passes/index.js";
import { chooseSchedule } from "../schedules/index.js";
import full from "../schedules/policies/full.js";
import { assertUnchanged, stampsOf } from "../src/files/stamps.js";
import { markup } from "../src/report/html.js";
import { latentPicture } from "../src/report/picture.js";
import { sound } from "../src/report/sound.js";
import { table, telemetryOn } from "../src/words/index.js";
import { cli, type Ran } from "./support/cli.js";
import { choose, single } from "./support/policy-input.js";
import { readSubject } from "./support/pass-case.js";
import { modelOf } from "./support/models.js";

const ROOT = resolve(import.meta.dirname, "..");
const CASES = join(import.meta.dirname, "cases", "errors");
const CLI = join(ROOT, "dist", "src", "cli", "cli.js");
const FIXTURES = join(import.meta.dirname, "fixtures");

const caseSchema = z.strictObject({
  about: z.string(),
  /** `{in}`: a copy of the case's folder, `{out}`: an empty folder, `{artifact}`: one of four steps, `{fixtures}`, `{glyphs}`. */
  argv: z.array(z.string()),
  exit: z.int(),
  /** Parts of the sentence and of the hint. */
  message: z.string(),
  hint: z.string(),
  /** What is copied into `{in}` before the folder's own files, by name there. */
  copy: z.record(z.string(), z.string()).optional(),
  /** What is missing in `{in}`. */
  drop: z.array(z.string()).optional(),
  /** Whether it was cancelled from the start. */
  cancelled: z.boolean().optional(),
  /** Whether it takes a process of its own, of the built program. */
  process: z.boolean().optional(),
});
type Case = z.infer<typeof caseSchema>;

const errorSchema = z.strictObject({
  error: z.strictObject({ code: z.string(), message: z.string(), hint: z.string(), where: z.record(z.string(), z.unknown()) }),
});

/** Runs the built program; sends one SIGINT as soon as stderr says `interruptAt`. */
function runProcess(argv: readonly string[], script = CLI, interruptAt?: string): Promise<Ran> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [script, ...argv], { stdio: ["ignore", "pipe", "pipe"] });
    const texts = { stdout: "", stderr: "" };
    let isSent = false;
    child.stdout.on("data", (chunk) => (texts.stdout += String(chunk)));
    child.stderr.on("data", (chunk) => {
      texts.stderr += String(chunk);
      // Once: a signal that comes when the program has already ended its work finds nobody who handles it.
      if (!isSent && interruptAt !== undefined && texts.stderr.includes(interruptAt)) isSent = child.kill("SIGINT");
    });
    child.on("close", (exit) => {
      done({ exit, ...texts });
    });
  });
}

let folder = "";
let artifact = "";
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-errors-"));
  artifact = join(folder, "artifact");
  const plan = join(folder, "plan.json");
  writeFileSync(plan, '{ "attn": [1, 0, 1, 0] }');
  const { exit, stderr } = await cli([
    ...["compile", join(FIXTURES, "dit", "dynamo-20.onnx"), "--scheduler", join(FIXTURES, "dit", "scheduler_config.json")],
    ...["--steps", "4", "--plan", plan, "--input", "class_labels=1", "-o", artifact, "--quiet"],
  ]);
  if (exit !== 0) throw new Error(stderr);
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

function placed(text: string, places: Readonly<Record<string, string>>): string {
  return Object.entries(places).reduce((sum, [name, path]) => sum.replaceAll(`{${name}}`, path), text);
}

/** Paths below a folder with what the files hold. */
function contents(path: string): Map<string, string> {
  const files = readdirSync(path, { recursive: true, encoding: "utf8" }).sort();
  return new Map(
    files.map((file) => [file, statSync(join(path, file)).isFile() ? readFileSync(join(path, file)).toString("base64") : "folder"]),
  );
}

/** Runs a case in folders of its own; nothing but the error may come of it. */
async function runCase(code: string, { argv, copy = {}, drop = [], cancelled, process: apart }: Case): Promise<Ran> {
  const own = mkdtempSync(join(folder, `${code}-`));
  const places = {
    in: join(own, "in"),
    out: join(own, "out"),
    fixtures: FIXTURES,
    glyphs: join(ROOT, "examples", "glyphs"),
    artifact,
  };
  mkdirSync(places.out);
  mkdirSync(places.in);
  for (const [name, from] of Object.entries(copy)) cpSync(placed(from, places), join(places.in, name), { recursive: true });
  cpSync(join(CASES, code), places.in, { recursive: true });
  rmSync(join(places.in, "cases.json"));
  for (const name of drop) rmSync(join(places.in, name));
  for (const file of readdirSync(places.in).filter((name) => name.endsWith(".onnx.json"))) {
    const json: unknown = JSON.parse(readFileSync(join(places.in, file), "utf8"));
    const message = onnx.ModelProto.fromObject({
      irVersion: 8,
      opsetImport: [{ domain: "", version: 17 }],
      ...z.looseObject({}).parse(json),
    });
    writeFileSync(join(places.in, file.replace(/\.json$/, "")), onnx.ModelProto.encode(message).finish());
  }
  for (const file of readdirSync(places.in).filter((name) => name.endsWith(".onnx.txt")))
    await writeModel(parse(readFileSync(join(places.in, file), "utf8")), join(places.in, file.replace(/\.txt$/, "")));
  const before = contents(places.in);
  const [command = "", ...rest] = argv.map((word) => placed(word, places));
  const line = [command, "--json", "--quiet", ...rest];
  const ran = apart ? await runProcess(line) : await cli(line, cancelled ? { signal: AbortSignal.abort() } : {});
  expect(contents(places.in)).toEqual(before);
  expect(readdirSync(places.out)).toEqual([]);
  return ran;
}

const codes = readdirSync(CASES).sort();
const casesOf = (code: string): readonly Case[] =>
  z.array(caseSchema).parse(JSON.parse(readFileSync(join(CASES, code, "cases.json"), "utf8")));

describe.each(codes)("%s", (code) => {
  it.each(casesOf(code))("$about", async (described) => {
    const { exit, stdout, stderr } = await runCase(code, described);
    expect(stderr).not.toContain("internal:");
    const lines = stderr.split("\n").filter((line) => line !== "" && !line.startsWith("warning: "));
    expect(lines).toHaveLength(1);
    const { error } = errorSchema.parse(JSON.parse(lines[0] ?? ""));
    expect(error.code).toBe(code);
    expect(error.message).toContain(described.message);
    expect(error.hint).toContain(described.hint);
    expect(exit).toBe(described.exit);
    expect(stdout).toBe("");
  });
});

function runPass(name: string, text: string): unknown {
  const { model, context } = readSubject(`<ir_version: 10, opset_import: ["" : 20]>\n${text}`);
  return passes.get(name)?.run(model, context, () => undefined);
}

/** What no command line reaches. */
const CALLS: Readonly<Record<string, readonly [call: () => unknown, exit: number]>> = {
  FILE_TOO_LARGE: [() => readFile(import.meta.filename, 8), 4],
  FORM_UNSUPPORTED: [
    () =>
      runPass(
        "loop",
        '# latent: x\n# timestep: t\n# steps: 2\n# guidance: two-calls 2 cond,uncond\n# guided: {"interval": [0, 1]}\ng (float[1] x, int64[1] t) => (float[1] y) { y = Neg(x) }',
      ),
    3,
  ],
  MODEL_TOO_LARGE: [
    () => {
      const length = 2 ** 31;
      const weight = constant("w", { elem: "uint8", shape: [length], content: { kind: "file", file: "/nowhere", offset: 0, length } });
      const { node, value } = makeOp("Neg", [weight], { name: "y" });
      return encodeModel(modelOf({ nodes: [node], outputs: [{ name: "y", value }] }));
    },
    4,
  ],
  NAME_CLASH: [
    () => {
      const x = inputValue("x", { elem: "float", shape: [1] });
      const [a, b] = [makeOp("Neg", [x], { name: "a" }), makeOp("Exp", [x], { name: "b" })];
      const reader = (value: Value): Node =>
        makeNode({ opType: "If", inputs: [x], captures: [{ name: "held", value }], outputs: [{ name: "z" }] });
      const nodes = [a.node, b.node, reader(only(a.node)), reader(only(b.node))];
      return encodeModel(modelOf({ inputs: [x], nodes }));
    },
    3,
  ],
  NOT_SOUND: [() => sound({ shape: [2, 8, 4], values: new Float32Array(64) }, 8000), 2],
  NOT_A_PICTURE: [() => latentPicture({ shape: [2, 8], values: new Float32Array(16) }, [-1, 1]), 2],
  POLICY_NEEDS_MODEL: [() => chooseSchedule({ ...full, needs: ["runs"] }, {}, single(4)), 2],
  POLICY_NEEDS_TRACE: [() => choose("smoothcache", { alpha: 0.1 }, single(4)), 2],
  SOURCE_CHANGED: [
    () => {
      const file = join(folder, "source.onnx");
      writeFileSync(file, "one");
      const stamps = stampsOf([file]);
      writeFileSync(file, "two, longer");
      assertUnchanged(stamps);
    },
    4,
  ],
  // It is thrown in test/telemetry.test.ts.
  TELEMETRY_ON: [
    () => {
      throw telemetryOn(undefined);
    },
    5,
  ],
  TENSOR_TOO_LARGE: [
    () => readTensor({ elem: "uint8", shape: [9], content: { kind: "file", file: "/nowhere", offset: 0, length: 9 } }, 8),
    3,
  ],
  TENSOR_WRONG_TYPE: [() => tensorNumbers({ elem: "string", shape: [1], content: { kind: "strings", strings: [Buffer.from("a")] } }), 3],
  TEXT_INVALID: [() => parse("g (float[1] x) => ("), 4],
  UNBOUND_DIM: [
    () => runPass("bind", "# latent: x\n# timestep: t\ng (float[1, size] x, int64[1] t) => (float[1, size] y) { y = Neg(x) }"),
    2,
  ],
};

describe("what no command line reaches", () => {
  it.each(Object.entries(CALLS))("%s", async (code, [call, exit]) => {
    let thrown: unknown;
    try {
      await call();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(CompilerError);
    expect(thrown).toMatchObject({ code, exitCode: exit });
  });
});

describe("the catalogue", () => {
  const source = ["ir", "schedules", "src/words"].map((floor) => readFileSync(join(ROOT, floor, "diagnostics.ts"), "utf8")).join("\n");
  const known = [...source.matchAll(/new CompilerError\(\s*"([A-Z_]+)"/g)].map(([, code = ""]) => code);

  it("has a case for every code, and no case for others", () => {
    expect([...codes, ...Object.keys(CALLS)].sort()).toEqual([...known].sort());
  });

  it("has every code once", () => {
    expect(new Set(known).size).toBe(known.length);
    expect(known.length).toBe([...source.matchAll(/new CompilerError\(/g)].length);
  });

  it("is written down as the sources have it: `npm run docs`", () => {
    const printed = execFileSync(process.execPath, [join(ROOT, "docs", "make-errors.js")], { encoding: "utf8" });
    expect(readFileSync(join(ROOT, "docs", "errors.md"), "utf8")).toBe(printed);
    for (const code of known) expect(printed).toContain(`\n| \`${code}\` | `);
  });

  it("suggests names that are near, and no others", () => {
    expect(nearest("modle", ["model", "steps"])).toBe("model");
    expect(nearest("Atn", ["mlp", "attn"])).toBe("attn");
    expect(nearest("EulerDiscreteScheduler", ["DDIMScheduler"])).toBeUndefined();
    const started = performance.now();
    expect(nearest("ex".repeat(2_000_000), ["extensions", "inputs"])).toBeUndefined();
    expect(performance.now() - started).toBeLessThan(1000);
  });
});

describe("the program", () => {
  it("prints one JSON document and nothing else", async () => {
    const { exit, stdout, stderr } = await cli(["inspect", join(FIXTURES, "dit", "dynamo-20.onnx"), "--json"]);
    expect(exit).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ format: "smoothcc-inspect/1" });
    expect(stderr).toBe("");
  });

  it("shows its help where it is told nothing, and says so with its exit code", async () => {
    const { exit, stdout, stderr } = await cli([]);
    expect(exit).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain("Usage: smoothcc");
    for (const asked of [["--help"], ["help"], ["help", "run"], ["run", "--help"]]) expect((await cli(asked)).exit).toBe(0);
    for (const stray of ["rum --help", "help rum"]) {
      const ran = await cli(stray.split(" "));
      expect(ran).toMatchObject({ exit: 2, stdout: "" });
      expect(ran.stderr).toContain("Did you mean run?");
    }
  });

  it("reads JSON with a byte order mark", async () => {
    const file = join(folder, "bom.json");
    writeFileSync(file, `\uFEFF${readFileSync(join(FIXTURES, "dit", "scheduler_config.json"), "utf8")}`);
    expect(await cli(["sampler", file, "--steps", "2"])).toMatchObject({ exit: 0, stderr: "" });
  });

  it("takes the settings of a sampler, and draws it", async () => {
    const scheduler = join(folder, "flow.json");
    writeFileSync(scheduler, JSON.stringify({ _class_name: "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting: true }));
    const plot = join(folder, "flow.svg");
    const line = ["sampler", scheduler, "--sigmas", "1,0.5", "--mu", "0", "--plot", plot, "--json"];
    const { exit, stdout } = await cli(line);
    expect(exit).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ rows: [{ timestep: 1000 }, { timestep: 500 }] });
    expect(readFileSync(plot, "utf8")).toMatch(/^<svg /);
    expect((await cli(line)).stderr).toContain("FILE_EXISTS");
    expect((await cli([...line, "--force"])).exit).toBe(0);
    expect((await cli(["sampler", scheduler, "--sigmas", "1,,0.5"])).stderr).toContain("BAD_OPTION");
  });

  it("draws a plan, writes it for another program, and takes that for a plan again", async () => {
    const model = [join(FIXTURES, "dit", "dynamo-20.onnx"), "--scheduler", join(FIXTURES, "dit", "scheduler_config.json"), "--steps", "12"];
    const [mask, plot, back] = ["mask.json", "plan.png", "back.json"].map((name) => join(folder, name));
    const line = ["plan", ...model, "--quiet", "--json"];
    expect(await cli([...line, "--policy", "fora", "--format", "cache-dit", "--plot", plot ?? "", "-o", mask ?? ""])).toMatchObject({
      exit: 0,
      stderr: "",
    });
    expect(
      readFileSync(plot ?? "")
        .subarray(1, 4)
        .toString(),
    ).toBe("PNG");
    const { exit, stdout } = await cli([...line, "--policy", mask ?? "", "-o", back ?? ""]);
    expect(exit).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ policy: { name: "mask.json" }, computed: { attn: 7, mlp: 7 } });
    expect(JSON.parse(readFileSync(back ?? "", "utf8"))).toMatchObject({ cells: { "*": [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1] } });
  });

  it("takes options that may be given again before MODEL", async () => {
    const { exit, stderr } = await cli(["run", "--input", "class_labels=1", artifact, "-o", join(folder, "latent.npy")]);
    expect({ exit, stderr }).toEqual({ exit: 0, stderr: "" });
  });

  it.each(["model.onnx", "model.onnx.data"])("fails an artifact of whose %s a byte has changed, or is missing", async (name) => {
    const changed = join(folder, `changed-${name}`);
    cpSync(artifact, changed, { recursive: true });
    const file = join(changed, name);
    const bytes = readFileSync(file);
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    for (const damaged of [bytes, bytes.subarray(0, -1), bytes.subarray(0, 0)]) {
      writeFileSync(file, damaged);
      const { exit, stdout } = await cli(["verify", changed, "--json", "--quiet"]);
      expect(exit).toBe(1);
      expect(JSON.parse(stdout)).toMatchObject({ ok: false, checks: [{ ok: false, problem: `${name} is cut off or has changed` }] });
    }
    rmSync(file);
    expect((await cli(["verify", changed, "--quiet"])).stdout).toContain(`FAILED: ${name} is missing`);
  });

  it("fails an artifact whose result is not finite, and says so in words", async () => {
    const noise = join(CASES, "NOT_FINITE", "noise.npy");
    const { exit, stdout } = await cli(["verify", artifact, "--noise", noise, "--json", "--quiet"]);
    expect(exit).toBe(1);
    const problem = "not finite: the result of the artifact, the loop, the uncached loop";
    expect(JSON.parse(stdout)).toMatchObject({ ok: false, checks: [{ ok: true }, { ok: false, problem }, {}] });
  });

  it("says before it runs that a latent cannot be drawn", async () => {
    const dark = join(folder, "dark");
    cpSync(artifact, dark, { recursive: true });
    const recipe = z.looseObject({}).parse(JSON.parse(readFileSync(join(dark, "recipe.json"), "utf8")));
    writeFileSync(join(dark, "recipe.json"), JSON.stringify({ ...recipe, display: { kind: "image", range: [1, 1] } }));
    const [latent, png] = ["dark.npy", "dark.png"].map((name) => join(folder, name));
    const { exit, stderr } = await cli(["run", dark, "--no-check", "--input", "class_labels=1", "-o", latent ?? "", "--png", png ?? ""]);
    expect(exit).toBe(2);
    expect(stderr).toContain("NOT_A_PICTURE");
    expect(existsSync(latent ?? "")).toBe(false);
  });

  it("runs through a link, as npm makes them", async () => {
    const link = join(folder, "smoothcc");
    symlinkSync(CLI, link);
    const { exit, stdout } = await runProcess(["--version"], link);
    expect(exit).toBe(0);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it("leaves a link where it is, and replaces what is behind it", async () => {
    const [file, link] = [join(folder, "behind.npy"), join(folder, "link.npy")];
    writeFileSync(file, "old");
    symlinkSync("behind.npy", link);
    expect((await cli(["run", artifact, "--input", "class_labels=1", "-o", link, "--force"])).exit).toBe(0);
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(readFileSync(file, "latin1")).toContain("NUMPY");
    expect((await cli(["run", artifact, "--input", "class_labels=1", "-o", "/dev/null", "--force"])).stderr).toContain("NOT_REPLACEABLE");
  });

  it("gives terminals no control characters of others", async () => {
    const { stderr } = await cli(["inspect", "\u001b[31mred\u009b0m"]);
    expect(stderr).toContain("FILE_MISSING");
    expect(stderr).toContain("\\u001b[31mred\\u009b0m");
    for (const control of ["\u001b", "\u009b"]) expect(stderr).not.toContain(control);
  });

  it("lets no name turn what is read, break a line or end a pair", async () => {
    const name = "a\u202eb\u2066c\u2028d\u200be\ud800f\u{e0041}g\nerror FAKE: h";
    for (const json of [[], ["--json"]]) {
      const { stderr } = await cli(["inspect", name, ...json]);
      expect(stderr).toMatch(/a\\u202eb\\u2066c\\u2028d\\u200be\\ud800f\\udb40\\udc41g/);
      expect(stderr).not.toMatch(/[\p{Cf}\p{Cs}\u2028\u2029]|^error FAKE/mu);
      if (json.length > 0) expect(JSON.parse(stderr)).toMatchObject({ error: { where: { file: name } } });
    }
    expect(table([["name"], ["a\nb"]])).toBe("name\na\\u000ab");
    expect(markup`<p title="${"\u202e<"}">`.text).toBe('<p title="\\u202e&lt;">');
  });

  it("leaves nothing behind when it is interrupted", async () => {
    const out = join(folder, "interrupted");
    mkdirSync(out);
    const glyphs = join(ROOT, "examples", "glyphs");
    const build = ["build", glyphs, "--steps", "8", "--samples", "1", "--runs", "50", "-o", join(out, "artifact"), "--json"];
    for (const [argv, at] of [
      [["calibrate", glyphs, "--samples", "50", "-o", join(out, "trace.json"), "--json"], "calibrate: "],
      [build, "bench: "],
    ] as const) {
      const { exit, stdout, stderr } = await runProcess(argv, CLI, at);
      expect(exit).toBe(130);
      expect(stdout).toBe("");
      expect(stderr).toContain('"CANCELLED"');
      expect(readdirSync(out)).toEqual([]);
    }
  });

  it("says in one sentence that its result cannot be written", async (ctx) => {
    if (!existsSync("/dev/full")) return ctx.skip("there is no /dev/full");
    const full = openSync("/dev/full", "w");
    const argv = ["inspect", join(FIXTURES, "dit", "dynamo-20.onnx"), "--json"];
    const child = spawn(process.execPath, [CLI, ...argv], { stdio: ["ignore", full, "pipe"] });
    closeSync(full);
    let stderr = "";
    child.stderr?.on("data", (chunk) => (stderr += String(chunk)));
    expect(await new Promise((done) => child.on("close", done))).toBe(4);
    const { error } = errorSchema.parse(JSON.parse(stderr));
    expect(error).toMatchObject({ code: "FILE_NOT_WRITTEN", where: { file: "stdout" } });
  });

  it("takes it well when nobody reads what it says", async () => {
    const child = spawn(process.execPath, [CLI, "inspect", join(FIXTURES, "dit", "dynamo-20.onnx"), "--json"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stdout.destroy();
    let stderr = "";
    child.stderr.on("data", (chunk) => (stderr += String(chunk)));
    expect(await new Promise((done) => child.on("close", done))).toBe(0);
    expect(stderr).toBe("");
  });
});
