/** Several artifacts of one build: each is what it would be alone, and all of them have one data file. */
import { createHash } from "node:crypto";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { onnx } from "onnx-proto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { freeValues } from "../ir/analysis.js";
import { parse } from "../ir/parse.js";
import { encodeModel, SharedData, writeModel } from "../ir/onnx/index.js";
import { cli, type Ran } from "./support/cli.js";
import { fixtureNamed } from "./support/fixtures.js";
import { rejectedCodeOf, rejectionOf, thrownBy } from "./support/thrown.js";
import { build, type BuildOptions, buildSet } from "../src/build.js";
import { readNpy } from "../src/files/npy.js";
import { openJobSource, type RecipeOverrides } from "../src/job/source.js";
import { variantsOf } from "../src/job/variants.js";

const home = mkdtempSync(join(tmpdir(), "smoothcc-variants-"));
afterAll(() => {
  rmSync(home, { recursive: true, force: true });
});

const CLI = resolve(import.meta.dirname, "..", "dist", "src", "cli", "cli.js");
const QUICK = ["--policy", "fora", "--interval", "2", "--threads", "1"];

/** A build without timed runs, in this process. */
function quickly(output: string, overrides: RecipeOverrides = {}, more: Partial<BuildOptions> = {}): BuildOptions {
  return { output, overrides, policy: "fora", policyOptions: { interval: "2" }, runs: 0, threads: 1, ...more };
}

/** Numbers that differ from weight to weight. */
const weight = (name: string, rows: number, columns: number, seed: number): string =>
  `float[${rows},${columns}] ${name} = {${Array.from({ length: rows * columns }, (_, i) => (Math.sin(seed + 1.7 * i) / 4).toFixed(3)).join(", ")}}`;

/** A transformer of two blocks on a latent of any height and width; some weights stand transposed, so that compiling makes others of them. */
function anySize(): string {
  const blocks = [0, 1].map(
    (
      i,
    ) => `q${i} = MatMul(h${i}, wq${i}) k${i} = MatMul(h${i}, wk${i}) v${i} = MatMul(h${i}, wv${i}) kt${i} = Transpose<perm = [0, 2, 1]>(k${i})
      s${i} = MatMul(q${i}, kt${i}) p${i} = Softmax<axis = -1>(s${i}) a${i} = MatMul(p${i}, v${i}) o${i} = MatMul(a${i}, wo${i})
      go${i} = Mul(gate, o${i}) m${i} = Add(h${i}, go${i})
      up${i} = Transpose<perm = [1, 0]>(wu${i}) u${i} = MatMul(m${i}, up${i}) t${i} = Tanh(u${i}) d${i} = MatMul(t${i}, wd${i})
      gd${i} = Mul(gate, d${i}) h${i + 1} = Add(m${i}, gd${i})`,
  );
  const weights = [0, 1].flatMap((i) => [
    ...["q", "k", "v", "o"].map((name, j) => weight(`w${name}${i}`, 16, 16, 10 * i + j)),
    weight(`wu${i}`, 64, 16, 30 + i),
    weight(`wd${i}`, 64, 16, 40 + i),
  ]);
  const freq = `float[1,16] freq = {${Array.from({ length: 16 }, (_, i) => 0.01 * (i + 1)).join(", ")}}`;
  return `<ir_version: 8, opset_import: ["" : 17]>
    step (float[batch,4,height,width] hidden_states, float[batch] timestep) => (float[batch,4,height,width] out_hidden_states)
    <${[...weights, weight("w_in", 4, 16, 50), weight("w_out", 16, 4, 51), freq, "int64[1] one = {1}", "int64[3] flat = {0, 4, -1}"].join(", ")}> {
      shape = Shape(hidden_states) rows = Reshape(hidden_states, flat) tokens = Transpose<perm = [0, 2, 1]>(rows) h0 = MatMul(tokens, w_in)
      column = Unsqueeze(timestep, one) angle = Mul(column, freq) sine = Sin(angle) gate = Unsqueeze(sine, one)
      ${blocks.join("\n      ")}
      y = MatMul(h2, w_out) back = Transpose<perm = [0, 2, 1]>(y) out_hidden_states = Reshape(back, shape)
    }`;
}

