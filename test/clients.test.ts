/** The example clients: what they make of an artifact without smoothcc is what smoothcc makes of it. */
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { decode } from "fast-png";
import { z } from "zod";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TensorData, tensorNumbers } from "../ir/tensor.js";
import { relativeL2 } from "../schedules/index.js";
import { ArtifactSession, feedsOf, writeArtifact } from "../src/artifact/artifact.js";
import { FILES, type Manifest, readManifest } from "../src/artifact/manifest.js";
import { compileModel } from "../src/compile/compile.js";
import { npyBytes, readNpy } from "../src/files/npy.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import type { Job } from "../src/job/job.js";
import { folderOf, opened } from "./support/complete.js";
import { fixtureNamed } from "./support/fixtures.js";
import { openFixture, planOf, randomSchedule } from "./support/jobs.js";
import { missingModules, PYTHON } from "./support/python.js";

const CLIENTS = resolve(import.meta.dirname, "..", "examples", "clients");
const DDPM = { _class_name: "DDPMScheduler", num_train_timesteps: 1000, beta_schedule: "linear", clip_sample: false };

/** An artifact, a run of it as smoothcc plays it, and files of the inputs of that run. */
interface Played {
  readonly folder: string;
  readonly manifest: Manifest;
  readonly result: Float32Array;
  readonly files: ReadonlyMap<string, string>;
}

let folder = "";
/** In six parts; and in one, with a sampler that draws noise. */
let parted: Played;
let noisy: Played;
/** Whose result is of bytes, with channels last. */
let bytes: Played;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-clients-"));
  mkdirSync(join(folder, "home"));
  const fixture = fixtureNamed("dit/dynamo-20");
  parted = await played(await openFixture(fixture, "batched", { steps: 6 }), 6);
  noisy = await played(await openFixture(fixture, "none", { steps: 6, scheduler: DDPM }));
  bytes = await played(await opened(folderOf("sd3"), { pixels: "uint8" }));
});
afterAll(() => {
  // Nobody is told anything, and no store of what is run is kept.
  const left = readdirSync(join(folder, "home"));
  rmSync(folder, { recursive: true, force: true });
  expect(left).toEqual([]);
});

async function played(job: Job, segments = 1): Promise<Played> {
  const schedule = randomSchedule(job, 5);
  const target = join(mkdtempSync(join(folder, "x")), "artifact");
  await writeArtifact(target, { job, schedule, compiled: await compileModel(job, planOf(job, schedule.cells).plan, { segments }) }, false);
  const feeds = feedsOf(job, sampleInputs(job, 0, { seed: 3 }));
  const session = await ArtifactSession.open(join(target, FILES.model), {});
  const outputs = await session.outputs(feeds).finally(() => session.close());
  const result = Float32Array.from([...outputs.values()].slice(-1).flatMap(tensorNumbers));
  const files = new Map<string, string>();
  for (const [name, data] of feeds) {
    files.set(name, join(target, "..", `${files.size}.npy`));
    writeFileSync(files.get(name) ?? "", npyBytes(data));
  }
  return { folder: target, manifest: readManifest(target), result, files };
}

/** The options of clients that give these inputs. */
function given(files: Played["files"], isGiven: (name: string) => boolean = () => true): readonly string[] {
  return [...files].flatMap(([name, file]) => (isGiven(name) ? ["--input", `${name}=${file}`] : []));
}

/** A process as a stranger's: with a home of its own, and nothing said of telemetry. */
function environment(): NodeJS.ProcessEnv {
  const home = join(folder, "home");
  return {
    ...process.env,
    HOME: home,
    XDG_CACHE_HOME: join(home, ".cache"),
    ORT_DISABLE_TELEMETRY: undefined,
    PYTHONDONTWRITEBYTECODE: "1",
  };
}

function run(command: readonly string[]): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const [program = "", ...rest] = command;
  return promisify(execFile)(program, rest, { cwd: CLIENTS, env: environment(), maxBuffer: 1 << 24 });
}

/** The numbers that a client writes, which are those of the picture that it writes. */
async function outcomeOf(client: readonly string[], { folder: artifact, files }: Played): Promise<Float32Array> {
  const [numbers, picture] = [join(folder, "result.npy"), join(folder, "result.png")];
  await Promise.all([numbers, picture].map((file) => run([...client, artifact, ...given(files), "--output", file])));
  const result = readNpy(numbers);
  expect(coloursOf(picture)).toEqual(expectedColours(result));
  return Float32Array.from(tensorNumbers(result));
}

interface Colours {
  readonly width: number;
  readonly height: number;
  readonly colours: readonly number[];
}

function coloursOf(file: string): Colours {
  const { width, height, channels, data } = decode(readFileSync(file));
  return { width, height, colours: [...data].filter((_, i) => i % channels < 3) };
}

