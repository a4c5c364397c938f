/** The whole way from a folder as diffusers saves it, without a recipe, to a verified artifact. */
import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { z } from "zod";
import { tensorFrom, tensorNumbers } from "../ir/tensor.js";
import { npyBytes, readNpy } from "../src/files/npy.js";
import { fixtureNamed } from "./support/fixtures.js";

const CLI = resolve(import.meta.dirname, "..", "dist", "src", "cli", "cli.js");
const configSchema = z.object({ class: z.string(), constructor: z.record(z.string(), z.unknown()) });
const resultSchema = z.object({
  verify: z.object({ ok: z.boolean() }),
  plan: z.object({ computed: z.record(z.string(), z.number()) }),
  compile: z.object({ macs: z.object({ bound: z.number() }) }),
});

let work = "";
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "smoothcc-folder-"));
});
afterAll(() => {
  rmSync(work, { recursive: true, force: true });
});

/** Writes `file` with the first `rows` rows of a recorded input, times `factor`. */
function write(file: string, recorded: string, rows: number, factor: number): void {
  const { shape } = readNpy(recorded);
  const [all = 1, ...rest] = shape;
  const values = Float32Array.from(tensorNumbers(readNpy(recorded)), (value) => factor * value);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, npyBytes(tensorFrom("float", [rows, ...rest], values.slice(0, (values.length / all) * rows))));
}

it.each([
  { name: "sd3/dynamo-20", pipeline: "StableDiffusion3Pipeline", prompts: ["encoder_hidden_states", "pooled_projections"], guided: true },
  { name: "flux/torchscript-17", pipeline: "FluxPipeline", prompts: ["encoder_hidden_states", "pooled_projections"], guided: false },
])("$pipeline", async ({ name, pipeline, prompts, guided }) => {
  const fixture = fixtureNamed(name);
  const folder = join(work, pipeline);
  const inFolder = (...path: string[]): string => join(folder, ...path);
  for (const part of ["transformer", "scheduler"]) mkdirSync(inFolder(part), { recursive: true });
  const config = configSchema.parse(JSON.parse(readFileSync(join(fixture.folder, "config.json"), "utf8")));
  writeFileSync(inFolder("model_index.json"), JSON.stringify({ _class_name: pipeline }));
  writeFileSync(inFolder("transformer", "config.json"), JSON.stringify({ _class_name: config.class, ...config.constructor }));
  copyFileSync(fixture.model, inFolder("transformer", "model.onnx"));
  copyFileSync(fixture.scheduler, inFolder("scheduler", "scheduler_config.json"));
  for (const prompt of prompts) {
    write(inFolder("calibrate", `${prompt}.npy`), join(fixture.folder, "inputs", `${prompt}.npy`), 1, 1);
    if (guided) write(inFolder("uncond", `${prompt}.npy`), join(fixture.folder, "inputs", `${prompt}.npy`), 1, 0.1);
  }
  const argv = ["build", folder, "-o", join(work, "out", pipeline), "--policy", "fora", "--interval", "3", "--steps", "10", "--samples", "1", "--runs", "1", "--json", "--quiet"]; // prettier-ignore
  const { stdout } = await promisify(execFile)(process.execPath, [CLI, ...argv]);
  const { verify, plan, compile } = resultSchema.parse(JSON.parse(stdout));
  expect(verify.ok).toBe(true);
  expect(Object.keys(plan.computed)).toEqual(expect.arrayContaining(["image_attn", "text_mlp"]));
  expect(compile.macs.bound).toBeGreaterThan(1.8);
  const report = readFileSync(join(work, "out", pipeline, "report.html"), "utf8");
  for (const group of Object.keys(plan.computed)) expect(report).toContain(`<th scope="row">${group} <small>`);
});
