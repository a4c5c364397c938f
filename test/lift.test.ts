/** Lifting against recorded truth: which branches there are, what they are, and their numbers; whatever names and order the file has. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Branch } from "../ir/dit.js";
import { ditView, makeNode, type Model, type Node, type Value } from "../ir/graph.js";
import { type Cut, lift } from "../ir/lift/index.js";
import { readModel } from "../ir/onnx/index.js";
import { tensorNumbers } from "../ir/tensor.js";
import { parse } from "../ir/parse.js";
import { relativeL2 } from "../schedules/index.js";
import { Session } from "../src/runtime/session.js";
import { type Fixture, fixtureNamed, fixtures, recorded, type RecordedBranch, recordedInputs } from "./support/fixtures.js";
import { codeOf, thrownBy } from "./support/thrown.js";

const seen = ({ kind, block, stream, gated }: Branch): unknown => ({ kind, block, stream, gated });
const truly = ({ kind, block_index: block, stream, gated }: RecordedBranch): unknown => ({ kind, block, stream, gated });

/** Runs a lifted model on recorded inputs and compares every branch with the recorded tensor. */
async function expectRecordedBranches(fixture: Fixture, lifted: Model, names?: ReadonlyMap<string, string>): Promise<void> {
  const { branches, constant } = ditView(lifted);
  expect(branches.map(seen)).toEqual(fixture.branches.map(truly));
  expect(constant.map(seen)).toEqual(fixture.constant.map(truly));
  const probes = lifted.graph.marks.map(({ site, value }) => ({ name: site, value }));
  const session = await Session.open({ ...lifted, graph: { ...lifted.graph, outputs: probes } }, { optimise: "basic" });
  const results = await session.run(recordedInputs(fixture, lifted, names));
  await session.close();
  for (const [i, { site }] of branches.entries()) {
    const truth = recorded(fixture, fixture.branches[i]?.file ?? "");
    const value = results.get(site);
    expect(value && relativeL2(tensorNumbers(value), truth), site).toBeLessThanOrEqual(fixture.tolerance);
  }
}

describe.each(fixtures)("$name", (fixture) => {
  it("has the recorded branches, and nothing else", async () => {
    const lifted = lift(await readModel(fixture.model));
    await expectRecordedBranches(fixture, lifted);
    const { branches, latent, timestep, guesses } = ditView(lifted);
    expect({ latent, timestep, guesses }).toEqual({ latent: fixture.latent, timestep: fixture.timestep, guesses: [] });
    // A shared network has no module of its own below the block, and a composite branch is several modules.
    for (const [i, { kind, module = "" }] of branches.entries())
      if (kind !== "single") expect(module.replace(/^model\./, "")).toMatch(new RegExp(`^${fixture.branches[i]?.module ?? ""}`));
  });

  it("has them under other names, without metadata, in another order", async () => {
    const { model, names } = disguised(await readModel(fixture.model));
    const lifted = lift(model);
    await expectRecordedBranches(fixture, lifted, names);
    expect(ditView(lifted).branches.every(({ module }) => module === undefined)).toBe(true);
  });
});

/** The model with every name replaced, no metadata, and its nodes in another topological order; and the old names of its inputs. */
function disguised(model: Model): { readonly model: Model; readonly names: ReadonlyMap<string, string> } {
  const next = random(7);
  const names = new Map<string, string>();
  const values = new Map<Value, Value>();
  const at = (value: Value): Value => values.get(value) ?? value;
  const inputs = model.graph.inputs.map((input, i) => {
    const renamed: Value = { ...input, name: `in${i}`, extra: undefined };
    names.set(renamed.name, input.name);
    values.set(input, renamed);
    return renamed;
  });
  const waiting = new Set(model.graph.nodes);
  const nodes: Node[] = [];
  while (waiting.size > 0) {
    const ready = [...waiting].filter((node) => node.inputs.every((value) => !value?.producer || values.has(value)));
    const node = ready[Math.floor(next() * ready.length)];
    if (!node) throw new Error("the graph has a cycle");
    waiting.delete(node);
    const made = makeNode({
      opType: node.opType,
      domain: node.domain,
      name: `n${nodes.length}`,
      attributes: node.attributes,
      inputs: node.inputs.map((value) => value && at(value)),
      outputs: node.outputs.map(({ type }, i) => ({ name: `v${nodes.length}_${i}`, type })),
    });
    nodes.push(made);
    for (const [i, output] of node.outputs.entries()) values.set(output, made.outputs[i] ?? output);
  }
  const outputs = model.graph.outputs.map(({ value }, i) => ({ name: `out${i}`, value: at(value) }));
  return { model: { ...model, metadata: new Map(), extra: undefined, graph: { name: "g", inputs, outputs, nodes, marks: [] } }, names };
}

