/** Every example runs as its first lines say. */
import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { onnx } from "onnx-proto";
import { z } from "zod";
import { describe, expect, it } from "vitest";
import { passes } from "../passes/index.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { relativeL2, samplerTable } from "../schedules/index.js";
import { npyBytes, readNpy } from "../src/files/npy.js";
import { missingModules, PYTHON } from "./support/python.js";

const ROOT = resolve(import.meta.dirname, "..");
const CLI = join(ROOT, "dist", "src", "cli", "cli.js");
const run = promisify(execFile);

describe("examples", () => {
  const folder = mkdtempSync(join(tmpdir(), "smoothcc-examples-"));

  it("compare-policies prints a row for every policy and budget", async () => {
    // The glyph model at 12 steps, to be quick.
    const glyphs = join(ROOT, "examples", "glyphs");
    const recipe = z.record(z.string(), z.unknown()).parse(JSON.parse(readFileSync(join(glyphs, "recipe.json"), "utf8")));
    for (const file of ["model.onnx", "scheduler_config.json"]) copyFileSync(join(glyphs, file), join(folder, file));
    writeFileSync(join(folder, "recipe.json"), JSON.stringify({ ...recipe, steps: 12 }));
    const { stdout } = await run("node", ["examples/compare-policies.js", folder, "1", "fora,taylorseer"], { cwd: ROOT });
    const rows = stdout.trim().split("\n");
    expect(rows).toHaveLength(8);
    for (const row of rows.slice(2)) expect(Number(/(\d\.\d{4}) \|/.exec(row)?.[1])).toBeGreaterThan(0);
  });

  it("performance prints a row for every interval, every optional pass and none, both forms, and every number of steps", async () => {
    const options = ["--steps", "4", "--batch", "1", "--runs", "1", "--threads", "1"];
    const { stdout } = await run("node", ["examples/performance.js", "examples/glyphs", ...options], { cwd: ROOT });
    const cells = stdout
      .split("\n")
      .filter((line) => line.startsWith("| glyphs"))
      .map((line) => line.split(" | ")[1]);
    const optional = [...passes.values()].filter(({ isOptional }) => isOptional).map(({ name }) => `\`-${name}\``);
    expect(cells).toEqual(["n = 2", "n = 3", "nothing", ...optional, "unrolled", "loop", "4", "8", "16", "32", "48"]);
  });

  it("warm-start is a policy that plan takes by path", async () => {
    const trace = join(folder, "trace.json");
    const plan = join(folder, "plan.json");
    await run("node", [CLI, "calibrate", "examples/glyphs", "--samples", "1", "--steps", "12", "-o", trace, "--quiet"], { cwd: ROOT });
    const { stdout } = await run(
      "node",
      [CLI, "plan", trace, "--policy", "./examples/warm-start.js", "--policy-option", "interval=4", "-o", plan, "--json"],
      { cwd: ROOT },
    );
    const { computed } = z.object({ computed: z.record(z.string(), z.number()) }).parse(JSON.parse(stdout));
    // 12 steps: 0 to 3 warm, then 4, 8, and the last.
    expect(computed).toEqual({ attn: 7, mlp: 7 });
    expect(existsSync(plan)).toBe(true);
  });

  const quadratic = join(folder, "quadratic.json");
  writeFileSync(quadratic, '{ "_class_name": "QuadraticDDIM" }');

  it("quadratic-ddim is a sampler: every step keeps a sample with its noise on the levels of its times", async () => {
    const { stdout } = await run(
      "node",
      [CLI, "sampler", quadratic, "--extension", "./examples/quadratic-ddim.js", "--steps", "10", "--json"],
      { cwd: ROOT },
    );
    const { rows } = samplerTable(JSON.parse(stdout), { steps: 10 });
    expect(rows.map(({ timestep }) => timestep)).toEqual([999, 809, 639, 489, 359, 249, 159, 89, 39, 9]);
    const barOf = (time: number): number =>
      Array.from({ length: time + 1 }, (_, t) => 1 - 0.0001 - (0.0199 * t) / 999).reduce((product, alpha) => product * alpha, 1);
    const latentAt = (bar: number): number => Math.sqrt(bar) * 0.3 - Math.sqrt(1 - bar) * 0.7;
    for (const [k, { timestep, m, next }] of rows.entries()) {
      const x = latentAt(barOf(timestep));
      expect(m.x * x + m.out * -0.7).toBeCloseTo(0.3, 6);
      const after = (next.x[0]?.weight ?? 0) * x + (next.m[0]?.weight ?? 0) * 0.3;
      const time = rows[k + 1]?.timestep;
      expect(after).toBeCloseTo(latentAt(time === undefined ? 1 : barOf(time)), 6);
    }
  });

  it("a sampler, a recogniser and a pass are followed, and asked for by the artifact that was made with them", async () => {
    const [made, moved] = [join(folder, "extended"), join(folder, "moved")];
    const files = ["quadratic-ddim", "attention-alone", "tanh-gelu"].flatMap((name) => [
      "--extension",
      join(ROOT, "examples", `${name}.js`),
    ]);
    const given = [...files, "--scheduler", quadratic, "--steps", "4"];
    const plan = join(folder, "extended-plan.json");
    writeFileSync(plan, '{ "attn": [1, 0, 1, 0] }');
    const { stdout } = await run("node", [CLI, "inspect", "examples/glyphs", ...given, "--json"], { cwd: ROOT });
    const { recogniser, branches } = z
      .looseObject({ recogniser: z.string(), branches: z.array(z.looseObject({ kind: z.string() })) })
      .parse(JSON.parse(stdout));
    expect(recogniser).toBe("attention-alone");
    expect(branches.map(({ kind }) => kind)).toEqual(new Array(8).fill("attn"));
    await run("node", [CLI, "compile", "examples/glyphs", ...given, "--plan", plan, "-o", made, "--quiet"], { cwd: ROOT });
    renameSync(made, moved);
    const { graph } = onnx.ModelProto.decode(readFileSync(join(moved, "model.onnx")));
    const count = (type: string): number => graph?.node?.filter(({ opType }) => opType === type).length ?? 0;
    // One for each of eight blocks, at each of four steps.
    expect([count("Tanh"), count("Gelu"), count("Attention")]).toEqual([32, 0, 16]);
    const { stdout: verified } = await run("node", [CLI, "verify", moved, ...files, "--json", "--quiet"], { cwd: folder });
    expect(JSON.parse(verified)).toMatchObject({ ok: true });
    await expect(run("node", [CLI, "verify", moved], { cwd: folder })).rejects.toThrow("made with 'attention-alone'");
  });

  it("calibrate-shards runs its parts under the numbers of Kubernetes and of Slurm, and adds them up", async () => {
    const example = join(ROOT, "examples", "calibrate-shards");
    const fixture = join(ROOT, "test", "fixtures", "dit");
    const traces = mkdtempSync(join(tmpdir(), "smoothcc-shards-"));
    const inScripts = { ...process.env, SMOOTHCC: `node ${CLI}`, TRACES: traces, SHARDS: "2", MODEL: join(fixture, "dynamo-20.onnx") };
    const given = ["--samples", "3", "--steps", "10", "--scheduler", join(fixture, "scheduler_config.json"), "--input", "class_labels=1"];
    const shard = (env: Readonly<Record<string, string>>): Promise<unknown> =>
      run("sh", [join(example, "shard.sh"), ...given], { env: { ...inScripts, ...env } });
    await shard({ JOB_COMPLETION_INDEX: "0" });
    await expect(run("sh", [join(example, "merge.sh")], { env: inScripts })).rejects.toThrow("FILE_MISSING");
    await shard({ SLURM_ARRAY_TASK_ID: "1" });
    await run("sh", [join(example, "merge.sh")], { env: inScripts });
    const samplesOf = (name: string): unknown => z.looseObject({}).parse(JSON.parse(readFileSync(join(traces, name), "utf8")))["samples"];
    expect(["shard-0.json", "shard-1.json", "trace.json"].map(samplesOf)).toEqual([[0, 2], [1], [0, 1, 2]]);
    await expect(shard({})).rejects.toThrow("neither Kubernetes nor Slurm");

    // What the job files name is there, and both have as many parts as they say.
    const [job, array] = ["job.yaml", "array.sbatch"].map((name) => readFileSync(join(example, name), "utf8"));
    expect(job).toContain("calibrate-shards/shard.sh");
    expect(job).toMatch(/completions: 4\n[^]*name: SHARDS, value: "4"/);
    expect(array).toMatch(/--array=0-3\n[^]*SHARDS=4\nexec sh shard.sh/);
  });

  it("cuda-graph.py binds inputs and outputs, on the CPU where there is no GPU", async (ctx) => {
    const reason = missingModules("numpy", "onnxruntime");
    if (reason !== undefined) return ctx.skip(reason);
    const glyphs = join(ROOT, "examples", "glyphs");
    const artifact = join(folder, "artifact");
    const noise = join(folder, "noise.npy");
    writeFileSync(
      noise,
      npyBytes(
        tensorOf(
          "float",
          [1, 1, 32, 32],
          Array.from({ length: 1024 }, (_, i) => 2 * Math.sin(7 * i)),
        ),
      ),
    );
    await run("node", [CLI, "compile", glyphs, "--no-cache", "--steps", "2", "--runtime", "guidance", "-o", artifact, "--quiet"]);
    const [ours, theirs] = [join(folder, "ours.npy"), join(folder, "theirs.npy")];
    await run("node", [CLI, "run", artifact, "--noise", noise, "--input", "class_labels=18", "--guidance", "4", "-o", ours, "--quiet"]);
    const options = [
      "--device",
      "cpu",
      "--runs",
      "1",
      "--input",
      "class_labels=18",
      "--input",
      "guidance_scale=4",
      "--input",
      `hidden_states=${noise}`,
      "--output",
      theirs,
    ];
    await run(PYTHON, ["examples/cuda-graph.py", artifact, ...options], { cwd: ROOT });
    expect(relativeL2(tensorNumbers(readNpy(theirs)), tensorNumbers(readNpy(ours)))).toBeLessThan(1e-5);
  });

  it("bench-pytorch.py compiles, and names the packages that are missing", async (ctx) => {
    const reason = missingModules("numpy");
    if (reason !== undefined) return ctx.skip(reason);
    await run(PYTHON, ["-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())", "examples/bench-pytorch.py"], { cwd: ROOT });
    if (missingModules("SmoothCache") === undefined) return ctx.skip(`${PYTHON} has SmoothCache: nothing is refused`);
    const refused = run(PYTHON, ["examples/bench-pytorch.py", folder, "schedule.json", folder], { cwd: ROOT });
    await expect(refused).rejects.toThrow(/pip install .*dit-smoothcache/);
  });

  it("has a test for each file", () => {
    expect(readdirSync(join(ROOT, "examples")).sort()).toEqual([
      "attention-alone.js",
      "bench-pytorch.py",
      "calibrate-shards",
      // Tested by clients.test.ts.
      "clients",
      "compare-policies.js",
      "cuda-graph.py",
      "export",
      "glyphs",
      "performance.js",
      "quadratic-ddim.js",
      "tanh-gelu.js",
      "warm-start.js",
    ]);
  });
});
