/** `fuse` on what exporters write: the same numbers, and from every exporter the same operators. */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import { type Graph, inputValue, isOp, type Model, opsetOf } from "../ir/graph.js";
import { type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { elementCount } from "../ir/types.js";
import { RESHAPES } from "../passes/fusing/views.js";
import { fuseRules } from "../passes/fuse/index.js";
import { type PassRecord, runPasses } from "../passes/pass.js";
import { STEP_PASSES } from "../passes/index.js";
import fuse, { applied } from "../passes/fuse.js";
import type { FuseRule } from "../passes/fuse-rule.js";
import { relativeL2 } from "../schedules/index.js";
import { Session, type Tensors } from "../src/runtime/session.js";
import { type Fixture, fixtures, recordedInputs } from "./support/fixtures.js";
import { openFixture } from "./support/jobs.js";
import { readSubject } from "./support/pass-case.js";

it("every file of a rule has its place in the order", () => {
  const stems = readdirSync(new URL("../passes/fuse/", import.meta.url)).map((file) => file.replace(/\.ts$/, ""));
  expect(fuseRules.map(({ name }) => name).sort()).toEqual(stems.filter((stem) => stem !== "index").sort());
});

async function run(model: Model, feeds: Tensors): Promise<readonly TensorData[]> {
  const session = await Session.open(model, { optimise: "disabled", threads: 1 });
  try {
    return [...(await session.run(feeds)).values()];
  } finally {
    await session.close();
  }
}

describe("what stands in the cases computes what stood there", () => {
  const folder = new URL("cases/passes/fuse/", import.meta.url);

  it.each(readdirSync(folder))("%s", async (file) => {
    const [given = "", expected = ""] = readFileSync(new URL(file, folder), "utf8").split("\n---\n");
    const { model } = readSubject(given);
    const feeds = new Map(
      model.graph.inputs.map((input, i) => {
        const shape = shapeOf(input);
        const numbers = Array.from({ length: elementCount(shape) }, (_, at) => 2 * Math.sin(7 * i + 3 * at + 1));
        return [input.name, tensorOf(elemOf(input), shape, numbers)] as const;
      }),
    );
    const before = await run(model, feeds);
    const after = await run(readSubject(expected).model, feeds);
    for (const [i, value] of before.entries()) {
      expect(after[i]?.shape).toEqual(value.shape);
      expect(relativeL2(tensorNumbers(after[i] ?? value), tensorNumbers(value))).toBeLessThanOrEqual(1e-6);
    }
  });
});

describe("a rule that fails", () => {
  const build = new Builder();
  const x = inputValue("x", { elem: "float", shape: [2] });
  const y = build.op("Neg", [x], "blocks/0/neg", { elem: "float", shape: [2] });
  const graph: Graph = { name: "g", inputs: [x], outputs: [{ name: "y", value: y }], nodes: build.nodes, marks: [] };
  const rule = (apply: FuseRule["apply"]): FuseRule => ({ name: "broken", opset: 1, apply });
  const failure = (apply: FuseRule["apply"]): unknown => {
    try {
      return applied(graph, rule(apply));
    } catch (error) {
      return error;
    }
  };

  it("is named, with the node", () => {
    const cause = new Error("no such axis");
    const thrown = failure(() => {
      throw cause;
    });
    expect(thrown).toMatchObject({ message: "internal: the rule 'broken' of fuse failed at Neg 'blocks/0/neg'", cause });
  });

  it("is named where it changes a type or leaves an output out", () => {
    const message = "internal: the rule 'broken' of fuse failed at Neg 'blocks/0/neg': it changed the type of 'blocks/0/neg'";
    expect(failure((node, place) => [place.build.op("Neg", node.inputs, "other", { elem: "float", shape: [3] })])).toMatchObject({
      message,
    });
    expect(failure(() => [])).toMatchObject({ message });
  });
});

interface Fused {
  readonly model: Model;
  readonly record: PassRecord | undefined;
  readonly before: Model;
  readonly feeds: Tensors;
}

async function fused(fixture: Fixture): Promise<Fused> {
  const { model, run, questions } = await openFixture(fixture, "none");
  const context = { ...questions, run };
  const before = await runPasses(model, STEP_PASSES.slice(0, STEP_PASSES.indexOf(fuse)), context);
  const records: PassRecord[] = [];
  const after = await runPasses(before, [fuse], context, { log: (record) => records.push(record) });
  return { model: after, record: records[0], before, feeds: recordedInputs(fixture, model) };
}

/** How many there are of each operator; those that only give another shape count as one. */
function operators({ graph }: Model): ReadonlyMap<string, number> {
  const found = new Map<string, number>();
  for (const node of graph.nodes) {
    const name = isOp(node, ...RESHAPES) ? "Reshape" : node.opType;
    found.set(name, (found.get(name) ?? 0) + 1);
  }
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Attention of which something stays as it was: weights that are guarded against rows of NaN, a query of one pooled token. */
const SOFTMAX_LEFT = new Map([["lumina2/torchscript-17", 3], ["hunyuandit/dynamo-20", 1]]); // prettier-ignore

describe("exports of every architecture", () => {
  it.each(fixtures)("$name", async (fixture) => {
    const { model, record, before, feeds } = await fused(fixture);
    const [found] = await run(model, feeds);
    const [wanted] = await run(before, feeds);
    if (!found || !wanted) throw new Error("no prediction");
    expect(relativeL2(tensorNumbers(found), tensorNumbers(wanted))).toBeLessThanOrEqual(fixture.isHalf ? 1e-3 : 1e-5);
    expect(model.graph.marks.map(({ site }) => site)).toEqual(before.graph.marks.map(({ site }) => site));
    expect(model.graph.nodes.length).toBeLessThan(before.graph.nodes.length);
    expect(opsetOf(model)).toBeLessThanOrEqual(23);
    expect(Object.keys(record?.counts ?? {})).toEqual(fuseRules.map(({ name }) => name));
    const left = operators(model);
    expect(left.get("Softmax") ?? 0).toBe(SOFTMAX_LEFT.get(fixture.name) ?? 0);
    for (const spelledOut of ["Erf", "Reciprocal", "Sqrt", "Identity"]) expect([...left.keys()]).not.toContain(spelledOut);
  });
});

it.each(["dit", "dit_original", "sd3", "stable_audio"])("all exports of %s come out with the same operators", async (architecture) => {
  const exports = fixtures.filter(({ name }) => name.startsWith(`${architecture}/`));
  expect(exports.length).toBeGreaterThan(1);
  const found = new Set<string>();
  for (const fixture of exports) found.add(JSON.stringify([...operators((await fused(fixture)).model)]));
  expect([...found]).toHaveLength(1);
});
