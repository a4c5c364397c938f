/** Large graphs and large files: time grows as the graph does, memory has a bound, and weights stay on disk. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { onnx } from "onnx-proto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { Builder, shapeOf } from "../ir/build.js";
import { dependence } from "../ir/analysis.js";
import { type Branch, LATENT } from "../ir/dit.js";
import { constant, ditView, type Graph, inputValue, type Mark, type Model, type Value } from "../ir/graph.js";
import { lift } from "../ir/lift/index.js";
import { residualStreams } from "../ir/residual/index.js";
import { type TensorData, tensorOf } from "../ir/tensor.js";
import { byteSize, elementCount, type TensorType } from "../ir/types.js";
import { BIND_PASSES, CACHE_PASSES, RUN_PASSES, SETTLE_PASSES, STEP_PASSES } from "../passes/index.js";
import { type Evaluator, type Pass, type PassRecord, runPasses } from "../passes/pass.js";
import { bind, type SamplerTable, type ScheduleCell } from "../schedules/index.js";
import { fixtures } from "./support/fixtures.js";
import { jointStep } from "./support/joint-step.js";
import type { AnyContext } from "../passes/index.js";
import { runOver } from "./support/runs.js";

const ROOT = join(import.meta.dirname, "..");
const WIDTH = 8;
const TOKENS = 4;

/** What a command prints, the processor time that it takes, without that of the system, and the most memory that it has. */
async function measured(args: readonly string[]): Promise<{ readonly json: unknown; readonly seconds: number; readonly bytes: number }> {
  const tell =
    "process.on('exit',()=>{const{userCPUTime,maxRSS}=process.resourceUsage();process.stderr.write(`used=${userCPUTime},${maxRSS}`)})";
  const argv = [`--import=data:text/javascript,${encodeURIComponent(tell)}`, join(ROOT, "dist", "src", "cli", "cli.js"), ...args];
  const { stdout, stderr } = await promisify(execFile)(process.execPath, argv, { maxBuffer: 2 ** 26 });
  const [, microseconds, kibibytes] = /used=(\d+),(\d+)/.exec(stderr) ?? [];
  return { json: JSON.parse(stdout), seconds: Number(microseconds) / 1e6, bytes: Number(kibibytes) * 1024 };
}

/** A lifted step: `blocks` blocks of an attention-like and an MLP-like branch, each modulated by the time and a condition. */
function stepModel(blocks: number): Model {
  const build = new Builder();
  const stream: TensorType = { elem: "float", shape: [1, TOKENS, WIDTH] };
  const row: TensorType = { elem: "float", shape: [1, WIDTH] };
  const tall: TensorType = { elem: "float", shape: [1, 1, WIDTH] };
  const x = inputValue("x", stream);
  const t = inputValue("t", { elem: "float", shape: [1] });
  const c = inputValue("c", row);
  const one = constant("one", tensorOf("int64", [1], [1]));
  const weight = (name: string): Value => constant(name, tensorOf("float", [WIDTH, WIDTH], Buffer.from(name.padEnd(WIDTH * WIDTH))));
  const column = build.op("Unsqueeze", [t, one], "column", { elem: "float", shape: [1, 1] });
  const wave = build.op(
    "Sin",
    [build.op("Mul", [column, constant("f", tensorOf("float", [1, WIDTH], [1, 2, 3, 4, 5, 6, 7, 8]))], "angles", row)],
    "wave",
    row,
  );
  const embedding = build.op("Add", [wave, c], "embedding", row);
  const marks: Mark[] = [];
  const branches: Branch[] = [];
  let h: Value = x;
  for (let block = 0; block < blocks; block++) {
    for (const kind of ["attn", "mlp"] as const) {
      const name = (part: string): string => `${kind}${block}/${part}`;
      const modulation = (part: string): Value => {
        const flat = build.op("MatMul", [embedding, weight(name(`w${part}`))], name(part), row);
        return build.op("Unsqueeze", [flat, one], name(`${part}_tall`), tall);
      };
      const scaled = build.op("Mul", [h, modulation("scale")], name("scaled"), stream);
      const hidden = build.op("Tanh", [build.op("MatMul", [scaled, weight(name("w1"))], name("in"), stream)], name("hidden"), stream);
      const branch = build.op("MatMul", [hidden, weight(name("w2"))], name("out"), stream);
      marks.push({ site: `${kind}-${block}`, half: "cond", step: 0, value: branch });
      branches.push({ site: `${kind}-${block}`, kind, block, stream: "image", gated: true });
      h = build.op("Add", [h, build.op("Mul", [branch, modulation("gate")], name("gated"), stream)], name("sum"), stream);
    }
  }
  return {
    graph: { name: "chain", inputs: [x, t, c], outputs: [{ name: "prediction", value: h }], nodes: build.nodes, marks },
    opsets: new Map([["", 20]]),
    irVersion: 10,
    metadata: new Map(),
    dit: {
      recogniser: "synthetic",
      latent: "x",
      timestep: "t",
      conditions: ["c"],
      prediction: "prediction",
      branches,
      constant: [],
      guesses: [],
      warnings: [],
    },
  };
}

