/** Several budgets from one calibration: the front of `plan`, the tiers of `build`. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { buildSet } from "../src/build.js";
import { policies } from "../schedules/index.js";
import { recipeOverrides } from "../src/cli/options.js";
import { cli } from "./support/cli.js";
import { fixtureNamed } from "./support/fixtures.js";

const dit = fixtureNamed("dit/dynamo-20");
const STEPS = 12;
const RUN = ["--scheduler", dit.scheduler, "--steps", String(STEPS), "--input", "class_labels=1", "--threads", "1", "--quiet"];
const folder = mkdtempSync(join(tmpdir(), "smoothcc-front-"));
const trace = join(folder, "trace.json");
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

beforeAll(async () => {
  expect((await cli(["calibrate", dit.model, ...RUN, "--samples", "2", "-o", trace])).stderr).toBe("");
});

describe("plan --front", () => {
  const line = (...more: readonly string[]): string[] =>
    ["plan", trace, "--model", dit.model, ...RUN, "--policy", "budget", "--fit", "none", "-o", join(folder, "plan.json"), ...more]; // prettier-ignore
  const rows = z.object({ cells: z.record(z.string(), z.array(z.unknown())) });

  it("writes a plan for each share, and draws them beside what is published", async () => {
    // 0.26 and 0.25 are both 3 of 12 steps.
    const { exit, stdout } = await cli(line("--front", "0.5,0.26,0.25", "--json"));
    expect(exit).toBe(0);
    const files = ["plan-0.5.json", "plan-0.26.json"].map((name) => join(folder, name));
    expect(JSON.parse(stdout)).toMatchObject({ front: files.map((plan) => ({ plan })), plot: join(folder, "front.svg") });
    for (const [i, computed] of [6, 3].entries()) {
      const { cells } = rows.parse(JSON.parse(readFileSync(files[i] ?? "", "utf8")));
      for (const row of Object.values(cells)) expect(row.filter((cell) => cell === 1)).toHaveLength(computed);
    }
    const svg = readFileSync(join(folder, "front.svg"), "utf8");
    for (const label of ["plans of the front", "fora", "taylorseer, order 1"]) expect(svg).toContain(`>${label}</text>`);
    expect([...svg.matchAll(/<title>plan, (\d+)\u00a0%/g)].map(([, share]) => share)).toEqual(["50", "25"]);
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });

  it("is of the policy that plans for budgets, and names these itself", async () => {
    expect((await cli(line("--front", "--max-error", "0.1"))).stderr).toContain("--front: names its budgets itself; leave out --max-error");
    expect((await cli(line("--front", "--policy", "fora"))).stderr).toContain("--front: is for --policy budget, not for fora");
    expect((await cli(line("--front", "0.5,2"))).stderr).toContain("takes shares above 0, up to 1");
  });
});

describe("build --tiers", () => {
  const overrides = recipeOverrides({ scheduler: dit.scheduler, steps: STEPS, input: ["class_labels=1"] });
  const output = join(folder, "tiers");

  it("makes an artifact for each, with weights that are on disk once", async () => {
    const policyOptions = { fit: "none" };
    const settings = { overrides, output, policyOptions, policy: "budget", force: false, samples: 2, runs: 0, seed: 0, threads: 1, warn: () => undefined }; // prettier-ignore
    const { artifacts, dataBytes } = await buildSet(dit.model, settings, { tiers: ["fast", "balanced"] });
    expect(
      [...artifacts].map(([name, { plan, verification, sharesWeights }]) => ({
        name,
        ...plan.computed,
        ok: verification.ok,
        sharesWeights,
      })),
    ).toEqual([
      { name: "fast", attn: 2, mlp: 2, ok: true, sharesWeights: true },
      { name: "balanced", attn: 4, mlp: 4, ok: true, sharesWeights: true },
    ]);
    expect(readdirSync(output).sort()).toEqual(["SHA256SUMS", "balanced", "fast", "report.html", "variants.json"]);
    const files = ["fast", "balanced"].map((tier) => statSync(join(output, tier, "model.onnx.data")));
    expect(new Set(files.map(({ ino }) => ino)).size).toBe(1);
    expect(dataBytes).toBe(files[0]?.size);
    // Each is whole by itself.
    rmSync(join(output, "fast"), { recursive: true });
    expect((await cli(["verify", join(output, "balanced"), "--quiet"])).exit).toBe(0);
  });

  it("knows its tiers, and names the budgets itself", async () => {
    const line = (tiers: string, ...more: readonly string[]): string[] =>
      ["build", dit.model, ...RUN, "--tiers", tiers, "-o", join(folder, "other"), ...more]; // prettier-ignore
    const { exit, stderr } = await cli(line("fast,blanced"));
    expect(exit).toBe(2);
    expect(stderr).toContain("There is no tier 'blanced'.\n  Did you mean 'balanced'? Known: fast, balanced, lossless.");
    expect((await cli(line("fast", "--share", "0.5"))).stderr).toContain("--tiers: names its budgets itself; leave out --share");
  });
});

describe("options of policies", () => {
  it("are written with hyphens, in help, on the command line and in what is said of them", async () => {
    const help = (await cli(["plan", "--help"])).stdout;
    expect(help).toContain("--max-error <value>");
    const listed = help.split("\n").map((line) => line.trim().split(/ {2,}/));
    for (const { name, summary } of policies.values()) expect(listed).toContainEqual([name, summary]);
    const line = ["plan", trace, "-o", join(folder, "one.json"), "--policy", "budget"];
    for (const given of [
      ["--max-error", "-1"],
      ["--policy-option", "max-error=-1"],
    ])
      expect((await cli([...line, ...given])).stderr).toContain("policy budget: max-error:");
    expect((await cli([...line, "--policy-option", "max-eror=1"])).stderr).toContain("no option 'max-eror'; did you mean 'max-error'?");
  });
});
