/** One network as deployers leave it: optimised, in half precision, quantised. It has the branches of the plain export, and its artifact is its loop. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { readModel } from "../ir/onnx/index.js";
import { convertTensor, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { isFloatType } from "../ir/types.js";
import { relativeL2 } from "../schedules/index.js";
import { ArtifactSession } from "../src/artifact/artifact.js";
import { FILES } from "../src/artifact/manifest.js";
import { Session } from "../src/runtime/session.js";
import { cli } from "./support/cli.js";

/** Made by `generate.py` there. */
const FOLDER = join(import.meta.dirname, "fixtures", "deployed");
const PLAIN = join(FOLDER, "plain.onnx");

/** Linear betas, 1000 training steps, and nothing that would ask for more than `ddim` below. */
const SCHEDULER = { _class_name: "DDIMScheduler", beta_start: 1e-4, beta_end: 0.02, clip_sample: false, set_alpha_to_one: true };
const STEPS = 4;
const LABEL = 1;

/** Files that ONNX Runtime's CPU does not load, whoever asks: what a refusal of them has to name. */
const NOWHERE: Readonly<Record<string, RegExp>> = {
  // A Cast in the file gives another type than the file says: a mistake of the converter, which left it as it was.
  "fp16-common-io32": /float16/,
  // A CUDA kernel.
  "transformers-vae": /NhwcConv/,
};

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-deployed-"));
  writeFileSync(join(folder, "scheduler_config.json"), JSON.stringify(SCHEDULER));
  writeFileSync(join(folder, "plan.json"), JSON.stringify({ "*": [1, 0, 1, 0] }));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const all = readdirSync(FOLDER).flatMap((file) => (file.endsWith(".onnx") ? [basename(file, ".onnx")] : []));

describe.each(all)("%s", (name) => {
  const file = join(FOLDER, `${name}.onnx`);
  const isBfloat = name.includes("bfloat16");
  const isHalf = /half|fp16/.test(name);

  it("has the branches of the plain export, at the same cost", async () => {
    const [own, plain] = [await inspected(file), await inspected(PLAIN)];
    expect(own.branches).toEqual(plain.branches);
    expect(own.macs).toEqual(plain.macs);
    // What is true of the file and of no concern here.
    const known = name in NOWHERE ? /./ : /outside of the ONNX standard/;
    expect(own.warnings.filter((warning) => !known.test(warning))).toEqual([]);
  });

  // The CPU computes nothing in bfloat16; its numbers are read as float32.
  it.runIf(isBfloat)("gives what the plain export gives, where it is read as float32", async () => {
    const noise = noiseOf(1);
    await compiled(file, ["--no-cache", "--precision", "fp32"]);
    expect(relativeL2(await artifactRun(noise), await loop(PLAIN, noise))).toBeLessThanOrEqual(1e-2);
    await compiled(file, ["--plan", join(folder, "plan.json"), "--precision", "fp32"]);
    expect(await failed(["verify", join(folder, "artifact"), "--quiet"])).toBeUndefined();
  });

  it.skipIf(isBfloat)("compiles to what a loop over the file gives, or is refused with the reason", async () => {
    const reason = await failed(compileWords(file, ["--no-cache"]));
    const noise = noiseOf(1);
    const truth = await loop(name in NOWHERE ? PLAIN : file, noise);
    const moved = await loop(
      name in NOWHERE ? PLAIN : file,
      noise.map((value) => value * (1 + 1e-6)),
    );
    const latent = reason === undefined ? await artifactRun(noise).catch((error: unknown) => String(error)) : reason;
    if (typeof latent === "string") {
      expect(latent).toMatch(NOWHERE[name] ?? /^nothing is refused here$/);
      expect(latent).not.toMatch(/internal:|worth a report/);
      return;
    }
    // A network that rounds inside jumps: how far is seen from a small change of its input.
    const rounding = isHalf ? 1e-2 : 1e-5;
    expect(relativeL2(latent, truth)).toBeLessThanOrEqual(Math.max(rounding, 4 * relativeL2(moved, truth)));
  });

  it.skipIf(isBfloat || name in NOWHERE)("is verified with a plan, which saves what it saves of the plain export", async () => {
    const own = await compiled(file, ["--plan", join(folder, "plan.json")]);
    expect(await failed(["verify", join(folder, "artifact"), "--quiet"])).toBeUndefined();
    const plain = await compiled(PLAIN, ["--plan", join(folder, "plan.json")]);
    expect(own).toEqual(plain);
  });
});