const DECODER = `<ir_version: 8, opset_import: ["" : 17]>
  decode (float[batch,4,h,w] latent_sample) => (float[batch,3,rows,columns] sample)
  <float[4,3,2,2] kernel = {${Array.from({ length: 48 }, (_, i) => Math.sin(i).toFixed(3)).join(", ")}}> {
    sample = ConvTranspose<strides = [2, 2]>(latent_sample, kernel)
  }`;

/** A folder as diffusers saves it, of the class SD3, in which one latent element is two pixels and a token is two elements, on each side. */
function diffusersFolder(className = "StableDiffusion3Pipeline"): string {
  const folder = mkdtempSync(join(home, "model-"));
  const write = (file: string, content: string | Uint8Array): void => {
    mkdirSync(join(folder, file, ".."), { recursive: true });
    writeFileSync(join(folder, file), content);
  };
  write("model_index.json", JSON.stringify({ _class_name: className }));
  write("transformer/config.json", JSON.stringify({ sample_size: 8, patch_size: 2, in_channels: 4 }));
  write("scheduler/scheduler_config.json", JSON.stringify({ _class_name: "FlowMatchEulerDiscreteScheduler" }));
  write("vae/config.json", JSON.stringify({ block_out_channels: [4, 8] }));
  write("transformer/model.onnx", encodeModel(parse(anySize())));
  write("vae_decoder/model.onnx", encodeModel(parse(DECODER)));
  return folder;
}

/** Where the constants of a model file lie in data files, as an independent reader decodes it. */
function externals(file: string): { readonly location: string; readonly offset: number; readonly length: number }[] {
  const { graph } = onnx.ModelProto.decode(readFileSync(file));
  return (graph?.initializer ?? []).flatMap(({ externalData = [] }) => {
    const said = new Map(externalData?.map(({ key, value }) => [key, value ?? ""]));
    const location = said.get("location");
    return location === undefined ? [] : [{ location, offset: Number(said.get("offset")), length: Number(said.get("length")) }];
  });
}

/** The contents in the data file of an artifact's model by their digests, with the places where they stand. */
function contents(folder: string): Map<string, Set<number>> {
  const data = readFileSync(join(folder, "model.onnx.data"));
  const found = new Map<string, Set<number>>();
  for (const { offset, length } of externals(join(folder, "model.onnx"))) {
    const digest = createHash("sha256")
      .update(data.subarray(offset, offset + length))
      .digest("hex");
    found.set(digest, (found.get(digest) ?? new Set()).add(offset));
  }
  return found;
}

/** The bytes on disk of what lies in a folder and ends so, each file counted once. */
function bytesOnDisk(folder: string, ending: string): number {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(ending));
  return [...new Map(files.map((file) => [statSync(join(folder, file)).ino, statSync(join(folder, file)).size])).values()].reduce(
    (a, b) => a + b,
    0,
  );
}

const builtSchema = z.object({
  variants: z.record(z.string(), z.object({ artifact: z.string(), compile: z.object({ sharesWeights: z.boolean() }) })),
  bytes: z.object({ model: z.number(), data: z.number() }),
  report: z.string(),
});

/** Runs the built program, as benches need its files. */
function program(argv: readonly string[]): Promise<Ran> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [CLI, ...argv], { stdio: ["ignore", "pipe", "pipe"] });
    const texts = { stdout: "", stderr: "" };
    child.stdout.on("data", (chunk) => (texts.stdout += String(chunk)));
    child.stderr.on("data", (chunk) => (texts.stderr += String(chunk)));
    child.on("close", (exit) => {
      done({ exit, ...texts });
    });
  });
}

