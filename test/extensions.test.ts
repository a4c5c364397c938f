/** Files of a user's own: where what they export is found, and where passes run. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { build } from "../src/build.js";
import { recipeOverrides } from "../src/cli/options.js";
import { cli } from "./support/cli.js";

const DIT = join(import.meta.dirname, "fixtures", "dit");
const folder = mkdtempSync(join(tmpdir(), "smoothcc-extensions-"));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const ownPass = (stage: string): string =>
  file(
    `${stage}.mjs`,
    `export default { name: "own-${stage}", stage: "${stage}", preserves: "bits", isOptional: true, run: (model) => model };`,
  );
const plan = file("plan.json", '{ "attn": [1, 0, 1, 0] }');

function compile(...more: readonly string[]): ReturnType<typeof cli> {
  const given = ["--scheduler", join(DIT, "scheduler_config.json"), "--steps", "4", "--plan", plan, "--input", "class_labels=1"];
  return cli(["compile", join(DIT, "dynamo-20.onnx"), ...given, "-o", join(folder, "out"), "--force", "--json", "--quiet", ...more]);
}

async function passesOf(...more: readonly string[]): Promise<readonly string[]> {
  const { stdout } = await compile(...more);
  return z
    .object({ passes: z.array(z.object({ name: z.string() })) })
    .parse(JSON.parse(stdout))
    .passes.map(({ name }) => name);
}

describe("passes", () => {
  const own = ["cache", "run", "step"].flatMap((stage) => ["--extension", ownPass(stage)]);

  it("run behind those of their stage, and can be left out", async () => {
    const names = await passesOf(...own);
    const without = names.filter((name) => !name.startsWith("own-"));
    expect(without).toEqual(await passesOf());
    const next = ["step", "run", "cache"].map((stage) => names[names.indexOf(`own-${stage}`) + 1]);
    expect(next).toEqual(["unroll", "reuse", undefined]);
    expect(await passesOf(...own, "--passes", "-own-run")).toEqual(names.filter((name) => name !== "own-run"));
  });

  it("of one step come before a loop, and others are refused there", async () => {
    const names = await passesOf("--form", "loop", "--extension", ownPass("step"));
    expect(names[names.indexOf("own-step") + 1]).toBe("loop");
    const { exit, stderr } = await compile("--form", "loop", ...own);
    expect(exit).toBe(3);
    expect(stderr).toContain("the pass 'own-cache' is for steps that are unrolled");
  });
});

it("a policy is known by its name, once its file is", async () => {
  const mine = file(
    "mine.mjs",
    'import { z } from "zod";' +
      'export default { name: "mine", needs: [], options: z.object({}), choose: ({ sites }) => ({ cells: new Map(sites.map(({ site }) => [site, [1, 0, 0, 1]])) }) };',
  );
  const model = [join(DIT, "dynamo-20.onnx"), "--scheduler", join(DIT, "scheduler_config.json"), "--steps", "4"];
  const line = ["plan", ...model, "--extension", mine, "-o", join(folder, "own.json"), "--force", "--json", "--quiet", "--policy"];
  const { stdout } = await cli([...line, "mine"]);
  expect(JSON.parse(stdout)).toMatchObject({ policy: { name: "mine" }, computed: { attn: 2, mlp: 2 } });
  expect((await cli([...line, "mime"])).stderr).toContain("Did you mean 'mine'?");
  const overrides = recipeOverrides({
    scheduler: join(DIT, "scheduler_config.json"),
    steps: 4,
    input: ["class_labels=1"],
    extension: [mine],
  });
  const output = join(folder, "built");
  const built = await build(join(DIT, "dynamo-20.onnx"), { overrides, output, policy: "mine", policyOptions: {}, force: true, samples: 1, runs: 0, seed: 0, threads: 1, warn: () => undefined }); // prettier-ignore
  expect(built.plan).toMatchObject({ policy: { name: "mine" }, computed: { attn: 2, mlp: 2 } });
});

it("what fails in a file is told of that file", async () => {
  const failing = [
    ["pass", 'name: "bad", stage: "step", preserves: "bits", run: ({ graph }) => graph.nodes[1e6].name'],
    ["pass", 'name: "bad", stage: "step", preserves: "bits", run: (model) => ({ ...model, graph: { ...model.graph, nodes: [] } })'],
    ["recogniser", 'name: "bad", recognise() { throw new Error("not today"); }'],
  ].map(([what = "", text = ""], i) => ({ what, path: file(`bad-${i}.mjs`, `export default { ${text} };`) }));
  for (const { what, path } of failing) {
    const { exit, stderr } = await compile("--extension", path);
    expect([exit, stderr]).toEqual([2, expect.stringContaining(`its ${what} fails`)]);
    expect(stderr).toContain(path);
  }
});
