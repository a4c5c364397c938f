/** Every registered pass on every fixture: deterministic, well-formed, stable, and faithful in the runtime as far as it claims. */
import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Builder, elemOf, shapeOf } from "../ir/build.js";
import { check } from "../ir/check.js";
import { constant, ditView, inputValue, type Model, opsetOf, type Value } from "../ir/graph.js";
import { lift } from "../ir/lift/index.js";
import { readModel } from "../ir/onnx/index.js";
import { isStandard } from "../ir/ops.js";
import { readTensor, type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { print } from "../ir/print.js";
import { elementCount, type TensorType } from "../ir/types.js";
import {
  type AnyContext,
  BIND_PASSES,
  CACHE_PASSES,
  forms,
  LOOP_PASSES,
  passes,
  RUN_PASSES,
  SETTLE_PASSES,
  STEP_PASSES,
} from "../passes/index.js";
import { type Pass, type PassRecord, runPasses } from "../passes/pass.js";
import instrument from "../passes/instrument.js";
import kernels from "../passes/decompose-for-cuda.js";
import standard from "../passes/decompose-contrib-ops.js";
import fold from "../passes/fold.js";
import fix from "../passes/freeze-inputs.js";
import dce from "../passes/dce.js";
import precision from "../passes/precision.js";
import cse from "../passes/cse.js";
import { relativeL2 } from "../schedules/index.js";
import { feedsOf } from "../src/artifact/artifact.js";
import { cudaCoverage } from "../src/compile/cuda-coverage.js";
import { sampleInputs } from "../src/job/run-inputs.js";
import { Session, type Tensors } from "../src/runtime/session.js";
import { type Fixture, fixtures, recorded, recordedInputs } from "./support/fixtures.js";
import { BARE } from "./support/runs.js";
import { readSubject } from "./support/pass-case.js";
import { nullClassOf, openFixture, planOf, randomSchedule } from "./support/jobs.js";

const PIPELINE: readonly Pass<AnyContext>[] = [...BIND_PASSES, ...SETTLE_PASSES, ...STEP_PASSES, ...RUN_PASSES, ...CACHE_PASSES];
/** How far `rounding` may go, in relative L2. */
const ROUNDING = 1e-5;

async function ran(model: Model, feeds: Tensors): Promise<Tensors> {
  const session = await Session.open(model, { optimise: "disabled", threads: 1 });
  try {
    return await session.run(feeds);
  } finally {
    await session.close();
  }
}

/** The first output. */
async function result(model: Model, feeds: Tensors): Promise<TensorData> {
  const [first] = (await ran(model, feeds)).values();
  if (!first) throw new Error("the model has no output");
  return first;
}

function expectFaithful(after: TensorData, before: TensorData, { name, preserves }: Pick<Pass, "name" | "preserves">): void {
  expect(after.shape).toEqual(before.shape);
  if (preserves === "bits") expect(Buffer.compare(readTensor(after), readTensor(before)), name).toBe(0);
  else expect(relativeL2(tensorNumbers(after), tensorNumbers(before)), name).toBeLessThanOrEqual(ROUNDING);
}

it("every file of a pass is registered under its name, and has its place", () => {
  const stems = readdirSync(new URL("../passes/", import.meta.url)).flatMap((file) => /^(.*)\.ts$/.exec(file)?.[1] ?? []);
  expect([...passes.keys()]).toEqual(stems.filter((stem) => !["form", "fuse-rule", "index", "pass", "stages"].includes(stem)).sort());
  // Folding has two places, and is less eager in one of them.
  const placed = new Set([...PIPELINE, ...[...forms.values()].flatMap((form) => form.passes), instrument].map(({ name }) => name));
  expect([...placed].sort()).toEqual([...passes.keys()]);
});

/** One export of every architecture, and all of those that are conditioned on a class. */
const exports = fixtures.filter((fixture, i) => !fixture.isHalf && (hasClasses(fixture) || fixtures[i - 1]?.folder !== fixture.folder));

function hasClasses(fixture: Fixture): boolean {
  return nullClassOf(fixture) !== undefined;
}

/** The sizes of symbolic dimensions, as a bound model has them. */
function sizesIn(model: Model, bound: Model): ReadonlyMap<string, number> {
  const shapes = new Map(bound.graph.inputs.map((value) => [value.name, shapeOf(value)]));
  const dims = model.graph.inputs.flatMap(({ name, type }) =>
    (type?.shape ?? []).map((dim, axis) => [dim, shapes.get(name)?.[axis]] as const),
  );
  return new Map(dims.flatMap(([dim, size]) => (typeof dim === "string" && size !== undefined ? [[dim, size] as const] : [])));
}

const silent = (): void => undefined;

/**
 * Passes whose second run finds something to do, and why: `unroll` and `loop` take a step and make a run of it, `instrument` makes
 * outputs of the marks that are there, `merge` writes every sum of three terms or more anew, and `precision`, where one is asked
 * for, every cast to it.
 */
const RESTLESS = new Set(["unroll", "loop", "instrument", "merge"]);

describe("a pass that finds nothing to change gives back the very model", () => {
  it.each(fixtures)("$name", async (fixture) => {
    const job = await openFixture(fixture, "none");
    const lifted = lift(await readModel(fixture.model));
    const { plan } = planOf(job, randomSchedule(job, 3).cells);
    const context: AnyContext = { ...job.questions, sizes: sizesIn(lifted, job.model), run: job.run, plan };
    const through = async (given: Model, line: readonly Pass<AnyContext>[]): Promise<Model> => {
      let model = given;
      for (const pass of line) {
        model = await pass.run(model, context, silent);
        const again = RESTLESS.has(pass.name) ? model : await pass.run(model, context, silent);
        expect(again === model, pass.name).toBe(true);
      }
      return model;
    };
    await through(lifted, [...BIND_PASSES, ...SETTLE_PASSES]);
    const step = await through(job.model, STEP_PASSES);
    await through(step, [...RUN_PASSES, ...CACHE_PASSES]);
    await through(step, LOOP_PASSES);
  });

  it("and runPasses tells of it, and looks at it no more", async () => {
    const build = new Builder();
    const x = inputValue("x", float(2));
    const wrong = build.op("Neg", [x], "wrong", float(3));
    const model = modelOf([x], build, [wrong]);
    const records: PassRecord[] = [];
    const log = (record: PassRecord): void => void records.push(record);
    const asked = { ...BARE, run: { ...BARE.run, precision: "float" as const } };
    const after = await runPasses(model, [dce, cse, instrument, precision], asked, { log });
    expect(after).toBe(model);
    expect(records.map(({ name, changed }) => [name, changed])).toEqual([
      ["dce", false],
      ["cse", false],
      ["instrument", false],
      ["precision", false],
    ]);
    build.op("Neg", [x], "unread", float(2));
    await runPasses(modelOf([x], build, [wrong]), [dce], BARE, { log });
    expect(records.at(-1)).toMatchObject({ name: "dce", nodes: 1, changed: true });
  });
});

describe.each(exports)("$name", (fixture) => {
  it("every pass of the pipeline keeps its word on what the ones before it made", async () => {
    const job = await openFixture(fixture, hasClasses(fixture) ? "batched" : "none");
    const { plan } = planOf(job, randomSchedule(job, 3).cells);

    let model = lift(await readModel(fixture.model));
    const context: AnyContext = { ...job.questions, sizes: sizesIn(model, job.model), run: job.run, plan };
    let feeds: Tensors = recordedInputs(fixture, model);
    let before = await result(model, feeds);
    for (const [i, pass] of PIPELINE.entries()) {
      const { name } = pass;
      const after = await pass.run(model, context, silent);
      const where = `${name}, pass ${i}`;
      const text = print(after, 8);
      expect(check(after), where).toEqual([]);
      expect(print(await pass.run(model, context, silent), 8), `${where}, again`).toBe(text);
      if (name === "unroll") feeds = feedsOf(job, sampleInputs(job, 0, { seed: 1 }));
      const value = await result(after, feeds);
      if (name !== "unroll" && pass.preserves !== "plan") expectFaithful(value, before, pass);
      // The plan of this test changes the result: `reuse` does something.
      if (name === "reuse") expect(relativeL2(tensorNumbers(value), tensorNumbers(before))).toBeGreaterThan(1e-4);
      model = after;
      before = value;
    }
    expect(model.graph.outputs.map(({ name }) => name)).toEqual(["latent"]);
  });

  it.runIf(hasClasses(fixture))("fix: a label that is a constant is a label that is fed", async () => {
    const { model, run, questions } = await openFixture(fixture, "none");
    const feeds = new Map(recordedInputs(fixture, model));
    const before = await result(model, feeds);
    const [label = ""] = ditView(model).conditions;
    const data = feeds.get(label);
    if (!data) throw new Error("the label has not been recorded");
    const source = { kind: "constant", data } as const;
    const condition = { type: data, isBatched: true, halves: { cond: source, uncond: source } };
    const after = await runPasses(model, [fix], { ...questions, run: { ...run, conditions: new Map([[label, condition]]) } });
    feeds.delete(label);
    expect(ditView(after).conditions).toEqual([]);
    expectFaithful(await result(after, feeds), before, fix);
  });

  it("instrument: the recorded branches come out, and the prediction stays", async () => {
    const { model } = await openFixture(fixture, "none");
    const feeds = recordedInputs(fixture, model);
    const after = await runPasses(model, [instrument], {});
    const [prediction, ...branches] = (await ran(after, feeds)).values();
    if (!prediction) throw new Error("no prediction");
    expectFaithful(prediction, await result(model, feeds), instrument);
    expect(branches).toHaveLength(fixture.branches.length);
    for (const [i, branch] of branches.entries()) {
      const truth = recorded(fixture, fixture.branches[i]?.file ?? "");
      expect(relativeL2(tensorNumbers(branch), truth)).toBeLessThanOrEqual(fixture.tolerance);
    }
  });
});

function modelOf(inputs: readonly Value[], { nodes }: Builder, outputs: readonly Value[]): Model {
  const ports = outputs.map((value, i) => ({ name: `out${i}`, value }));
  return {
    graph: { name: "g", inputs, outputs: ports, nodes, marks: [] },
    opsets: new Map([["", 20]]),
    irVersion: 10,
    metadata: new Map(),
  };
}

function float(...shape: readonly number[]): TensorType {
  return { elem: "float", shape };
}

describe("fold, apart from its cases", () => {
  const w = constant("w", tensorOf("float", [32768], new Float32Array(32768).fill(2)));

  it("makes nothing large that is larger than what it is made of, each constant counted once", async () => {
    const build = new Builder();
    const x = inputValue("x", float(1));
    const parts = [build.op("Neg", [w], "negated", float(32768)), build.concat([w, w], 0, "twice")];
    const outputs = parts.map((value) => build.op("Mul", [value, x], `${value.name}_x`, float(...shapeOf(value))));
    const after = await runPasses(modelOf([x], build, outputs), [fold], BARE);
    expect(after.graph.nodes.map(({ opType }) => opType)).toEqual(["Concat", "Mul", "Mul"]);
  });

  it("takes no input for a constant because it has a default", async () => {
    const build = new Builder();
    const input: Value = { ...w, name: "input" };
    const model = modelOf([input], build, [build.op("Neg", [input], "negated", float(32768))]);
    expect((await runPasses(model, [fold], BARE)).graph.nodes).toHaveLength(1);
  });
});

describe.each([standard, kernels])("$name computes what ONNX Runtime's own kernels compute", (pass) => {
  const folder = new URL(`cases/passes/${pass.name}/`, import.meta.url);
  const runnable = readdirSync(folder).filter(
    (file) => !["what-has-no-rule.txt", "pad-that-stays.txt", "pad-bfloat16.txt", "extremum-that-stays.txt"].includes(file),
  );

  it.each(runnable)("%s", async (file) => {
    const { model, context } = readSubject(readFileSync(new URL(file, folder), "utf8").split("---")[0] ?? "");
    const after = await runPasses(model, [pass], context);
    expect(after.graph.nodes.every((node) => isStandard(node, opsetOf(after)))).toBe(true);
    expect([...after.opsets.keys()]).toEqual([""]);
    if (pass === kernels) expect(cudaCoverage(after).missing).toEqual([]);
    const feeds = new Map(
      model.graph.inputs.map((input, i) => {
        const shape = shapeOf(input);
        const numbers = Array.from({ length: elementCount(shape) }, (_, at) => 2 * Math.sin(7 * i + 3 * at + 1));
        const isWhole = elemOf(input).startsWith("int");
        return [input.name, tensorOf(elemOf(input), shape, isWhole ? numbers.map(Math.round) : numbers)] as const;
      }),
    );
    const found = await ran(after, feeds);
    for (const [name, value] of await ran(model, feeds)) {
      const limit = value.elem === "float16" ? 1e-3 : ROUNDING;
      expect(relativeL2(tensorNumbers(found.get(name) ?? value), tensorNumbers(value)), name).toBeLessThanOrEqual(limit);
      expect(found.get(name)?.shape, name).toEqual(value.shape);
    }
  });
});

it("fix makes a constant of an input with a default", async () => {
  const build = new Builder();
  const [x, w] = [inputValue("x", float(2)), constant("w", tensorOf("float", [2], [1, 2]))];
  const model = modelOf([x, w], build, [build.op("Mul", [x, w], "product", float(2))]);
  const dit = { recogniser: "", latent: "x", conditions: ["w"], prediction: "out0", branches: [], constant: [], guesses: [], warnings: [] };
  const after = await runPasses({ ...model, dit }, [fix], BARE);
  expect(after.graph.inputs).toEqual([x]);
  expect(ditView(after).conditions).toEqual([]);
});

/** One node of a random graph: an operator and which of the earlier values it reads. */
interface Draw {
  readonly op: (typeof OPS)[number];
  readonly reads: readonly [number, number];
}

const OPS = ["Add", "Sub", "Mul", "Max", "MatMul", "Tanh", "Neg", "Transpose"] as const;
const SIDE = 4;
const SQUARE = float(SIDE, SIDE);
const UNARY: readonly string[] = ["Tanh", "Neg", "Transpose"];

const draws = fc.array(fc.record({ op: fc.constantFrom(...OPS), reads: fc.tuple(fc.nat(), fc.nat()) }), { minLength: 1, maxLength: 40 });
const squares = fc.array(fc.array(fc.integer({ min: -8, max: 8 }).map((n) => n / 8), { minLength: SIDE * SIDE, maxLength: SIDE * SIDE }), { minLength: 1, maxLength: 4 }); // prettier-ignore

/** A graph on one 4 × 4 input and some 4 × 4 constants; the first and the last node are outputs. */
function randomModel(nodes: readonly Draw[], constants: readonly (readonly number[])[]): Model {
  const build = new Builder();
  const x = inputValue("x", SQUARE);
  const values: Value[] = [x, ...constants.map((numbers, i) => constant(`c${i}`, tensorOf("float", [SIDE, SIDE], numbers)))];
  const leaves = values.length;
  for (const [i, { op, reads }] of nodes.entries()) {
    // Half of the operands are recent, so that graphs get deep; the rest are any.
    const operands = reads.map(
      (at, side) => values[side === 0 ? at % values.length : values.length - 1 - (at % Math.min(4, values.length))],
    );
    values.push(build.op(op, UNARY.includes(op) ? operands.slice(0, 1) : operands, `v${i}`, SQUARE));
  }
  return modelOf(
    [x],
    build,
    [values[leaves], values.at(-1)].flatMap((value) => value ?? []),
  );
}

describe("random graphs", () => {
  const x = tensorOf(
    "float",
    [SIDE, SIDE],
    Array.from({ length: SIDE * SIDE }, (_, i) => Math.sin(i + 1)),
  );
  const feeds = new Map([["x", x]]);

  it("fold, cse and dce keep the outputs, leave nothing constant, nothing twice and nothing dead", async () => {
    let [made, left] = [0, 0];
    await fc.assert(
      fc.asyncProperty(draws, squares, async (nodes, constants) => {
        const model = randomModel(nodes, constants);
        const after = await runPasses(model, [fold, cse, dce], BARE);
        const { graph } = after;
        const [was, is] = [await ran(model, feeds), await ran(after, feeds)];
        for (const [name, value] of was) {
          const numbers = tensorNumbers(value);
          const found = tensorNumbers(is.get(name) ?? x);
          if (numbers.every((n) => n === 0)) expect(found.every((n) => n === 0)).toBe(true);
          else expect(relativeL2(found, numbers)).toBeLessThanOrEqual(ROUNDING);
        }
        const ids = new Map<Value | undefined, number>();
        const lines = graph.nodes.map(({ opType, inputs, outputs }) => {
          expect(inputs.some((value) => value && !value.data)).toBe(true);
          for (const output of outputs) ids.set(output, ids.size);
          return `${opType} ${inputs.map((value) => (value?.data ? print(modelOf([], new Builder(), [value])) : (ids.get(value) ?? "x"))).join()}`;
        });
        expect(new Set(lines).size).toBe(lines.length);
        for (const pass of [fold, cse, dce]) expect((await pass.run(after, BARE)) === after).toBe(true);
        made += model.graph.nodes.length;
        left += graph.nodes.length;
      }),
      { seed: 20251, numRuns: 100 },
    );
    // The graphs have something to fold, to share and to drop.
    expect(left).toBeLessThan(0.6 * made);
    expect(left).toBeGreaterThan(0.1 * made);
  });
});