/** The first three channels as red, green and blue, −1 black and 1 white, the batch side by side; bytes, which have channels last, as they are. */
function expectedColours(result: TensorData): Colours {
  const isBytes = result.elem === "uint8";
  const [batch = 0, ...rest] = result.shape;
  const [channels = 0, height = 0, width = 0] = isBytes ? [...rest.slice(2), ...rest.slice(0, 2)] : rest;
  const values = tensorNumbers(result);
  const colours: number[] = [];
  for (let y = 0; y < height; y++)
    for (let column = 0; column < batch * width; column++)
      for (let c = 0; c < 3; c++) {
        const [sample, x] = [Math.floor(column / width), column % width];
        const value =
          values[isBytes ? ((sample * height + y) * width + x) * channels + c : ((sample * channels + c) * height + y) * width + x];
        colours.push(isBytes ? (value ?? NaN) : Math.min(255, Math.max(0, Math.round(127.5 * ((value ?? 0) + 1)))));
      }
  return { width: batch * width, height, colours };
}

const [RUNTIME, OPENVINO] = [
  ["numpy", "onnxruntime"],
  ["numpy", "openvino"],
];
/** `limit`: the relative L2 error. Another release of the runtime may add in another order, and another runtime does. */
const clients = [
  { name: "run.py", command: [PYTHON, "run.py"], modules: RUNTIME, limit: 1e-6 },
  { name: "segments.py", command: [PYTHON, "segments.py"], modules: RUNTIME, limit: 1e-6 },
  { name: "openvino_run.py", command: [PYTHON, "openvino_run.py"], modules: OPENVINO, limit: 1e-4 },
  { name: "node/run.js", command: ["node", "node/run.js"], modules: [], limit: 0 },
] as const;
const [, segmentsPy, , nodeRun] = clients;

function reasonToSkip({ modules }: { readonly modules: readonly string[] }): string | undefined {
  return modules.length === 0 ? undefined : missingModules(...modules);
}

describe.each(clients)("$name", (client) => {
  it("gives what smoothcc gives, as numbers and as a picture", async (ctx) => {
    const reason = reasonToSkip(client);
    if (reason !== undefined) return ctx.skip(reason);
    expect(relativeL2(await outcomeOf(client.command, parted), parted.result)).toBeLessThanOrEqual(client.limit);
  });

  it("says what is missing before it runs anything", async (ctx) => {
    const reason = reasonToSkip(client);
    if (reason !== undefined) return ctx.skip(reason);
    const output = join(folder, "missing.npy");
    await expect(run([...client.command, parted.folder, "-o", output])).rejects.toThrow(/[sS]ay what the input 'class_labels'/);
    const unknown = run([...client.command, parted.folder, ...given(parted.files), "--input", "klass=1", "-o", output]);
    await expect(unknown).rejects.toThrow("here is no input 'klass'");
    expect(existsSync(output)).toBe(false);
  });
});

describe.each(clients.filter((client) => client !== segmentsPy))("$name, of a run in one part", (client) => {
  it("writes bytes as they are", async (ctx) => {
    const reason = reasonToSkip(client);
    if (reason !== undefined) return ctx.skip(reason);
    expect(relativeL2(await outcomeOf(client.command, bytes), bytes.result)).toBeLessThanOrEqual(client.limit);
  });

  it("feeds what the sampler draws, or draws it", async (ctx) => {
    const reason = reasonToSkip(client);
    if (reason !== undefined) return ctx.skip(reason);
    const { folder: artifact, files, result } = noisy;
    expect(relativeL2(await outcomeOf(client.command, noisy), result)).toBeLessThanOrEqual(client.limit);
    const drawn = join(folder, "drawn.npy");
    await run([...client.command, artifact, ...given(files, (name) => name === "class_labels"), "-o", drawn]);
    expect(relativeL2(tensorNumbers(readNpy(drawn)), result)).toBeGreaterThan(0.1);
  });
});

describe.each([segmentsPy, nodeRun])("$name, stopped", (client) => {
  it("ends between two parts", async (ctx) => {
    const reason = reasonToSkip(client);
    if (reason !== undefined) return ctx.skip(reason);
    const output = join(folder, "stopped.npy");
    const [program, script] = client.command;
    const child = spawn(program, [script, parted.folder, ...given(parted.files), "-o", output], { cwd: CLIENTS, env: environment() });
    let told = "";
    child.stderr.on("data", (chunk: Buffer) => {
      told += chunk.toString();
      // After the first of six parts.
      if (/\b1\/6$/.test(told)) child.kill("SIGINT");
    });
    const code = await new Promise((done) => child.once("close", done));
    expect([code, told]).toEqual([130, expect.stringMatching(/stopped/)]);
    expect(told).not.toContain("6/6");
    expect(existsSync(output)).toBe(false);
  });
});