/** A small generator of numbers in [0, 1) (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Blocks that are put together in unusual ways: `fixtures/shapes/generate.py`. */
describe("shapes of blocks", () => {
  const paired = ["attn", "mlp"];
  it.each([
    { shape: "postnorm", block: paired, about: "norms behind the sums" },
    { shape: "parallel2", block: paired, about: "attention and feed-forward network side by side, added one after the other" },
    { shape: "parallelsum", block: ["single"], about: "both of them added at once" },
    { shape: "register", block: paired, about: "learned tokens in front of the latent's" },
    { shape: "uvit", block: paired, about: "long skips by concatenation" },
    { shape: "uvitadd", block: paired, about: "long skips by addition" },
    { shape: "global", block: paired, about: "a skip from the first block to the last" },
    { shape: "gatedattn", block: paired, about: "a gate on attention's result" },
    { shape: "dwconv", block: paired, about: "a convolution that is added as well" },
  ])("$shape: $about", async ({ shape, block }) => {
    const { recogniser, branches } = ditView(lift(await readModel(join(import.meta.dirname, "fixtures", "shapes", `${shape}.onnx`))));
    expect(recogniser).toBe("single-stream");
    expect(branches.map(({ kind, block: index, stream }) => ({ kind, index, stream }))).toEqual(
      [0, 1, 2, 3].flatMap((index) => block.map((kind) => ({ kind, index, stream: "image" }))),
    );
    expect(branches.every(({ gated }) => gated)).toBe(shape !== "parallelsum");
  });
});

describe("cuts", () => {
  const read = async (name: string, cut: Cut): Promise<Map<string, number[]>> => {
    const fixture = fixtureNamed(name);
    const lifted = lift(await readModel(fixture.model), { cut });
    const [prediction] = lifted.graph.outputs;
    if (!prediction) throw new Error("no prediction");
    const outputs = [
      { name: "prediction", value: prediction.value },
      ...lifted.graph.marks.map(({ site, value }) => ({ name: site, value })),
    ];
    const session = await Session.open({ ...lifted, graph: { ...lifted.graph, outputs } }, { optimise: "basic" });
    const results = await session.run(recordedInputs(fixture, lifted));
    await session.close();
    return new Map([...results].map(([site, value]) => [site, tensorNumbers(value)]));
  };
  const sum = (...all: (number[] | undefined)[]): number[] =>
    all.reduce<number[]>((total, values = []) => values.map((value, i) => value + (total[i] ?? 0)), []);

  it.each(["dit/dynamo-20", "sd3/torchscript-17", "cogvideox/torchscript-17"])(
    "%s: blocks add what their gated branches add, and the result stays",
    async (name) => {
      const gates = await read(name, { at: "gate" });
      const truth = recorded(fixtureNamed(name), "prediction.npy");
      for (const cut of [
        { at: "block" },
        { at: "stack" },
        {
          at: "ranges",
          ranges: [
            [0, 0],
            [1, 2],
          ],
        },
      ] satisfies Cut[]) {
        // prettier-ignore
        const blocks = await read(name, cut);
        expect(relativeL2(blocks.get("prediction") ?? [], truth)).toBeLessThanOrEqual(1e-5);
        expect(blocks.size).toBeGreaterThan(1);
        if (name !== "dit/dynamo-20") continue;
        for (const [site, values] of blocks) {
          const [, first, last = first] = /^block-(\d+)(?:-(\d+))?$/.exec(site) ?? [];
          if (first === undefined) continue;
          const within = [...gates].filter(
            ([key]) => Number(key.split("-")[1]) >= Number(first) && Number(key.split("-")[1]) <= Number(last),
          );
          expect(relativeL2(values, sum(...within.map(([, value]) => value))), site).toBeLessThanOrEqual(1e-5);
        }
      }
    },
  );

  it("norm: the recorded value behind a sandwich norm", async () => {
    const fixture = fixtureNamed("lumina2/torchscript-17");
    const values = await read("lumina2/torchscript-17", { at: "norm" });
    const { branches } = ditView(lift(await readModel(fixture.model), { cut: { at: "norm" } }));
    for (const [i, { site }] of branches.entries()) {
      const file = fixture.branches[i]?.post_norm?.file ?? "";
      expect(relativeL2(values.get(site) ?? [], recorded(fixture, file)), site).toBeLessThanOrEqual(1e-5);
    }
  });
});

describe("what is no diffusion transformer", () => {
  const NO_BRANCH = `<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,4,8,8] x, int64[2] t) => (float[2,4,8,8] y) {
      f = Cast<to = 1>(t)
      s = Sin(f)
      w = Constant<value = float[4,4,1,1] {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}>()
      h = Conv(x, w)
      y = Add(x, h)
    }`;

  it("is refused with the nearest miss", () => {
    const problem = thrownBy(() => lift(parse(NO_BRANCH)));
    expect(problem?.code).toBe("NOT_RECOGNISED");
    expect(problem?.hint).toContain("residual add");
  });

  it("is refused where no input is a time", () => {
    const text = NO_BRANCH.replace(", int64[2] t", "").replace("f = Cast<to = 1>(t)", "").replace("s = Sin(f)", "");
    expect(codeOf(() => lift(parse(text)))).toBe("NOT_RECOGNISED");
  });

  it("names the known inputs when a name is wrong", () => {
    const problem = thrownBy(() => lift(parse(NO_BRANCH), { latent: "z" }));
    expect(problem?.code).toBe("UNKNOWN_NAME");
    expect(problem?.hint).toContain("x, t");
  });
});