async function succeed(argv: readonly string[]): Promise<Ran> {
  const ran = await cli(argv);
  expect(ran.exit, ran.stderr).toBe(0);
  return ran;
}

describe("two sizes and two numbers of steps", () => {
  const out = join(home, "out");
  const names = ["16x16,steps=4", "wide"];
  let model = "";
  let built: z.infer<typeof builtSchema>;
  beforeAll(async () => {
    model = diffusersFolder();
    const { exit, stdout, stderr } = await program(["build", model, ...QUICK, "--runs", "1", "--steps", "5", "--variant", "16x16,steps=4", "--variant", "wide:16x24", "-o", out, "--quiet", "--json"]); // prettier-ignore
    expect(exit, stderr).toBe(0);
    built = builtSchema.parse(JSON.parse(stdout));
  });

  it("make an artifact each, of the sizes and steps that are asked for", () => {
    expect(Object.keys(built.variants)).toEqual(names);
    const said = names.map((name) => z.looseObject({ steps: z.int(), outputs: z.array(z.looseObject({ shape: z.array(z.int()) })) }).parse(JSON.parse(readFileSync(join(out, name, "manifest.json"), "utf8")))); // prettier-ignore
    expect(said.map(({ steps, outputs }) => [steps, ...outputs.map(({ shape }) => shape)])).toEqual([
      [4, [1, 4, 8, 8], [1, 3, 16, 16]],
      [5, [1, 4, 8, 12], [1, 3, 16, 24]],
    ]);
  });

  it("have one data file, which holds the constants of both once", () => {
    const files = names.map((name) => join(out, name, "model.onnx.data"));
    expect(new Set(files.map((file) => statSync(file).ino)).size).toBe(1);
    expect(Object.values(built.variants).map(({ compile }) => compile.sharesWeights)).toEqual([true, true]);
    const all = names.flatMap((name) => externals(join(out, name, "model.onnx")));
    // Nothing else is needed beside the model.
    expect(new Set(all.map(({ location }) => location))).toEqual(new Set(["model.onnx.data"]));
    const places = [...new Map(all.map(({ offset, length }) => [offset, length]))].sort(([a], [b]) => a - b);
    expect(places.length).toBeGreaterThan(10);
    // The file is these places and less than a page in front of each.
    let end = 0;
    for (const [offset, length] of places) {
      expect(offset - end).toBeGreaterThanOrEqual(0);
      expect(offset - end).toBeLessThan(length >= 1 << 16 ? 1 << 16 : 64);
      end = offset + length;
    }
    expect(statSync(files[0] ?? "").size).toBe(end);
    expect(built.bytes.data).toBe(end);
    expect(bytesOnDisk(out, "model.onnx.data")).toBe(end);
    // What both read stands at one place.
    const [first = new Map<string, Set<number>>(), second = new Map<string, Set<number>>()] = names.map((name) =>
      contents(join(out, name)),
    );
    const common = [...first.keys()].filter((digest) => second.has(digest));
    expect(common.length).toBeGreaterThan(8);
    for (const digest of common) expect(second.get(digest)).toEqual(first.get(digest));
  });

  it("are what they are when each is built alone, in a fraction of the bytes", async () => {
    const alone = join(home, "alone");
    const outputs: Buffer[][] = [];
    for (const [name, overrides] of [
      ["16x16,steps=4", { size: [16, 16], steps: 4 }],
      ["wide", { size: [16, 24], steps: 5 }],
    ] as const) {
      await build(model, quickly(join(alone, name), overrides));
      const results = [join(alone, name), join(out, name)].map((folder, i) => ({ folder, file: join(home, `${name}-${i}.npy`) }));
      for (const { folder, file } of results) await succeed(["run", folder, "--seed", "3", "--threads", "1", "--quiet", "-o", file]);
      outputs.push(results.map(({ file }) => readFileSync(file)));
      // The same constants, wherever they stand.
      expect([...contents(join(out, name)).keys()].sort()).toEqual([...contents(join(alone, name)).keys()].sort());
    }
    for (const [expected, found] of outputs) expect(found).toEqual(expected);
    expect(outputs[0]?.[0]).not.toEqual(outputs[1]?.[0]);
    const separate = bytesOnDisk(alone, "model.onnx.data");
    expect(built.bytes.data).toBeLessThan(0.6 * separate);
  });

  it("are verified and run by name; without one, a run is told which there are", async () => {
    const verified = z.object({ ok: z.literal(true), variants: z.record(z.string(), z.looseObject({ ok: z.literal(true) })) });
    const { stdout } = await succeed(["verify", out, "--threads", "1", "--quiet", "--json"]);
    expect(Object.keys(verified.parse(JSON.parse(stdout)).variants)).toEqual(names);
    await succeed(["verify", join(out, "wide"), "--threads", "1", "--quiet"]);
    const [byName, byFolder] = [join(home, "by-name.npy"), join(home, "by-folder.npy")];
    await succeed(["run", out, "--variant", "wide", "--quiet", "-o", byName]);
    await succeed(["run", join(out, "wide"), "--quiet", "-o", byFolder]);
    expect(readFileSync(byName)).toEqual(readFileSync(byFolder));
    const fails = async (...argv: string[]): Promise<string> => {
      const { exit, stderr } = await cli([...argv, "-o", join(home, "no.npy")]);
      expect(exit).toBe(2);
      return stderr;
    };
    expect(await fails("run", out)).toContain("error SEVERAL_ARTIFACTS: The folder has several artifacts: 16x16,steps=4, wide.");
    expect(await fails("run", out, "--variant", "wyde")).toContain("There is no variant 'wyde'.\n  Did you mean 'wide'?");
    expect(await fails("run", out, "--variant", "../out/wide")).toContain("There is no variant '../out/wide'");
    expect(await fails("run", join(out, "wide"), "--variant", "wide")).toContain("this one is an artifact itself");
    expect(await fails("run", out, "--variant", "wide", "--variant", "16x16,steps=4")).toContain("can be given once here");
  });

  it("fail a verification together if one fails", async () => {
    const copy = join(home, "damaged");
    await buildSet(model, quickly(copy, { size: [16, 16] }), { variants: ["steps=4", "steps=3"] });
    const file = join(copy, "steps=3", "plan.json");
    writeFileSync(file, readFileSync(file, "utf8").replace("fora", "forb"));
    const { exit, stdout } = await cli(["verify", copy, "--threads", "1", "--quiet", "--json"]);
    expect([exit, z.looseObject({ ok: z.boolean() }).parse(JSON.parse(stdout)).ok]).toEqual([1, false]);
  });

  it("are packaged as models of one data file", async () => {
    const repository = join(home, "repository");
    const { stdout } = await succeed(["serve-package", out, "-o", repository, "--json"]);
    const packaged = z.object({ variants: z.record(z.string(), z.looseObject({ name: z.string() })) }).parse(JSON.parse(stdout));
    expect(Object.values(packaged.variants).map(({ name }) => name)).toEqual(["out-16x16_steps_4", "out-wide"]);
    const data = readdirSync(repository).map((name) => statSync(join(repository, name, "1", "model.onnx", "model.onnx.data")).ino);
    expect(new Set([...data, statSync(join(out, "wide", "model.onnx.data")).ino]).size).toBe(1);
    await succeed(["serve-package", out, "--variant", "wide", "--name", "one", "-o", join(home, "single")]);
    expect(readdirSync(join(home, "single"))).toEqual(["one-wide"]);
  });

  it("are compared on a page that loads nothing", async () => {
    for (const remake of [false, true]) {
      if (remake) expect(await program(["report", out, "--runs", "1", "--threads", "1", "--quiet"])).toMatchObject({ exit: 0 });
      const page = readFileSync(join(out, "report.html"), "utf8");
      const links = [...page.matchAll(/href="([^"]+)"/g)].map(([, link = ""]) => link);
      expect(links.length).toBeGreaterThanOrEqual(names.length);
      for (const link of links) expect(existsSync(join(out, decodeURIComponent(link)))).toBe(true);
      for (const shown of ["image <small>1 × 3 × 16 × 24</small>", "16x16,steps=4", "2 variants"]) expect(page).toContain(shown);
      expect(page).not.toMatch(/src=|https?:|NaN|undefined/);
      expect(await cli(["verify", out, "--threads", "1", "--quiet"])).toMatchObject({ exit: 0 });
    }
  });

  it("are replaced together, with --force alone, and with nothing of another's", async () => {
    const again = (force: boolean): Promise<unknown> =>
      buildSet(model, quickly(out, { size: [16, 16] }, { force }), { variants: ["steps=3"] });
    expect(await rejectedCodeOf(again(false))).toBe("FILE_EXISTS");
    writeFileSync(join(out, "wide", "mine.txt"), "");
    expect((await rejectionOf(again(true)))?.message).toContain("'wide/mine.txt' in it is not of a folder of variants");
    rmSync(join(out, "wide", "mine.txt"));
    await again(true);
    expect(readdirSync(out).sort()).toEqual(["SHA256SUMS", "report.html", "steps=3", "variants.json"]);
  });
});