it("segments.py refuses a run in one part", async (ctx) => {
  const reason = reasonToSkip(segmentsPy);
  if (reason !== undefined) return ctx.skip(reason);
  const refused = run([...segmentsPy.command, noisy.folder, ...given(noisy.files), "-o", join(folder, "x.npy")]);
  await expect(refused).rejects.toThrow("--segments N");
});

it("segments.py writes a preview after each part", async (ctx) => {
  const reason = reasonToSkip(segmentsPy);
  if (reason !== undefined) return ctx.skip(reason);
  const [previews, output] = [join(folder, "previews"), join(folder, "previewed.npy")];
  await run([...segmentsPy.command, parted.folder, ...given(parted.files), "-o", output, "--previews", previews]);
  expect(readdirSync(previews).sort()).toEqual(parted.manifest.segments.map(({ to }) => `${to}.png`).sort());
  expect(coloursOf(join(previews, "6.png"))).toEqual(expectedColours(readNpy(output)));
  expect(coloursOf(join(previews, "3.png"))).not.toEqual(expectedColours(readNpy(output)));
});

const DRAWN = { draw: "unit normal" };

/** How clients fill inputs of which nothing is said, in both languages. */
const fillers = [
  {
    name: "artifact.js",
    modules: [],
    command: [
      ...["node", "--input-type=module", "-e"],
      `import { feedsOf } from "./artifact.js";
       const feeds = feedsOf(JSON.parse(process.argv[1]), JSON.parse(process.argv[2]), 7);
       console.log(JSON.stringify(Object.fromEntries(Object.entries(feeds).map(([name, { data }]) => [name, Array.from(data, Number)]))));`,
    ],
  },
  {
    name: "artifact.py",
    modules: ["numpy"],
    command: [
      ...[PYTHON, "-c"],
      `import json, pathlib, sys, tempfile, types, artifact
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "manifest.json").write_text(sys.argv[1])
given = [name + "=" + ",".join(map(str, values)) for name, values in json.loads(sys.argv[2]).items()]
args = types.SimpleNamespace(folder=folder, output=pathlib.Path("x.npy"), input=given, seed=7)
print(json.dumps({name: array.ravel().tolist() for name, array in artifact.prepare(args)[1].items()}))`,
    ],
  },
] as const;

describe.each(fillers)("$name", ({ modules, command }) => {
  const port = (name: string, shape: readonly number[], more: object = {}): object => ({ name, elem: "float", shape, ...more });
  const manifest = {
    recipe: {},
    inputs: [
      ...[port("sample", [2, 100, 100], DRAWN), port("run_noise", [3, 2, 100, 100], DRAWN), port("background_noise", [4, 5])],
      ...[port("scale", [], { default: 4.5 }), port("label", [2, 3], { elem: "int64" })],
    ],
    outputs: [port("latent", [2, 100, 100])],
  };
  const given = { background_noise: [9], label: [1, 2, 3] };
  const filled = async (changes: object, values: object): Promise<Readonly<Record<string, readonly number[]>>> => {
    const { stdout } = await run([...command, JSON.stringify({ ...manifest, ...changes }), JSON.stringify(values)]);
    return z.record(z.string(), z.array(z.number())).parse(JSON.parse(stdout));
  };

  it("draws unit normals for the latent and what the sampler draws, and nothing else", async (ctx) => {
    const reason = reasonToSkip({ modules });
    if (reason !== undefined) return ctx.skip(reason);
    const { sample = [], run_noise: noise = [], ...others } = await filled({}, given);
    expect(others).toEqual({ background_noise: new Array(20).fill(9), scale: [4.5], label: [1, 2, 3, 1, 2, 3] });
    expect([sample.length, noise.length]).toEqual([20_000, 60_000]);
    for (const values of [sample, noise]) {
      const mean = (power: number): number => values.reduce((sum, value) => sum + value ** power, 0) / values.length;
      // Five standard errors of the moments of 20,000 numbers.
      expect(Math.abs(mean(1))).toBeLessThan(5 / Math.sqrt(20_000));
      expect(Math.abs(mean(2) - 1)).toBeLessThan(5 * Math.sqrt(2 / 20_000));
      expect(Math.abs(mean(4) - 3)).toBeLessThan(5 * Math.sqrt(96 / 20_000));
    }
    expect(new Set([...sample, ...noise]).size).toBeGreaterThan(79_000);
    expect((await filled({}, { ...given, scale: [2] }))["scale"]).toEqual([2]);
    await expect(filled({}, { label: [1] })).rejects.toThrow(/[sS]ay what the input 'background_noise'/);
    const [, ...rest] = manifest.inputs;
    const late = { inputs: [port("sample", [2, 100, 100]), ...rest] };
    await expect(filled(late, given)).rejects.toThrow(/[sS]ay what the input 'sample'/);
  });
});