function samplerOf(steps: number): SamplerTable {
  const rows = Array.from({ length: steps }, (_, k) => ({
    timestep: steps - k,
    inputScale: 1,
    m: { x: 0, out: 1 },
    next: { x: [{ step: k, weight: 1 }], m: [{ step: k, weight: -0.25 }], noise: 0 },
  }));
  return { name: "synthetic", prediction: "epsilon", initialScale: 1, rows };
}

/** Answers like the runtime, in no time: zeros of the right type. */
const zeros: Evaluator = {
  evaluate: ({ graph }) =>
    Promise.resolve(
      graph.outputs.map(({ value }): TensorData => {
        const shape = shapeOf(value);
        const elem = value.type?.elem ?? "float";
        return { elem, shape, content: { kind: "bytes", bytes: new Uint8Array(byteSize(elem, elementCount(shape))) } };
      }),
    ),
  types: ({ graph }) =>
    Promise.resolve(new Map(graph.nodes.flatMap(({ outputs }) => outputs.flatMap((value) => (value.type ? [[value, value.type]] : []))))),
};

function contextOf(model: Model, steps: number): AnyContext {
  const row = Array.from({ length: steps }, (_, k): ScheduleCell => (k % 4 === 0 || k < 8 ? 1 : k % 4 === 1 ? 0 : [[k - (k % 4), 2], [k - (k % 4) - 4, -1]])); // prettier-ignore
  const run = runOver(model, samplerOf(steps));
  return { evaluator: zeros, sizes: new Map(), run, plan: bind({ steps, cells: new Map([["attn", row]]) }, run) };
}

const PIPELINE: readonly Pass<AnyContext>[] = [...BIND_PASSES, ...SETTLE_PASSES, ...STEP_PASSES, ...RUN_PASSES, ...CACHE_PASSES];

/** Compiles `blocks` blocks over `steps` steps; answers with the size of the unrolled graph and the processor time that it took. */
async function pipeline(blocks: number, steps: number, afterPass: (nodes: number) => void = () => undefined): Promise<Measured> {
  const model = stepModel(blocks);
  const context = contextOf(model, steps);
  const before = process.cpuUsage();
  let nodes = 0;
  const log = ({ nodes: now }: PassRecord): void => {
    nodes = Math.max(nodes, now);
    afterPass(now);
  };
  await runPasses<AnyContext>(model, PIPELINE, context, { log });
  return { nodes, seconds: process.cpuUsage(before).user / 1e6 };
}

interface Measured {
  readonly nodes: number;
  readonly seconds: number;
}

