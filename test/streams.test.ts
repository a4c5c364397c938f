/** Networks of several streams, or of one that changes its shape: branches, and what cuts hold and give, are what PyTorch has. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import type { Branch } from "../ir/dit.js";
import { ditView } from "../ir/graph.js";
import { tensorNumbers, type TensorData, tensorOf } from "../ir/tensor.js";
import { relativeL2 } from "../schedules/index.js";
import { ArtifactSession } from "../src/artifact/artifact.js";
import { FILES } from "../src/artifact/manifest.js";
import { openJob } from "../src/job/job.js";
import { Session } from "../src/runtime/session.js";
import { cli } from "./support/cli.js";

/** Made by `generate.py` there: `<network>.<exporter>.onnx`, and what PyTorch computes. */
const FOLDER = join(import.meta.dirname, "fixtures", "streams");
const SCHEDULER = { _class_name: "FlowMatchEulerDiscreteScheduler", num_train_timesteps: 1000, shift: 1 };
const ROW = [1, 0, 1, 0];

const numbers = z.array(z.number());
/** Stream, first and last block. */
const key = z.tuple([z.string(), z.int(), z.int()]);
const networkSchema = z.object({
  inputs: z.record(z.string(), z.object({ shape: numbers, values: numbers })),
  prediction: numbers,
  branches: z.array(z.object({ kind: z.string(), block: z.int(), stream: z.string(), gated: z.boolean(), values: numbers })),
  /**
   * What the sites of a cut hold. A whole stack goes from the first to the last block through other shapes, which is another reading of
   * `stack`: the differences of its two ends are all that is to be held to.
   */
  sites: z.array(
    z.object({ cut: z.enum(["block", "stack", "whole stack"]), stream: z.string(), first: z.int(), last: z.int(), values: numbers }),
  ),
  uncached: numbers,
  /** Final latents of runs in which these sites follow `ROW`. */
  runs: z.array(z.object({ cut: z.enum(["block", "stack", "whole stack"]), reused: z.array(key), latent: numbers })),
});
type Network = z.infer<typeof networkSchema>;
const expected = z.record(z.string(), networkSchema).parse(JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8")));

let folder = "";
const schedulerFile = (): string => join(folder, "scheduler_config.json");
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-streams-"));
  writeFileSync(schedulerFile(), JSON.stringify(SCHEDULER));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const files = readdirSync(FOLDER).flatMap((file) => (file.endsWith(".onnx") ? [basename(file, ".onnx")] : []));

it("both exporters wrote every network", () => {
  expect(files.toSorted()).toEqual(
    Object.keys(expected)
      .flatMap((name) => [`${name}.dynamo-20`, `${name}.torchscript-17`])
      .toSorted(),
  );
});

describe.each(files)("%s", (file) => {
  const truth = expected[file.split(".")[0] ?? ""];
  if (!truth) throw new Error(`nothing is recorded of ${file}`);
  const model = join(FOLDER, `${file}.onnx`);
  const has = (cut: string): boolean => truth.sites.some((site) => site.cut === cut);

  it("has the branches of the network, and each stream has a name of its own", async () => {
    const found = await sitesOf(model, "branch", truth);
    const pairs = pairsOf(found, truth.branches);
    expect(pairs.map(([{ kind, block, gated }]) => ({ kind, block, gated }))).toEqual(
      truth.branches.map(({ kind, block, gated }) => ({ kind, block, gated })),
    );
    expectOneNameEach(pairs);
  });

  it.each((["block", "stack"] as const).filter(has))("cut at %s: sites hold what blocks add to their stream", async (cut) => {
    // Where a stack can be read in two ways, one of them.
    const wholes = truth.sites.filter((site) => cut === "stack" && site.cut === "whole stack");
    const found = await sitesOf(model, cut, truth);
    if (wholes.length > 0 && found.some((site) => isSame(site.values, wholes[0]?.values ?? []))) return;
    const sites = truth.sites.filter((site) => site.cut === cut);
    const pairs = pairsOf(found, sites);
    expect(pairs.map(([{ block }]) => block)).toEqual(sites.map(({ first }) => first));
    expectOneNameEach(pairs);
  });

  it.each(["block", "stack"] as const)("cut at %s: the whole run is PyTorch's with the same cut", async (cut) => {
    const latent = await sampled(model, cut, { "*": ROW }, truth);
    const readings = truth.runs.filter((run) => (run.cut === cut || run.cut === `whole ${cut}`) && isWhole(truth, run));
    const distances = readings.map((run) => relativeL2(latent, run.latent));
    expect(Math.min(...distances)).toBeLessThanOrEqual(1e-5);
  });

  it.each((["block", "stack"] as const).filter((cut) => has(cut) && !(cut === "stack" && has("whole stack"))))(
    "cut at %s: so are runs in which a part of the sites is read",
    async (cut) => {
      const sites = truth.sites.filter((site) => site.cut === cut);
      const names = new Map(
        pairsOf(await sitesOf(model, cut, truth), sites).map(([{ site }, { stream, first }]) => [`${stream} ${first}`, site]),
      );
      const distances: number[] = [];
      for (const { reused, latent } of truth.runs.filter((run) => run.cut === cut && !isWhole(truth, run))) {
        const plan = Object.fromEntries(reused.map(([stream, first]): [string, number[]] => [names.get(`${stream} ${first}`) ?? "", ROW]));
        distances.push(relativeL2(await sampled(model, cut, plan, truth), latent));
      }
      expect(Math.max(...distances)).toBeLessThanOrEqual(1e-5);
    },
  );
});

/** Whether all sites of a run's cut are read in it. */
function isWhole({ sites }: Network, { cut, reused }: Network["runs"][number]): boolean {
  return sites.filter((site) => site.cut === cut).length === reused.length;
}

type Found = Branch & { readonly values: readonly number[] };

/** The sites of a cut with the values that they have for the recorded input. */
async function sitesOf(model: string, cut: "branch" | "block" | "stack", { inputs, prediction }: Network): Promise<readonly Found[]> {
  const job = await openJob(model, { scheduler: schedulerFile(), steps: ROW.length, cut }, { threads: 1 });
  const { graph } = job.model;
  const outputs = [...graph.outputs, ...graph.marks.map(({ site, value }) => ({ name: site, value }))];
  const session = await Session.open({ ...job.model, graph: { ...graph, outputs } }, { optimise: "disabled" });
  const results = await session.run(
    new Map(Object.entries(inputs).map(([name, { shape, values }]) => [name, tensorOf("float", shape, values)])),
  );
  await session.close();
  const valuesOf = (name: string | undefined): number[] => tensorNumbers(results.get(name ?? "") ?? missing(name));
  expect(relativeL2(valuesOf(graph.outputs[0]?.name), prediction)).toBeLessThanOrEqual(1e-5);
  return ditView(job.model).branches.map((branch) => ({ ...branch, values: valuesOf(branch.site) }));
}

function missing(name: string | undefined): TensorData {
  throw new Error(`the run gave no ${name}`);
}

/** Whether these are the same numbers, in whatever layout. */
function isSame(a: readonly number[], b: readonly number[]): boolean {
  const ascending = (all: readonly number[]): number[] => all.toSorted((x, y) => x - y);
  return a.length === b.length && relativeL2(ascending(a), ascending(b)) <= 1e-5;
}

/** For each recorded thing the site that has its values. There are no others. */
function pairsOf<T extends { readonly stream: string; readonly values: readonly number[] }>(
  found: readonly Found[],
  recorded: readonly T[],
): readonly (readonly [Found, T])[] {
  const pairs = recorded.flatMap((one) => found.filter(({ values }) => isSame(values, one.values)).map((site) => [site, one] as const));
  const named = ([site, { stream, ...rest }]: readonly [Found, T]): string =>
    `${site.site} is of ${stream} ${JSON.stringify({ ...rest, values: undefined })}`;
  expect(new Set(pairs.map(([site]) => site)).size, pairs.map(named).join("\n")).toBe(recorded.length);
  expect(found.map(({ site }) => site).filter((site) => pairs.every(([known]) => known.site !== site))).toEqual([]);
  return pairs;
}

function expectOneNameEach(pairs: readonly (readonly [Branch, { readonly stream: string }])[]): void {
  const streams = new Set(pairs.map(([, { stream }]) => stream));
  const names = new Set(pairs.map(([{ stream }]) => stream));
  expect(new Set(pairs.map(([site, { stream }]) => `${stream}: ${site.stream}`)).size).toBe(streams.size);
  expect(names.size).toBe(streams.size);
}

/** The final latent of the artifact that is compiled with a plan, from the recorded latent and conditions. */
async function sampled(model: string, cut: string, cells: Record<string, number[]>, { inputs }: Network): Promise<Float32Array> {
  const [plan, output] = [join(folder, "plan.json"), join(folder, "artifact")];
  writeFileSync(plan, JSON.stringify(cells));
  const options = ["--scheduler", schedulerFile(), "--steps", String(ROW.length), "--cut", cut, "--plan", plan];
  const { exit, stderr } = await cli(["compile", model, ...options, "-o", output, "--force", "--quiet"]);
  expect({ exit, stderr }).toMatchObject({ exit: 0 });
  const session = await ArtifactSession.open(join(output, FILES.model), { threads: 1 });
  const fed = Object.entries(inputs).filter(([name]) => name !== "t");
  const latent = await session.run(new Map(fed.map(([name, { shape, values }]) => [name, tensorOf("float", shape, values)])));
  await session.close();
  return latent;
}
