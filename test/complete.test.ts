/**
 * Whole pipelines, from token ids to pixels or samples: folders as optimum exports them, of small networks with random weights, against what
 * diffusers' own pipelines made of the same ids and noise (`fixtures/complete/generate.py`; `reference/reference.json` says what is what).
 */
import { copyFileSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { ditView, inputValue, type Model, type Value, withGraph } from "../ir/graph.js";
import { readModel, writeModel } from "../ir/onnx/index.js";
import { rewrite } from "../ir/rewrite.js";
import { type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { COMPANION_PASSES, runPasses } from "../passes/index.js";
import { latentShape, NO_COMPANIONS, relativeL2 } from "../schedules/index.js";
import { feedsOf, openArtifact, writeArtifact } from "../src/artifact/artifact.js";
import { verify } from "../src/artifact/verify.js";
import type { Compiled } from "../src/compile/compile.js";
import { readJson } from "../src/files/json.js";
import { readNpy, writeNpy } from "../src/files/npy.js";
import { conditionsOf } from "../src/job/conditions.js";
import { type Job, openJob } from "../src/job/job.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import type { RecipeOverrides } from "../src/job/source.js";
import { AS_WRITTEN, Session } from "../src/runtime/session.js";
import { cli } from "./support/cli.js";
import { compiledFrom, everySecond, folderOf, numbersIn, opened, RUNTIME, startIn } from "./support/complete.js";

/** Measured on the results of decoders: LTX 2.0e-6, Stable Audio 1.6e-6, the others 4.5e-7 to 7.8e-7; their latents likewise. */
const LIMIT = 1e-5;

const FAMILIES = [
  { family: "sd3", result: "image", inputs: ["input_ids", "input_ids_2", "input_ids_3"] },
  { family: "flux", result: "image", inputs: ["input_ids", "input_ids_2"] },
  { family: "pixart", result: "image", inputs: ["input_ids", "attention_mask"] },
  { family: "sana", result: "image", inputs: ["input_ids", "attention_mask"] },
  { family: "aura_flow", result: "image", inputs: ["input_ids", "attention_mask"] },
  { family: "wan", result: "video", inputs: ["input_ids", "attention_mask"] },
  { family: "wan22", result: "video", inputs: ["input_ids", "attention_mask"] },
  { family: "ltx", result: "video", inputs: ["input_ids", "attention_mask"] },
  { family: "stable_audio", result: "audio", inputs: ["input_ids", "attention_mask", "start_seconds", "end_seconds"] },
] as const;

/** Whether diffusers guides by a negative prompt: all but FLUX, which is told its scale. */
function guides(family: string): boolean {
  return family !== "flux";
}

/** [rows, channels, height, width] as FLUX's tokens of two by two elements. */
function packed({ shape: [rows = 1, channels = 1, height = 1, width = 1], ...data }: TensorData): TensorData {
  const numbers = tensorNumbers({ ...data, shape: [rows, channels, height, width] });
  const [down, across] = [height / 2, width / 2];
  const tokens = Array.from({ length: rows * channels * height * width }, (_, i) => {
    const [element, token] = [i % (4 * channels), Math.floor(i / (4 * channels))];
    const [channel, y, x] = [Math.floor(element / 4), Math.floor((element % 4) / 2), element % 2];
    const [row, line, column] = [Math.floor(token / (down * across)), Math.floor(token / across) % down, token % across];
    return numbers[((row * channels + channel) * height + 2 * line + y) * width + 2 * column + x] ?? NaN;
  });
  return tensorOf("float", [rows, down * across, 4 * channels], tokens);
}

/** The distances of a model's outputs from what diffusers recorded. */
async function distances(model: Model, folder: string, job: Job): Promise<Readonly<Record<string, number>>> {
  const session = await Session.open(model, { ...RUNTIME, ...AS_WRITTEN });
  try {
    const outputs = await session.run(feedsOf(job, startIn(folder, job)));
    const recorded = (name: string): readonly number[] => numbersIn(folder, name === "latent" ? "latent" : "decoded");
    return Object.fromEntries(Array.from(outputs, ([name, data]) => [name, relativeL2(tensorNumbers(data), recorded(name))]));
  } finally {
    await session.close();
  }
}

/** The nodes of networks in front of the run that the unconditional half has for itself. */
function ofNegativePrompt({ graph }: Model, { network }: Job): readonly string[] {
  const prefixes = network.companions.before.flatMap(({ name, file }) => (file === undefined ? [] : [`${name}/uncond/`]));
  return graph.nodes.map(({ name }) => name).filter((name) => prefixes.some((prefix) => name.startsWith(prefix)));
}

describe.each(FAMILIES)("$family", ({ family, result, inputs }) => {
  let folder: string;
  let job: Job;
  let compiled: Compiled;
  beforeAll(async () => {
    folder = folderOf(family);
    job = await opened(folder);
    compiled = await compiledFrom(job);
  });

  it("takes token ids and gives what diffusers gives", async () => {
    const { graph } = compiled.uncached;
    const negative = inputs.filter((name) => /^(input_ids|attention_mask)/.test(name)).map((name) => `${name}_uncond`);
    const all = [
      ditView(job.model).latent,
      ...inputs,
      ...(guides(family) ? negative : []),
      ...(family === "stable_audio" ? ["noise"] : []),
    ];
    expect(graph.inputs.map(({ name }) => name).sort()).toEqual(all.sort());
    const found = await distances(compiled.uncached, folder, job);
    expect(Object.keys(found)).toEqual(["latent", result]);
    for (const distance of Object.values(found)) expect(distance).toBeLessThan(LIMIT);
  });

  it("is verified with a plan, in all that it gives", async () => {
    const target = join(folder, "out");
    await writeArtifact(target, { job, schedule: everySecond(job), compiled }, false);
    const { ok, checks, fidelity, shown } = await verify(await openArtifact(target, RUNTIME), RUNTIME);
    expect(ok, JSON.stringify(checks)).toBe(true);
    const same = checks.filter(({ name }) => name.endsWith("loop") || name.startsWith("artifact"));
    expect(same).toHaveLength(2);
    for (const { limit } of same) expect(limit).toBe(1e-5);
    // The plan matters, and what is shown is the last result.
    expect(fidelity.relL2).toBeGreaterThan(0.01);
    expect(shown.shape).toEqual(readNpy(join(folder, "reference/decoded.npy")).shape);
  });

  it("has a CUDA kernel for every node", () => {
    expect(compiled.cuda).toMatchObject({ missing: [], copies: [], kernels: compiled.nodes.emitted });
  });

  it("has the nodes of what stands behind its latent, and otherwise those that it has without", async () => {
    const { run, questions } = job;
    const { after } = run.companions ?? NO_COMPANIONS;
    const alone = await Promise.all(after.map(({ model }) => runPasses(model, COMPANION_PASSES, { ...questions, run })));
    const added = alone.reduce((nodes, { graph }) => nodes + graph.nodes.length, 0);
    expect(added).toBeGreaterThan(50);
    const without = await compiledFrom(await opened(folder, { stopAt: "latent" }));
    expect(without.model.graph.outputs.map(({ name }) => name)).toEqual(["latent"]);
    const { step, uncached, emitted } = without.nodes;
    expect(compiled.nodes).toEqual({ step, uncached: uncached + added, emitted: emitted + added });
  });

  it.runIf(guides(family))("has nothing of the negative prompt's encoders where that prompt is known", async () => {
    expect(ofNegativePrompt(compiled.uncached, job).length).toBeGreaterThan(10);
    const known = folderOf(family, "constant");
    const constant = await opened(known);
    const { uncached } = await compiledFrom(constant);
    expect(ofNegativePrompt(uncached, constant)).toEqual([]);
    expect(uncached.graph.inputs.some(({ name }) => name.endsWith("_uncond"))).toBe(false);
    for (const distance of Object.values(await distances(uncached, known, constant))) expect(distance).toBeLessThan(LIMIT);
  });
});

it("gives the same in the other form, and the result alone where that is asked for", async () => {
  const folder = folderOf("pixart");
  const job = await opened(folder, { latent: false });
  const compiled = await compiledFrom(job, everySecond(job), "loop");
  expect(Object.values(await distances(compiled.uncached, folder, job))).toEqual([expect.closeTo(0, 5)]);
  const target = join(folder, "out");
  await writeArtifact(target, { job, schedule: everySecond(job), compiled }, false);
  const artifact = await openArtifact(target, RUNTIME);
  expect(artifact.manifest.outputs.map(({ name }) => name)).toEqual(["image"]);
  const { ok, checks } = await verify(artifact, RUNTIME);
  expect([ok, checks.map(({ name }) => name)]).toEqual([
    true,
    ["files have the digests of SHA256SUMS", "image = the networks behind the loop", "lifted step = exported step"],
  ]);
});

it.each([
  { family: "pixart", embeddings: ["encoder_hidden_states", "encoder_attention_mask"] },
  { family: "sd3", embeddings: ["encoder_hidden_states", "pooled_projections"] },
])("$family takes embeddings in place of ids where they are given", async ({ family, embeddings }) => {
  const folder = folderOf(family);
  for (const name of embeddings) {
    const both = readNpy(join(folder, "reference/given/0", `${name}.npy`));
    const row = [1, ...both.shape.slice(1)];
    const [negative, prompt] = halvesOf(tensorNumbers(both));
    await writeNpy(join(folder, `calibrate/${name}.npy`), tensorOf(both.elem, row, prompt));
    await writeNpy(join(folder, `uncond/${name}.npy`), tensorOf(both.elem, row, negative));
  }
  const job = await opened(folder);
  expect([...conditionsOf(job, 0).keys()]).toEqual(embeddings);
  const { uncached } = await compiledFrom(job);
  for (const distance of Object.values(await distances(uncached, folder, job))) expect(distance).toBeLessThan(LIMIT);
});

it("goes without networks that are not there", async () => {
  const folder = folderOf("pixart");
  rmSync(join(folder, "vae_decoder"), { recursive: true });
  const withEncoder = await opened(folder);
  rmSync(join(folder, "text_encoder"), { recursive: true });
  rmSync(join(folder, "calibrate"), { recursive: true });
  const without = await opened(folder);
  const names = ({ run: { companions = NO_COMPANIONS } }: Job): readonly (readonly string[])[] =>
    [companions.before, companions.after].map((all) => all.map(({ name }) => name));
  expect([names(withEncoder), names(without)]).toEqual([
    [["text_encoder", "mask"], []],
    [[], []],
  ]);
  expect([...without.run.conditions.keys()]).toEqual(["encoder_hidden_states", "encoder_attention_mask"]);
});

it("inspect and compile name the networks around the run, with what they read and give", async () => {
  const folder = folderOf("flux");
  const ports = z.array(z.object({ name: z.string(), value: z.string(), shape: z.array(z.number()) }));
  const joined = z.array(z.object({ name: z.string(), inputs: ports, outputs: ports }));
  const said = await cli(["inspect", folder, "--json"]);
  const { before, after } = z.object({ before: joined, after: joined }).parse(JSON.parse(said.stdout));
  expect(before).toEqual([
    {
      name: "text_encoder",
      inputs: [{ name: "input_ids", value: "input_ids", shape: [1, 12] }],
      outputs: [{ name: "pooler_output", value: "pooled_projections", shape: [1, 12] }],
    },
    {
      name: "text_encoder_2",
      inputs: [{ name: "input_ids", value: "input_ids_2", shape: [1, 14] }],
      outputs: [{ name: "last_hidden_state", value: "encoder_hidden_states", shape: [1, 14, 24] }],
    },
  ]);
  expect(after.map(({ name }) => name)).toEqual(["unpacked", "unscaled", "vae_decoder"]);
  expect(after.at(-1)?.outputs).toEqual([{ name: "sample", value: "image", shape: [1, 3, 16, 16] }]);
  expect((await cli(["inspect", folder])).stdout).toMatch(/^vae_decoder +behind +unscaled_latent \[1, 4, 8, 8\] +image \[1, 3, 16, 16\]$/m);
  const compile = ["compile", folder, "--steps", "2", "--no-cache", "--quiet", "-o"];
  const whole = await cli([...compile, join(folder, "whole")]);
  const short = await cli([...compile, join(folder, "short"), "--stop-at", "latent"]);
  expect(whole.stdout).toContain("\nin front: text_encoder, text_encoder_2; behind: vae_decoder\n");
  expect(short.stdout).toContain("\nin front: text_encoder, text_encoder_2\n");
});

/** The two halves of a list. */
function halvesOf(numbers: readonly number[]): readonly [readonly number[], readonly number[]] {
  return [numbers.slice(0, numbers.length / 2), numbers.slice(numbers.length / 2)];
}

describe("an export whose sizes are open, as optimum leaves them", () => {
  /** Makes the sizes of a network's inputs symbolic, under the names of optimum (exporters/onnx/model_configs.py). */
  async function open(folder: string, network: string, shapes: Readonly<Record<string, readonly (number | string)[]>>): Promise<void> {
    const file = join(folder, network, "model.onnx");
    const model = await readModel(file);
    const inputs = model.graph.inputs.flatMap((input): [Value, Value][] =>
      input.type && shapes[input.name] ? [[input, inputValue(input.name, { ...input.type, shape: shapes[input.name] ?? null })]] : [],
    );
    expect(inputs).toHaveLength(Object.keys(shapes).length);
    const opened = withGraph(
      model,
      rewrite(model.graph, () => undefined, new Map(inputs)),
    );
    // What is written still reads the weights of the file.
    await writeModel(opened, `${file}.open`);
    renameSync(`${file}.open`, file);
  }

  const ids = { input_ids: ["batch_size", "sequence_length"] };

  it("Stable Diffusion 3, of the size that its configuration names, or another", async () => {
    const folder = folderOf("sd3");
    for (const encoder of ["text_encoder", "text_encoder_2", "text_encoder_3"]) await open(folder, encoder, ids);
    await open(folder, "transformer", {
      hidden_states: ["batch_size", 16, "height", "width"],
      encoder_hidden_states: ["batch_size", "sequence_length", 24],
      timestep: ["step"],
    });
    await open(folder, "vae_decoder", { latent_sample: ["batch_size", 16, "latent_height", "latent_width"] });
    expect(latentShape((await opened(folder)).run)).toEqual([1, 16, 8, 8]);
    const job = await opened(folder, { dims: new Map([["width", 12]]) });
    const { uncached } = await compiledFrom(job);
    for (const distance of Object.values(await distances(uncached, folder, job))) expect(distance).toBeLessThan(LIMIT);
  });

  it("FLUX, whose latent then is a square", async () => {
    const folder = folderOf("flux");
    for (const encoder of ["text_encoder", "text_encoder_2"]) await open(folder, encoder, ids);
    await open(folder, "transformer", {
      hidden_states: ["batch_size", "packed_height_width", 16],
      encoder_hidden_states: ["batch_size", "sequence_length", 24],
      timestep: ["step"],
      txt_ids: ["sequence_length", 3],
      img_ids: ["packed_height_width", 3],
    });
    await open(folder, "vae_decoder", { latent_sample: ["batch_size", 4, "latent_height", "latent_width"] });
    const job = await opened(folder, { dims: new Map([["packed_height_width", 16]]) });
    const { uncached } = await compiledFrom(job);
    for (const distance of Object.values(await distances(uncached, folder, job))) expect(distance).toBeLessThan(LIMIT);
  });
});

/** A family's folder with what the recorded run of another of its pipelines was given, and what that run was called with. */
function folderOfPictures(
  family: string,
  pipeline: "img2img" | "inpaint",
): { readonly folder: string; readonly reference: string; readonly called: RecipeOverrides; readonly noise: TensorData } {
  const folder = folderOf(family);
  const reference = join(folder, "reference", pipeline);
  for (const file of readdirSync(reference)) {
    const [, isNegative, name] = /^(negative_)?(input_ids.*)\.npy$/.exec(file) ?? [];
    if (name !== undefined) copyFileSync(join(reference, file), join(folder, "calibrate", `${name}${isNegative ? "_uncond" : ""}.npy`));
  }
  copyFileSync(join(reference, "image.npy"), join(folder, "calibrate/start_image.npy"));
  const told = z.object({ steps: z.int(), guidance_scale: z.number(), strength: z.number() });
  const { steps, guidance_scale: guidance, strength } = told.parse(readJson(join(reference, "reference.json")));
  const noise = readNpy(join(reference, "noise.npy"));
  const called = { steps, start: Math.floor(steps - steps * strength), guidance };
  return { folder, reference, called, noise: family === "flux" ? packed(noise) : noise };
}

/** What an uncached artifact of a folder gives. */
async function outputsOf(folder: string, overrides: RecipeOverrides, noise: TensorData): Promise<ReadonlyMap<string, TensorData>> {
  const job = await openJob(folder, overrides, RUNTIME);
  const { uncached } = await compiledFrom(job);
  const session = await Session.open(uncached, { ...RUNTIME, ...AS_WRITTEN });
  return session.run(feedsOf(job, sampleInputs(job, 0, { noise }))).finally(() => session.close());
}

/** How far an output is from what was recorded beside a reference. */
function distanceFrom(recorded: string, output: TensorData | undefined): number {
  return output ? relativeL2(tensorNumbers(output), tensorNumbers(readNpy(recorded))) : NaN;
}

// Measured: SD3 7.7e-7, FLUX 7.4e-7. SD3's picture is no square.
it.each(["sd3", "flux"])("%s makes a picture of a picture, as diffusers does", async (family) => {
  const { folder, reference, called, noise } = folderOfPictures(family, "img2img");
  const distance = async (): Promise<number> =>
    distanceFrom(join(reference, "decoded.npy"), (await outputsOf(folder, called, noise)).get("image"));
  // Nothing is drawn of what the encoder tells unless its noise is given: the picture is then another.
  expect(await distance()).toBeGreaterThan(1e-3);
  copyFileSync(join(reference, "vae_noise.npy"), join(folder, "fix/vae_noise.npy"));
  expect(await distance()).toBeLessThan(LIMIT);
});

describe.each(["sd3", "flux"])("%s keeps of a picture what a mask says", (family) => {
  function prepared(): ReturnType<typeof folderOfPictures> {
    const made = folderOfPictures(family, "inpaint");
    copyFileSync(join(made.reference, "mask.npy"), join(made.folder, "calibrate/mask_image.npy"));
    copyFileSync(join(made.reference, "vae_noise.npy"), join(made.folder, "fix/vae_noise.npy"));
    return { ...made, called: { ...made.called, inpaint: true } };
  }

  it("as diffusers does", async () => {
    const { folder, reference, called, noise } = prepared();
    const outputs = await outputsOf(folder, called, noise);
    expect(distanceFrom(join(reference, "latent.npy"), outputs.get("latent"))).toBeLessThan(LIMIT);
    const picture = distanceFrom(join(reference, "decoded.npy"), outputs.get("image"));
    // diffusers' inpaint pipeline of SD3 gives the decoder its latent without the shift, unlike all its others.
    if (family === "flux") expect(picture).toBeLessThan(LIMIT);
    else expect(picture).toBeGreaterThan(1e-2);
  });

  it("and is verified, as one of its inputs are picture and mask", async () => {
    const { folder, called } = prepared();
    const job = await openJob(folder, called, RUNTIME);
    const compiled = await compiledFrom(job);
    expect(compiled.cuda).toMatchObject({ missing: [], copies: [] });
    const names = compiled.model.graph.inputs.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(["start_image", "mask_image"]));
    for (const inside of ["image_latent", "mask"]) expect(names).not.toContain(inside);
    const target = join(folder, "out");
    await writeArtifact(target, { job, schedule: everySecond(job), compiled }, false);
    const artifact = await openArtifact(target, RUNTIME);
    expect((await verify(artifact, RUNTIME)).ok).toBe(true);
    // Where all is kept, the latent is the original.
    const nothing = tensorOf(
      "float",
      [1, 1, 16, family === "flux" ? 16 : 24],
      new Array<number>(16 * (family === "flux" ? 16 : 24)).fill(0.49),
    );
    await writeNpy(join(folder, "calibrate/mask_image.npy"), nothing);
    const [first, second] = [await latentOf(folder, called, 1), await latentOf(folder, called, 2)];
    expect(relativeL2(first, second)).toBeLessThan(1e-6);
  });
});

async function latentOf(folder: string, called: RecipeOverrides, seed: number): Promise<readonly number[]> {
  const job = await openJob(folder, called, RUNTIME);
  const shape = latentShape(job.run);
  const size = shape.reduce((product, side) => product * side, 1);
  const noise = tensorOf(
    "float",
    shape,
    Array.from({ length: size }, (_, i) => Math.sin(seed * i)),
  );
  const latent = (await outputsOf(folder, called, noise)).get("latent");
  return latent ? tensorNumbers(latent) : [];
}