describe("all passes on a chain of blocks", () => {
  it("take time that grows as the graph does", async () => {
    await pipeline(25, 50);
    let [nodes, seconds] = [0, 0];
    for (let times = 0; times < 6; times++) {
      const small = await pipeline(25, 50);
      nodes += small.nodes;
      seconds += small.seconds;
    }
    const large = await pipeline(50, 150);
    expect(large.nodes / nodes).toBeCloseTo(1, 1);
    // As many nodes in one graph as in six: linear would be 1, quadratic 6; the collector of garbage makes it more than 1.
    expect(large.seconds / seconds).toBeLessThan(3);
  });

  it("keep less than a kilobyte a node", async () => {
    setFlagsFromString("--expose-gc");
    const heap = (): number => {
      runInNewContext("gc()");
      return process.memoryUsage().heapUsed;
    };
    const empty = heap();
    const perNode: number[] = [];
    await pipeline(50, 125, (nodes) => {
      if (nodes > 50_000) perNode.push((heap() - empty) / nodes);
    });
    expect(perNode).toHaveLength(11);
    expect(Math.max(...perNode)).toBeLessThan(1024);
    // It is the graph that is measured, and not nothing.
    expect(Math.min(...perNode)).toBeGreaterThan(100);
  });
});

describe("lifting a network shaped as FLUX is", () => {
  /** Processor time of lifting, several times over. */
  function seconds(model: Model, times = 1): number {
    const before = process.cpuUsage();
    for (let i = 0; i < times; i++) lift(model);
    return process.cpuUsage(before).user / 1e6;
  }

  it("takes less than two seconds at its full depth, and finds every branch", () => {
    const model = jointStep(19, 38);
    expect(model.graph.nodes.length).toBeGreaterThan(5000);
    const before = process.cpuUsage();
    const { branches, warnings } = ditView(lift(model));
    expect(process.cpuUsage(before).user / 1e6).toBeLessThan(2);
    const counted = (wanted: string): number => branches.filter(({ kind, stream }) => `${stream} ${kind}` === wanted).length;
    expect(["image attn", "text attn", "image mlp", "text mlp", "text+image single"].map(counted)).toEqual([19, 19, 19, 19, 38]);
    expect(branches).toHaveLength(4 * 19 + 38);
    expect(warnings).toEqual([]);
  });

  it("takes time that grows as the graph does", () => {
    const [small, large] = [jointStep(4, 8), jointStep(40, 80)];
    const growth = large.graph.nodes.length / small.graph.nodes.length;
    expect(growth).toBeGreaterThan(9);
    seconds(small, 10);
    // Linear would be 1, and quadratic 10.
    expect((10 * seconds(large)) / growth / seconds(small, 10)).toBeLessThan(3);
  });
});

describe("searching for branches in sums that all lead far back", () => {
  const stream: TensorType = { elem: "float", shape: [1, TOKENS, WIDTH] };
  /** Each sum adds a value that lies before all of them: v ← v · W + x, or from a stack, as a U-Net without blocks. */
  const farSums = (count: number, isLadder: boolean): Graph => {
    const build = new Builder();
    const x = inputValue("x", stream);
    const weight = constant("weight", tensorOf("float", [WIDTH, WIDTH], new Float32Array(WIDTH * WIDTH)));
    const before: Value[] = [x];
    for (let i = 0; i < count && isLadder; i++) before.push(build.op("Tanh", [before.at(-1)], `tanh${i}`, stream));
    let sum = before.at(-1) ?? x;
    for (let i = 0; i < count; i++) {
      const far = before[before.length - 2 - i] ?? x;
      sum = build.op("Add", [build.op("MatMul", [sum, weight], `product${i}`, stream), far], `sum${i}`, stream);
    }
    return { name: "far", inputs: [x], outputs: [{ name: "prediction", value: sum }], nodes: build.nodes, marks: [] };
  };
  const seconds = (graph: Graph): number => {
    const before = process.cpuUsage();
    residualStreams(graph, dependence(graph, new Map(graph.inputs.map((input) => [input, LATENT]))));
    return process.cpuUsage(before).user / 1e6;
  };

  it.each([
    { of: "one value", isLadder: false },
    { of: "a value each", isLadder: true },
  ])("takes time that grows as the graph does, for $of", ({ isLadder }) => {
    const [small, large] = [farSums(300, isLadder), farSums(3000, isLadder)];
    seconds(small);
    const ofSmall = Array.from({ length: 10 }, () => seconds(small)).reduce((sum, one) => sum + one);
    // Linear would be 1, and quadratic 10. The smaller graph is not yet so large that its nodes are passed no more.
    expect(seconds(large) / ofSmall).toBeLessThan(4);
  });
});

