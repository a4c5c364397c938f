/** Adding one of a kind is writing one file: nothing else of the built program changes, and it is there. */
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Ran } from "./support/cli.js";

const ROOT = resolve(import.meta.dirname, "..");
const DIT = join(import.meta.dirname, "fixtures", "dit");
const MODEL = join(DIT, "dynamo-20.onnx");
const RUN = ["--scheduler", join(DIT, "scheduler_config.json"), "--steps", "10", "--input", "class_labels=1"];

/** A copy of the built program. */
const copy = mkdtempSync(join(tmpdir(), "smoothcc-one-file-"));
beforeAll(() => {
  for (const name of ["dist", "package.json"]) cpSync(join(ROOT, name), join(copy, name), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
});
afterAll(() => {
  rmSync(copy, { recursive: true, force: true });
});

function smoothcc(...argv: readonly string[]): Promise<Ran> {
  return new Promise((done) => {
    execFile(process.execPath, [join(copy, "dist", "src", "cli", "cli.js"), ...argv], (error, stdout, stderr) => {
      done({ exit: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

/** What is of no kind that is added, but input of the commands. */
function given(name: string, text: string): string {
  const file = join(copy, name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

/** A folder as diffusers saves it, of a pipeline that nobody knows. */
function pipelineFolder(): string {
  const index = given("pipeline/model_index.json", '{ "_class_name": "MinePipeline" }');
  const config = given("pipeline/transformer/config.json", "{}");
  cpSync(MODEL, join(dirname(config), "model.onnx"));
  return dirname(index);
}

interface Addition {
  readonly kind: string;
  /** Where one writes it, and what. */
  readonly file: string;
  readonly text: string;
  /** What needs it. */
  readonly argv: () => readonly string[];
  /** What this command line prints without the file: what it is refused with, or does then. */
  readonly before: string;
  /** What it prints with it. */
  readonly after: string;
}

const ADDITIONS: readonly Addition[] = [
  {
    kind: "recogniser",
    file: "dist/ir/lift/mine.js",
    text: `import { placed } from "../residual/blocks.js";
      export default { name: "mine", recognise: ({ streams: { branches }, nameOf }) => placed(branches, ({ tokens }) => nameOf(tokens)) };`,
    argv: () => ["inspect", MODEL],
    before: "single-stream transformer",
    after: "mine transformer",
  },
  {
    kind: "sampler",
    file: "dist/schedules/samplers/mine.js",
    text: `import { z } from "zod";
      const row = (k) => ({ timestep: 9 - k, inputScale: 1, m: { x: 0, out: 1 }, next: { x: [{ step: k, weight: 1 }], m: [{ step: k, weight: -1 }], noise: 0 } });
      const table = (config, { steps }) => ({ name: "mine", prediction: "epsilon", initialScale: 1, rows: Array.from({ length: steps }, (_, k) => row(k)) });
      export default { name: "mine", className: "MineScheduler", config: z.object({}), takes: [], table };`,
    argv: () => ["sampler", given("scheduler.json", '{ "_class_name": "MineScheduler" }'), "--steps", "2"],
    before: "UNKNOWN_SCHEDULER",
    after: "mine, epsilon",
  },
  {
    kind: "policy",
    file: "dist/schedules/policies/mine.js",
    text: `import { z } from "zod";
      import { everywhere } from "../policy.js";
      const options = z.object({ keep: z.coerce.number().default(2).describe("steps that are kept") });
      const choose = ({ steps, sites }, { keep }) => ({ cells: everywhere(sites, Array.from({ length: steps }, (_, k) => (k < keep ? 1 : 0))) });
      export default { name: "mine", summary: "the first steps", needs: [], options, choose };`,
    argv: () => ["plan", MODEL, ...RUN, "--policy", "mine", "--keep", "3", "-o", join(copy, "plan.json")],
    before: "Unknown option '--keep'",
    after: "3 of 10 steps",
  },
  {
    kind: "pass",
    file: "mine.js",
    text: 'export default { name: "mine", stage: "step", preserves: "bits", run: (model) => model };',
    argv: () => ["compile", MODEL, ...RUN, "--no-cache", "-o", join(copy, "out"), "--json", "--extension", join(copy, "mine.js")],
    before: "BAD_EXTENSION",
    after: '"name": "mine"',
  },
  {
    kind: "form",
    file: "dist/passes/forms/mine.js",
    text: `import { uncached } from "../../schedules/index.js";
      import { LOOP_PASSES as passes } from "../stages.js";
      const lower = async (step, { plan, perform, performBeside }) =>
        ({ model: await perform(step, passes), uncached: await performBeside(uncached(plan), step, passes) });
      export default { name: "mine", summary: "a form of mine", passes, stages: ["step"], frees: false, lower };`,
    argv: () => ["compile", MODEL, ...RUN, "--no-cache", "--form", "mine", "-o", join(copy, "form"), "--json"],
    before: "takes loop or unrolled, not 'mine'",
    after: '"form": "mine"',
  },
  {
    kind: "pipeline",
    file: "dist/src/job/pipelines/mine.js",
    text: `import { z } from "zod";
      export default { name: "mine", pipelines: ["MinePipeline"], transformers: [], config: z.object({}), recipe: () => ({ cut: "block" }) };`,
    argv: () => ["inspect", pipelineFolder()],
    before: "UNKNOWN_PIPELINE",
    after: "block-0",
  },
  {
    kind: "command",
    file: "dist/src/cli/commands/mine.js",
    text: `const run = async (argument, { steps }) => ({ json: { argument, steps }, text: "mine does " + argument + " in " + steps });
      export default { name: "mine", summary: "what is mine", argument: "WHAT", options: ["steps"], run };`,
    argv: () => ["mine", "this", "--steps", "3"],
    before: "Unknown command 'mine'",
    after: "mine does this in 3",
  },
];

it.each(ADDITIONS)("a $kind is one file", async ({ file, text, argv, before, after }) => {
  const without = await smoothcc(...argv(), "--quiet");
  expect(without.stdout + without.stderr).toContain(before);
  const path = join(copy, file);
  writeFileSync(path, text);
  try {
    const { exit, stdout, stderr } = await smoothcc(...argv(), "--quiet");
    expect({ exit, stderr }).toEqual({ exit: 0, stderr: "" });
    expect(stdout).toContain(after);
  } finally {
    rmSync(path);
  }
});

it("a policy and a command are in the help as well", async () => {
  const added = ADDITIONS.filter(({ kind }) => ["policy", "command"].includes(kind));
  for (const { file, text } of added) writeFileSync(join(copy, file), text);
  const [plan, mine] = await Promise.all([smoothcc("plan", "--help"), smoothcc("mine", "--help")]);
  expect(plan.stdout).toContain("mine: steps that are kept");
  expect(plan.stdout).toMatch(/^ {2}mine +the first steps$/m);
  expect(mine.stdout).toContain("Usage: smoothcc mine [options] <WHAT>");
  expect(mine.stdout).toContain("what is mine");
});