const inspection = z.object({
  branches: z.array(z.object({ kind: z.string(), block: z.int(), stream: z.string(), gated: z.boolean(), macs: z.int() })),
  macs: z.object({ linear: z.int(), attention: z.int(), cacheable: z.int(), hoisted: z.int() }),
  warnings: z.array(z.string()),
});

async function inspected(file: string): Promise<z.infer<typeof inspection>> {
  const { exit, stdout, stderr } = await cli(["inspect", file, "--json", "--quiet"]);
  expect({ exit, stderr }).toEqual({ exit: 0, stderr: "" });
  return inspection.parse(JSON.parse(stdout));
}

function compileWords(file: string, words: readonly string[]): readonly string[] {
  const settings = ["--scheduler", join(folder, "scheduler_config.json"), "--steps", String(STEPS), "--input", `y=${LABEL}`];
  return ["compile", file, ...settings, ...words, "-o", join(folder, "artifact"), "--force", "--json"];
}

/** What the artifact saves in MACs. */
async function compiled(file: string, words: readonly string[]): Promise<number> {
  const { exit, stdout, stderr } = await cli(compileWords(file, words));
  expect({ exit, stderr }).toMatchObject({ exit: 0 });
  const { uncached, emitted } = z.object({ macs: z.object({ uncached: z.int(), emitted: z.int() }) }).parse(JSON.parse(stdout)).macs;
  return uncached - emitted;
}

/** What a command says that fails. */
async function failed(words: readonly string[]): Promise<string | undefined> {
  const { exit, stdout, stderr } = await cli(words);
  return exit === 0 ? undefined : stderr || stdout;
}

function noiseOf(seed: number): Float32Array {
  return Float32Array.from({ length: 32 }, (_, i) => 1.5 * Math.sin(seed + 7.3 * i * i));
}

async function artifactRun(noise: Float32Array): Promise<Float32Array> {
  const session = await ArtifactSession.open(join(folder, "artifact", FILES.model), { threads: 1 });
  const latent = await session.run(new Map([["x", tensorOf("float", [1, 2, 4, 4], noise)], ["y", tensorOf("int64", [1], [LABEL])]])); // prettier-ignore
  await session.close();
  return latent;
}

/** DDIM (arXiv 2010.02502), eta 0, over the file as it is, with the runtime's optimiser off. */
async function loop(file: string, noise: Float32Array): Promise<Float32Array> {
  const { graph } = await readModel(file);
  const elemOf = new Map(graph.inputs.map(({ name, type }) => [name, type?.elem ?? "float"]));
  const options = { threads: 1, prepack: false } as const;
  // Of some files in half precision the runtime makes graphs that it loads with its optimiser only.
  const session = await Session.open(file, { ...options, optimise: "disabled" }).catch(() =>
    Session.open(file, { ...options, optimise: "basic" }),
  );
  const alphas: number[] = [];
  for (let t = 0; t < 1000; t++) alphas.push((alphas[t - 1] ?? 1) * (1 - (1e-4 + ((0.02 - 1e-4) * t) / 999)));
  const floats = (name: string, shape: readonly number[], values: ArrayLike<number>) => {
    const elem = elemOf.get(name) ?? "float";
    return isFloatType(elem) ? convertTensor(tensorOf("float", shape, values), elem) : tensorOf(elem, shape, values);
  };
  let x = noise;
  for (let t = 1000 - 1000 / STEPS; t >= 0; t -= 1000 / STEPS) {
    const feeds = new Map([["x", floats("x", [1, 2, 4, 4], x)], ["t", floats("t", [1], [t])], ["y", tensorOf("int64", [1], [LABEL])]]); // prettier-ignore
    const [out] = [...(await session.run(feeds)).values()];
    const epsilon = out ? tensorNumbers(out) : [];
    const [alpha = 1, next = 1] = [alphas[t], alphas[t - 1000 / STEPS]];
    x = x.map((value, i) => {
      const clean = (value - Math.sqrt(1 - alpha) * (epsilon[i] ?? NaN)) / Math.sqrt(alpha);
      return Math.sqrt(next) * clean + Math.sqrt(1 - next) * (epsilon[i] ?? NaN);
    });
  }
  await session.close();
  return x;
}