describe("FLUX.1-dev at full size", () => {
  const generate = join(ROOT, "dist", "test", "fixtures", "fullsize", "generate.js");
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "smoothcc-scale-"));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  it.each([
    { as: "folded", flags: [] },
    { as: "unfolded", flags: ["--unfolded"] },
  ])("is inspected in less than ten seconds and a gigabyte, $as", async ({ as, flags }) => {
    const model = join(folder, as);
    const { stdout: made } = await promisify(execFile)(process.execPath, [generate, model, ...flags]);
    expect(made).toContain("11.9 B parameters");
    const { json, seconds, bytes } = await measured(["inspect", model, "--json", "--quiet"]);
    expect(z.object({ branches: z.array(z.unknown()) }).parse(json).branches).toHaveLength(4 * 19 + 38);
    expect(seconds).toBeLessThan(10);
    expect(bytes).toBeLessThan(1e9);
  });

  it("is compiled for 28 steps in less than a minute and a gigabyte, but for the copying of its weights", async () => {
    const [model, plan] = [join(folder, "narrow"), join(folder, "plan.json")];
    await promisify(execFile)(process.execPath, [generate, model, "--narrow", "--unfolded"]);
    await measured(["plan", model, "--policy", "fora", "--interval", "3", "-o", plan, "--json", "--quiet"]);
    const { json, seconds, bytes } = await measured(["compile", model, "--plan", plan, "-o", join(folder, "run"), "--json", "--quiet"]);
    expect(z.object({ nodes: z.object({ emitted: z.number() }) }).parse(json).nodes.emitted).toBeGreaterThan(20_000);
    expect(seconds).toBeLessThan(60);
    expect(bytes).toBeLessThan(1e9);
    // What is limited is processor time, of which a busy machine gives little.
  }, 600_000);
});

describe("a model with 8 GiB of weights", () => {
  const BYTES = 2 ** 33;
  /** Of the fixture's feed-forward networks, and nothing else in it. */
  const HIDDEN = 192;
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "smoothcc-scale-"));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  /** The export with the hidden width of its feed-forward networks grown until they take 8 GiB, in a file that takes no room on the disk. */
  function grow(file: string): string {
    const model = onnx.ModelProto.decode(readFileSync(file));
    const { graph } = model;
    const isHidden = (dim: unknown): boolean => Number(dim) === HIDDEN;
    const weights = (graph?.initializer ?? []).filter(({ dims }) => dims?.some(isHidden));
    const perHidden = weights.reduce(
      (sum, { dims }) => sum + 4 * elementCount((dims ?? []).map((dim) => (isHidden(dim) ? 1 : Number(dim)))),
      0,
    );
    const hidden = Math.floor(BYTES / perHidden);
    let end = 0;
    for (const weight of weights) {
      weight.dims = (weight.dims ?? []).map((dim) => (isHidden(dim) ? hidden : Number(dim)));
      const length = 4 * elementCount(weight.dims.map(Number));
      const place = { location: "weights.bin", offset: String(end), length: String(length) };
      weight.rawData = new Uint8Array();
      weight.dataLocation = onnx.TensorProto.DataLocation.EXTERNAL;
      weight.externalData = Object.entries(place).map(([key, value]) => ({ key, value }));
      end += length;
    }
    expect(end).toBeGreaterThan(0.99 * BYTES);
    if (graph) graph.valueInfo = [];
    const grown = join(folder, "grown.onnx");
    writeFileSync(grown, onnx.ModelProto.encode(model).finish());
    writeFileSync(join(folder, "weights.bin"), "");
    truncateSync(join(folder, "weights.bin"), BYTES);
    return grown;
  }

  it("is inspected in less than 300 MB", async () => {
    const fixture = fixtures.find(({ name }) => name === "dit/torchscript-17");
    const file = grow(fixture?.model ?? "");
    const { json, bytes } = await measured(["inspect", file, "--batch", "2", "--json", "--quiet"]);
    expect(z.object({ branches: z.array(z.unknown()) }).parse(json).branches).toHaveLength(fixture?.branches.length ?? 0);
    expect(bytes).toBeLessThan(300e6);
  });
});