const NOTHING = { overrides: {}, policyOptions: {} };

describe("variants of a recipe", () => {
  const dit = fixtureNamed("dit/dynamo-20");
  const model = join(home, "dit");
  beforeAll(() => {
    mkdirSync(model);
    writeFileSync(join(model, "model.onnx"), readFileSync(dit.model));
    writeFileSync(join(model, "scheduler_config.json"), readFileSync(dit.scheduler));
  });
  const recipe = (variants: unknown): void => {
    const said = { model: "model.onnx", scheduler: "scheduler_config.json", inputs: { class_labels: { calibrate: [1] } }, variants };
    writeFileSync(join(model, "recipe.json"), JSON.stringify(said));
  };
  const stepsIn = (folder: string): Record<string, number> =>
    Object.fromEntries(
      readdirSync(folder, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map(({ name }) => [
          name,
          z.looseObject({ steps: z.int() }).parse(JSON.parse(readFileSync(join(folder, name, "manifest.json"), "utf8"))).steps,
        ]),
    );

  it("are all built, or those that are named; the command line goes before the recipe", async () => {
    recipe({ quick: { steps: 3, policy: { interval: 3 } }, slow: { steps: 6 } });
    await buildSet(model, quickly(join(home, "all")));
    expect(stepsIn(join(home, "all"))).toEqual({ quick: 3, slow: 6 });
    // An artifact is one of them, and has none itself.
    expect(readFileSync(join(home, "all", "quick", "recipe.json"), "utf8")).not.toContain("variants");
    await buildSet(model, quickly(join(home, "some"), { steps: 5 }), { variants: ["quick", "own:steps=4"] });
    expect(stepsIn(join(home, "some"))).toEqual({ quick: 5, own: 4 });
    recipe(["steps=3", "four:steps=4"]);
    await buildSet(model, quickly(join(home, "listed")));
    expect(stepsIn(join(home, "listed"))).toEqual({ four: 4, "steps=3": 3 });
  });

  it("are inspected and compiled one by one", async () => {
    recipe({ short: { steps: 4 }, long: { steps: 6 } });
    const out = join(home, "compiled");
    await succeed(["compile", model, "--variant", "short", "--no-cache", "--quiet", "-o", out]);
    expect(z.looseObject({ steps: z.int() }).parse(JSON.parse(readFileSync(join(out, "manifest.json"), "utf8"))).steps).toBe(4);
    const wide = await succeed(["inspect", diffusersFolder(), "--variant", "16x24", "--json"]);
    const inputs = z.object({ inputs: z.array(z.object({ name: z.string(), shape: z.array(z.int()) })) }).parse(JSON.parse(wide.stdout));
    expect(inputs.inputs[0]).toMatchObject({ name: "hidden_states", shape: [2, 4, 8, 12] });
    expect((await cli(["inspect", model, "--variant", "short", "--variant", "long"])).stderr).toContain("can be given once here");
  });

  it("have tiers each", async () => {
    recipe({ short: { steps: 10 }, long: { steps: 12 } });
    const out = join(home, "tiers");
    const budget = { policy: "budget", policyOptions: { fit: "none" }, samples: 2 };
    await buildSet(model, quickly(out, {}, budget), { tiers: ["fast", "balanced"] });
    const folders = ["short/fast", "short/balanced", "long/fast", "long/balanced"].map((name) => join(out, name));
    expect(new Set(folders.map((folder) => statSync(join(folder, "model.onnx.data")).ino)).size).toBe(1);
    await succeed(["verify", out, "--variant", "long/fast", "--threads", "1", "--quiet"]);
  });

  it.each([
    ["../up:steps=3", "its name is that of a folder"],
    ["a/b:steps=3", "its name is that of a folder"],
    [".hidden:steps=3", "its name is that of a folder"],
    ["report.html:steps=3", "its name is that of a folder"],
    ["nul\0:steps=3", "its name is that of a folder"],
    ["steps=0", "steps: Too small"],
    ["steps=x", "steps: Invalid input"],
    ["steps=3,steps=4", "it says steps twice"],
    ["wide", "neither a size in pixels"],
    ["", "neither a size in pixels"],
    ["0x8", "takes sizes from 1 up"],
  ])("%j is refused", (text, problem) => {
    recipe(undefined);
    const refusal = thrownBy(() => variantsOf(model, NOTHING, [text]));
    expect(refusal?.code).toBe("BAD_VARIANT");
    expect(refusal?.message).toContain(problem);
  });

  it("of one name are refused, in a list, on the command line, and where case alone tells them apart", () => {
    recipe(["steps=3", "steps=3"]);
    expect(() => variantsOf(model, NOTHING)).toThrow("there are two of this name");
    expect(() => variantsOf(model, NOTHING, ["a:steps=3", "A:steps=4"])).toThrow("there are two of this name");
  });
});

describe("data files that several models share", () => {
  it("take equal constants of models that were made apart once, and stand for them in memory", async () => {
    const folder = mkdtempSync(join(home, "data-"));
    const data = new SharedData(folder, true);
    const [one, other] = [parse(anySize()), parse(anySize())];
    await data.add(one, "shared.data");
    const bytes = statSync(join(folder, "shared.data")).size;
    expect(bytes).toBeGreaterThanOrEqual(2 * (4 * 1024 + 2 * 4096));
    await data.add(other, "shared.data");
    expect(statSync(join(folder, "shared.data")).size).toBe(bytes);
    expect(data.digests().get("shared.data")).toBe(
      createHash("sha256")
        .update(readFileSync(join(folder, "shared.data")))
        .digest("hex"),
    );
    // What is left in memory is small, and what is written is the same.
    const left = data.onDisk(other);
    const held = freeValues(left.graph).flatMap((value) => (value.data?.content.kind === "bytes" ? [value.data.content.bytes.length] : []));
    expect(held.length).toBeGreaterThan(0);
    expect(Math.max(...held)).toBeLessThan(1024);
    for (const [name, model] of Object.entries({ one, other, left })) {
      const { dataBytes, reads } = await writeModel(model, join(folder, `${name}.onnx`), { written: data.written });
      expect([dataBytes, [...reads]]).toEqual([0, ["shared.data"]]);
    }
    const written = ["one", "other", "left"].map((name) => readFileSync(join(folder, `${name}.onnx`)).toString("base64"));
    expect(new Set(written).size).toBe(1);
  });
});

describe("sizes in pixels", () => {
  /** What diffusers' pipelines made of the latents of these exports. */
  it.each(["sd3", "flux", "pixart", "sana", "aura_flow", "wan", "wan22"])("are those of diffusers: %s", async (family) => {
    const folder = join(import.meta.dirname, "fixtures/complete", family);
    const size = readNpy(join(folder, "reference/decoded.npy")).shape.slice(-2);
    await openJobSource(folder, { size });
    expect(await rejectedCodeOf(openJobSource(folder, { size: size.map((side) => 2 * side) }))).toBe("BAD_SIZE");
  });

  it("are nothing that is known of LTX, which has its sizes inside, and of audio", async () => {
    for (const family of ["ltx", "stable_audio"])
      expect(await rejectedCodeOf(openJobSource(join(import.meta.dirname, "fixtures/complete", family), { size: [16, 16] }))).toBe(
        "BAD_SIZE",
      );
  });
});

describe("sizes in pixels are refused", () => {
  const refusal = async (model: string, size: string): Promise<string> => (await cli(["inspect", model, "--size", size])).stderr;

  it("where no token is so small, where the export is of another size, and where nobody knows what they mean", async () => {
    expect(await refusal(diffusersFolder(), "16x18")).toMatch(
      /BAD_SIZE: There is no result of 16x18 pixels: one token .* is 4 by 4 pixels.\n.*16x20/,
    );
    expect(await refusal(join(import.meta.dirname, "fixtures/complete/sd3"), "16x16")).toContain(
      "the export is for latents of [batch_size, 16, 8, 12]",
    );
    expect(await refusal(diffusersFolder("LTXPipeline"), "16x16")).toContain("what they decide in a LTXPipeline is not known here");
    expect(await refusal(fixtureNamed("dit/dynamo-20").model, "16x16")).toContain("only the pipeline of a diffusers folder says");
  });

  it("but not that of an export of fixed size", async () => {
    expect(await cli(["inspect", join(import.meta.dirname, "fixtures/complete/sd3"), "--size", "16x24"])).toMatchObject({ exit: 0 });
  });
});

describe("a build of variants that does not end well leaves nothing", () => {
  const parent = join(home, "unfinished");
  const out = join(parent, "out");
  let model = "";
  beforeAll(() => {
    model = diffusersFolder();
    mkdirSync(parent);
  });

  it("where a variant is refused", async () => {
    const refused = buildSet(model, quickly(out, { size: [16, 16] }), { variants: ["steps=3", "steps=4,lenght=3"] });
    expect((await rejectionOf(refused))?.message).toContain("There is no symbolic dimension 'lenght'");
    expect(readdirSync(parent)).toEqual([]);
  });

  it("where it is cancelled while artifacts are being checked", async () => {
    const controller = new AbortController();
    let seen = "";
    const progress = (stage: string): void => {
      if (stage !== "verify") return;
      seen = readdirSync(parent).join();
      controller.abort();
    };
    const cancelled = buildSet(model, quickly(out, { size: [16, 16] }, { progress, signal: controller.signal }), {
      variants: ["steps=3", "steps=4"],
    });
    expect(await rejectedCodeOf(cancelled)).toBe("CANCELLED");
    expect(seen).toMatch(/partial$/);
    expect(readdirSync(parent)).toEqual([]);
  });

  it("where it is killed, but what the next one clears up", async () => {
    const argv = ["build", model, ...QUICK, "--size", "16x16", "--variant", "steps=3", "--variant", "steps=4", "-o", out];
    const child = spawn(process.execPath, [CLI, ...argv], { stdio: "ignore" });
    const closed = new Promise((done) => child.once("close", done));
    const isThere = (): boolean => readdirSync(parent).some((name) => existsSync(join(parent, name, "steps=3", "manifest.json")));
    while (!isThere() && child.exitCode === null) await new Promise((done) => setTimeout(done, 2));
    child.kill("SIGKILL");
    await closed;
    expect(readdirSync(parent)).toEqual([expect.stringMatching(/^\.out\..*\.partial$/)]);
    await buildSet(model, quickly(out, { size: [16, 16] }), { variants: ["steps=3", "steps=4"] });
    expect(readdirSync(parent)).toEqual(["out"]);
  });
});
