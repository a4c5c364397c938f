/** Verification notices a cut that holds the end of one stream minus the front of another, though artifact and loop agree on it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { z } from "zod";
import { cli } from "./support/cli.js";

const MODEL = join(import.meta.dirname, "fixtures", "streams", "joint3.dynamo-20.onnx");
const verification = z.object({
  ok: z.boolean(),
  checks: z.array(z.object({ name: z.string(), relL2: z.number(), ok: z.boolean(), problem: z.string().optional() })),
});

const folder = mkdtempSync(join(tmpdir(), "smoothcc-mixed-"));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Takes the streams of both conditions for one chain, as lifting did once, when they had the same name. */
const MIXING = `export default {
  name: "mixing",
  recognise({ streams: { branches }, streamOf }) {
    const conditions = branches.filter((branch) => streamOf(branch) !== "image");
    return conditions.map((branch) => ({ branch: { ...branch, chain: conditions[0].chain }, stream: "condition", block: 0 }));
  },
};`;

const INPUTS = ["--input", "text=0.3", "--input", "sound=-0.7"];

it.each([
  { how: "as they are", extension: [], ok: true },
  { how: "taken for one", extension: ["--extension", join(folder, "mixing.js")], ok: false },
])("streams $how", async ({ how, extension, ok }) => {
  writeFileSync(join(folder, "mixing.js"), MIXING);
  writeFileSync(join(folder, "plan.json"), JSON.stringify({ "*": [1, 0, 1, 0] }));
  writeFileSync(join(folder, "scheduler_config.json"), JSON.stringify({ _class_name: "FlowMatchEulerDiscreteScheduler", shift: 1 }));
  const artifact = join(folder, how.replaceAll(" ", "-"));
  const scheduler = ["--scheduler", join(folder, "scheduler_config.json"), "--steps", "4"];
  const compiled = await cli([
    "compile",
    MODEL,
    "--plan",
    join(folder, "plan.json"),
    "--cut",
    "stack",
    ...scheduler,
    ...extension,
    "-o",
    artifact,
  ]);
  expect(compiled.stderr).not.toContain("error");
  const { stdout } = await cli(["verify", artifact, "--json", ...INPUTS, ...extension]);
  const { checks, ...result } = verification.parse(JSON.parse(stdout));
  expect(result.ok).toBe(ok);
  expect(checks.filter((check) => !check.ok).map(({ name }) => name)).toEqual(ok ? [] : ["cuts hold what blocks add to one stream"]);
  expect(checks.find(({ name }) => name.startsWith("artifact"))?.relL2).toBeLessThanOrEqual(1e-5);
});
