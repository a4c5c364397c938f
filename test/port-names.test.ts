/** Inputs of a network that are called as something of ours is: they keep their names, and the run works. */
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { writeModel } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { cli } from "./support/cli.js";
import { tinyStep } from "./support/tiny-step.js";

const SCHEDULER = {
  _class_name: "DDPMScheduler",
  beta_start: 0.0001,
  beta_end: 0.02,
  beta_schedule: "linear",
  clip_sample: false,
  num_train_timesteps: 1000,
};
const ports = z.array(z.looseObject({ name: z.string() }));
const manifestSchema = z.looseObject({ inputs: ports, outputs: ports });

/** Makes, verifies and runs an artifact of a network with one condition, its latent and condition named so; the names of the artifact's ports. */
async function built(latent: string, condition: string, ...more: readonly string[]): Promise<readonly (readonly string[])[]> {
  const folder = mkdtempSync(join(tmpdir(), "smoothcc-names-"));
  const text = tinyStep({ label: true })
    .replace(/\bx\b/g, `"${latent}"`)
    .replace(/\blabel\b/g, `"${condition}"`);
  await writeModel(parse(text), join(folder, "model.onnx"));
  const recipe = { model: "model.onnx", scheduler: SCHEDULER, steps: 4, inputs: { [condition]: { calibrate: [1] }, size: { fix: 1 } } };
  writeFileSync(join(folder, "recipe.json"), JSON.stringify(recipe));
  const [trace, plan, output] = ["trace.json", "plan.json", "out"].map((name) => join(folder, name));
  for (const line of [
    ["calibrate", folder, "--samples", "1", "-o", trace],
    ["plan", trace, "--model", folder, "--policy", "smoothcache", "--share", "0.7", "-o", plan],
    ["compile", folder, "--plan", plan, "-o", output, ...more],
    ["verify", output],
    ["run", output, "--input", `${condition}=1`, "-o", join(folder, "latent.npy")],
  ]) {
    const { exit, stderr } = await cli([...line.map(String), "--quiet", "--threads", "1"]);
    expect({ exit, stderr: stderr.replace(/^warning: .*\n/gm, "") }).toEqual({ exit: 0, stderr: "" });
  }
  const { inputs, outputs } = manifestSchema.parse(JSON.parse(readFileSync(join(String(output), "manifest.json"), "utf8")));
  return [inputs, outputs].map((all) => all.map(({ name }) => name));
}

describe("an input that is called as a port of the run is", () => {
  it.each([
    ["x", "label", [["x", "label", "noise"], ["latent"]]],
    ["latent", "label", [["latent", "label", "noise"], ["run_latent"]]],
    ["noise", "latent", [["noise", "latent", "run_noise"], ["run_latent"]]],
    ["latent", "run_latent", [["latent", "run_latent", "noise"], ["run_run_latent"]]],
    ["probe_0", "attn-0", [["probe_0", "attn-0", "noise"], ["latent"]]],
    ["prediction", "mlp-0", [["prediction", "mlp-0", "noise"], ["latent"]]],
  ])("keeps its name: %s, %s", async (latent, condition, expected) => {
    expect(await built(latent, condition)).toEqual(expected);
  });

  it("keeps it in a loop", async () => {
    expect(await built("latent", "noise", "--form", "loop")).toEqual([["latent", "noise", "run_noise"], ["run_latent"]]);
  });
});
