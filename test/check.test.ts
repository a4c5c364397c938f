/** Each rule of the list at the head of ir/check.ts: a graph that breaks it and no other. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { assertWellFormed, check, requireWellFormed, type RuleName } from "../ir/check.js";
import { CompilerError } from "../ir/diagnostics.js";
import { constant, type Graph, inputValue, isOp, makeNode, makeOp, type Model, type Node, type Value } from "../ir/graph.js";
import { type TensorData, tensorOf } from "../ir/tensor.js";
import { parse } from "../ir/parse.js";
import { rewrite, sweep } from "../ir/rewrite.js";
import { type Pass, runPasses } from "../passes/index.js";
import { LOOPED } from "./support/models.js";
import { readSubject } from "./support/pass-case.js";

/** A lifted step with one of everything. */
function fine(): Model {
  const model = parse(`<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
    g (float[2,4] x, float[2] t, int64[2] c) => (float[2,4] y, float[2] t)
    <float[4] w = {1, 2, 3, 4}, float[2,4] a>
    {
      a = Mul(x, w)
      b, "" = com.microsoft.Thing<value = float[2] {1, 2}>(a, "", c)
      # capture outer = t
      y = Add(a, b)
      # mark attn-0 @0 = a
      # mark attn-0 @1 = b
      # mark mlp-0 @0 = x
    }`);
  const branch = { kind: "attn", block: 0, stream: "image", gated: true } as const;
  return {
    ...model,
    dit: {
      recogniser: "test", latent: "x", timestep: "t", conditions: ["c"], prediction: "y", constant: [], guesses: [], warnings: [],
      branches: [{ ...branch, site: "attn-0" }, { ...branch, site: "mlp-0" }],
    },
  }; // prettier-ignore
}

function withGraph(change: (graph: Graph) => Partial<Graph>): Model {
  const model = fine();
  return { ...model, graph: { ...model.graph, ...change(model.graph) } };
}

function nth<T>(list: readonly T[], i: number): T {
  const item = list[i];
  if (item === undefined) throw new Error(`no item ${i}`);
  return item;
}

/** The graph with one more node that reads this value. */
function reading(graph: Graph, value: Value): Partial<Graph> {
  return { nodes: [...graph.nodes, makeOp("Exp", [value], { name: "extra" }).node] };
}

/** The graph with one more node, which has a graph. */
function holding(graph: Graph, inner: Partial<Graph>): Partial<Graph> {
  const value: Graph = { name: "inner", inputs: [], outputs: [], nodes: [], marks: [], ...inner };
  return {
    nodes: [...graph.nodes, makeNode({ opType: "If", inputs: [], outputs: [], attributes: new Map([["body", { kind: "graph", value }]]) })],
  };
}

function floats(shape: readonly number[], bytes: number): TensorData {
  return { elem: "float", shape, content: { kind: "bytes", bytes: new Uint8Array(bytes) } };
}

const BROKEN: readonly (readonly [RuleName, string, () => Model])[] = [
  ["value-kind", "result and constant", () => withGraph((g) => {
    const node = makeNode({ opType: "Exp", inputs: [], outputs: [] });
    const value: Value = { ...constant("k", tensorOf("float", [1], [1])), producer: node };
    return reading(g, value);
  })],
  ["value-defined", "of nobody", () => withGraph((g) => reading(g, inputValue("stray")))],
  ["value-defined", "out of order", () => withGraph((g) => ({ nodes: [nth(g.nodes, 0), nth(g.nodes, 2), nth(g.nodes, 1)] }))],
  ["value-defined", "of a node that is gone", () => withGraph((g) => ({ nodes: g.nodes.filter((_, i) => i !== 1), marks: g.marks.filter((_, i) => i !== 1) }))],
  ["value-defined", "of itself", () => withGraph((g) => {
    const inputs: Value[] = [];
    const node = makeNode({ opType: "Exp", inputs, outputs: [{ name: "loop" }] });
    inputs.push(nth(node.outputs, 0));
    return { nodes: [...g.nodes, node] };
  })],
  ["value-defined", "captured", () => withGraph((g) => ({
    nodes: [...g.nodes, makeNode({ opType: "If", inputs: [], outputs: [], captures: [{ name: "o", value: inputValue("stray") }] })],
  }))],
  ["value-defined", "in the graph of a node", () => withGraph((g) => holding(g, { nodes: [makeOp("Exp", [inputValue("stray")], { name: "e" }).node] }))],
  ["value-defined", "of the graph of a node", () => withGraph((g) => {
    const inner = makeOp("Exp", [nth(g.inputs, 0)], { name: "e" });
    const { nodes = [] } = holding(g, { nodes: [inner.node] });
    return { nodes: [...nodes, makeOp("Exp", [inner.value], { name: "extra" }).node] };
  })],
  ["value-type", "half a row", () => withGraph((g) => ({ inputs: [...g.inputs, inputValue("h", { elem: "float", shape: [1.5] })] }))],
  ["value-type", "less than nothing", () => withGraph((g) => ({
    nodes: [...g.nodes, makeOp("Exp", [], { name: "h", type: { elem: "float", shape: [-1] } }).node],
  }))],
  ["node-output", "another's", () => withGraph((g) => {
    const node: Node = { ...makeNode({ opType: "Exp", inputs: [], outputs: [] }), outputs: nth(g.nodes, 0).outputs };
    return { nodes: [...g.nodes, node] };
  })],
  ["node-output", "twice", () => withGraph((g) => {
    const outputs: Value[] = [];
    const node: Node = { ...makeNode({ opType: "Exp", inputs: [], outputs: [] }), outputs };
    const value: Value = { name: "o", producer: node };
    outputs.push(value, value);
    return { nodes: [...g.nodes, node] };
  })],
  ["node-capture", "two of a name", () => withGraph((g) => ({
    nodes: [...g.nodes, makeNode({ opType: "If", inputs: [], outputs: [], captures: g.inputs.slice(1).map((value) => ({ name: "o", value })) })],
  }))],
  ["node-opset", "unknown domain", () => withGraph((g) => ({
    nodes: [...g.nodes, makeNode({ domain: "org.other", opType: "Op", inputs: [], outputs: [] })],
  }))],
  ["input-plain", "a result", () => withGraph((g) => ({ inputs: [...g.inputs, nth(nth(g.nodes, 0).outputs, 0)] }))],
  ["input-plain", "of the graph of a node, from around it", () => withGraph((g) => holding(g, { inputs: [nth(g.inputs, 0)] }))],
  ["input-plain", "of the graph of a node, with a default", () => withGraph((g) => holding(g, { inputs: [constant("k", tensorOf("float", [1], [1]))] }))],
  ["input-name", "none", () => withGraph((g) => ({ inputs: [...g.inputs, inputValue("")] }))],
  ["input-name", "two alike", () => withGraph((g) => ({ inputs: [...g.inputs, inputValue("c")] }))],
  ["output-defined", "stray", () => withGraph((g) => ({ outputs: [...g.outputs, { name: "z", value: inputValue("stray") }] }))],
  ["output-defined", "of the graph of a node", () => withGraph((g) => holding(g, { outputs: [{ name: "z", value: inputValue("stray") }] }))],
  ["output-name", "none", () => withGraph((g) => ({ outputs: [...g.outputs, { name: "", value: nth(g.inputs, 0) }] }))],
  ["output-name", "two alike", () => withGraph((g) => ({ outputs: [...g.outputs, nth(g.outputs, 0)] }))],
  ["output-name", "an input's", () => withGraph((g) => ({ outputs: [...g.outputs, { name: "x", value: nth(g.inputs, 2) }] }))],
  ["constant-type", "another shape", () => withGraph((g) =>
    reading(g, { name: "k", type: { elem: "float", shape: [1, 2] }, data: tensorOf("float", [2], [1, 2]) }))],
  ["constant-size", "too few bytes", () => withGraph((g) => reading(g, constant("k", floats([2], 7))))],
  ["constant-size", "too long a range of a file", () => withGraph((g) =>
    reading(g, constant("k", { elem: "float", shape: [2], content: { kind: "file", file: "f", offset: 0, length: 12 } })))],
  ["constant-size", "too few strings", () => withGraph((g) =>
    reading(g, constant("k", { elem: "string", shape: [2], content: { kind: "strings", strings: [new Uint8Array()] } })))],
  ["constant-size", "strings that are numbers", () => withGraph((g) => reading(g, constant("k", { ...floats([], 4), elem: "string" })))],
  ["constant-size", "of an attribute", () => withGraph((g) => ({
    nodes: [...g.nodes, makeOp("Constant", [], { name: "k" }, { value: { kind: "tensor", value: floats([3], 4) } }).node],
  }))],
  ["mark-twice", "one step", () => withGraph((g) => ({ marks: [...g.marks, { ...nth(g.marks, 1), value: nth(g.inputs, 0) }] }))],
  ["mark-step", "before the first", () => withGraph((g) => ({ marks: [...g.marks, { ...nth(g.marks, 1), step: -1 }] }))],
  ["mark-defined", "stray", () => withGraph((g) => ({ marks: [...g.marks, { site: "s", half: "cond", step: 0, value: inputValue("stray") }] }))],
  ["dit-branch", "without a mark", () => withGraph((g) => ({ marks: g.marks.slice(0, 2) }))],
  ...(["latent", "timestep", "prediction"] as const).map((port) => ["dit-port", port, () => withDit({ [port]: "gone" })] as const),
  ["dit-port", "condition", () => withDit({ conditions: ["c", "gone"] })],
]; // prettier-ignore

function withDit(change: Partial<NonNullable<Model["dit"]>>): Model {
  const model = fine();
  if (!model.dit) throw new Error("not lifted");
  return { ...model, dit: { ...model.dit, ...change } };
}

describe("check", () => {
  it("finds nothing in a graph that is well-formed", () => {
    expect(check(fine())).toEqual([]);
    expect(check(withDit({ timestep: undefined }))).toEqual([]);
    expect(check(parse(LOOPED))).toEqual([]);
  });

  it.each(BROKEN)("%s: %s", (rule, _, broken) => {
    expect(check(broken()).map((violation) => violation.rule)).toEqual([rule]);
  });

  it("node-twice, with what follows from it", () => {
    const twice = withGraph((g) => ({ nodes: [nth(g.nodes, 0), ...g.nodes] }));
    expect(check(twice).map(({ rule }) => rule)).toEqual(["node-twice"]);
    const inside = withGraph((g) => holding(g, { nodes: [nth(g.nodes, 0)] }));
    expect(check(inside).map(({ rule }) => rule)).toEqual(["node-twice"]);
  });

  it("dit-branch: two of a site", () => {
    const { dit } = fine();
    expect(check(withDit({ branches: [...(dit?.branches ?? []), nth(dit?.branches ?? [], 0)] })).map(({ rule }) => rule)).toEqual([
      "dit-branch",
    ]);
  });

  it("has a broken graph here for every rule of its list", () => {
    const source = readFileSync(new URL("../ir/check.ts", import.meta.url), "utf8");
    const listed = [...source.slice(0, source.indexOf("*/")).matchAll(/^ \* {3}([a-z]+-[a-z]+) {2,}/gm)].map((match) => match[1]);
    // What a pass has made is asked of two models: test/type-rules.test.ts.
    expect(new Set([...BROKEN.map(([rule]) => rule), "node-twice", "node-type", "mark-kept"])).toEqual(new Set(listed));
  });

  it("collects everything, with node and value", () => {
    const stray = inputValue("stray");
    const { node } = makeOp("Exp", [stray], { name: "e" });
    const model = withGraph((g) => ({ nodes: [...g.nodes, node], marks: g.marks.slice(0, 2) }));
    expect(check(model)).toEqual([
      { rule: "value-defined", message: "'stray' is not defined before it is read", node, value: stray },
      { rule: "dit-branch", message: "the branch 'mlp-0' has no mark" },
    ]);
  });

  it("looks at a constant that everyone reads once", () => {
    const bad = constant("k", floats([2], 7));
    const model = withGraph((g) => ({ nodes: [...g.nodes, ...[1, 2, 3].map(() => makeOp("Exp", [bad], { name: "e" }).node)] }));
    expect(check(model).length).toBe(1);
  });

  it("takes near-linear time", () => {
    const long = (length: number): Model => {
      const x = inputValue("x");
      const nodes: Node[] = [];
      for (let i = 0; i < length; i++) nodes.push(makeOp("Add", [nodes.at(-1)?.outputs[0] ?? x, x], { name: "v" }).node);
      const marks = nodes.map((node, step) => ({ site: "attn-0", half: "cond" as const, step, value: nth(node.outputs, 0) }));
      const graph: Graph = {
        name: "g",
        inputs: [x],
        outputs: [{ name: "y", value: nth(nth(nodes, length - 1).outputs, 0) }],
        nodes,
        marks,
      };
      return { graph, opsets: new Map([["", 20]]), irVersion: 10, metadata: new Map() };
    };
    const best = (model: Model): number =>
      Math.min(
        ...[1, 2, 3].map(() => {
          const started = process.cpuUsage();
          expect(check(model)).toEqual([]);
          return process.cpuUsage(started).user / 1000;
        }),
      );
    const [small, large] = [long(40_000), long(400_000)];
    // Ten times the nodes: a quadratic walk takes a hundred times as long.
    expect(best(large)).toBeLessThan(40 * Math.max(best(small), 5));
  });
});

describe("marks after a pass", () => {
  const before = parse(`<ir_version: 10, opset_import: ["" : 20]>
g (float[2] x) => (float[2] y)
<
  float[2] a,
  float[2] b,
  float[2] dead
>
{
  a = Neg(x)
  b = Exp(a)
  dead = Abs(x)
  y = Add(a, b)
  # mark attn-0 @0 = a
  # mark attn-0 @1 = b
  # mark mlp-0 @0 = dead
}`);
  const pass = (name: string, change: (graph: Graph) => Graph, more: Partial<Pass> = {}): Pass => ({
    name,
    summary: "",
    preserves: "bits",
    run: (model) => ({ ...model, graph: change(model.graph) }),
    ...more,
  });
  const withoutMark = (site: string, at: number): ((graph: Graph) => Graph) => {
    return (graph) => ({ ...graph, marks: graph.marks.filter((mark) => mark.site !== site || mark.step !== at) });
  };
  /** Everyone reads a copy of the branch at step 1. */
  const copied = (graph: Graph): Graph =>
    rewrite(graph, (node) => {
      if (!isOp(node, "Add")) return undefined;
      const copy = makeOp("Exp", [node.inputs[0]], { name: "copy", type: node.outputs[0]?.type });
      const sum = makeOp("Add", [node.inputs[0], copy.value], { name: "y", type: node.outputs[0]?.type });
      return { nodes: [copy.node, sum.node], outputs: [sum.value] };
    });
  const ran = async (given: Pass): Promise<string> => {
    try {
      const { context } = readSubject('\n<ir_version: 10, opset_import: ["" : 20]>\ng (float x) => (float x) {}');
      await runPasses(before, [given], context);
      return "fine";
    } catch (error) {
      if (!(error instanceof Error) || !(error.cause instanceof Error)) throw error;
      return `${error.message}: ${error.cause.message}`;
    }
  };

  it("are those of before; a pass that loses one is named", async () => {
    const lost =
      "internal: pass 'loser' failed (passes before it: none): internal: the graph 'g' is malformed\nmark-kept: the mark of 'attn-0'";
    expect(await ran(pass("loser", withoutMark("attn-0", 0)))).toContain(`${lost} at step 0, on 'a', is gone`);
    expect(await ran(pass("loser", copied))).toContain(`${lost} at step 1, on 'b', is gone, or on a value that nothing needs`);
  });

  it("may go with values that nothing needs, and where that is the purpose", async () => {
    expect(await ran(pass("sweeper", sweep))).toBe("fine");
    expect(await ran(pass("sweeper", withoutMark("mlp-0", 0)))).toBe("fine");
    expect(await ran(pass("taker", withoutMark("attn-0", 0), { takesMarks: true }))).toBe("fine");
  });
});

describe("assertions", () => {
  const broken = withGraph((g) => ({ ...reading(g, inputValue("stray")), marks: g.marks.slice(0, 2) }));

  it("let well-formed graphs pass", () => {
    assertWellFormed(fine());
    requireWellFormed(fine());
  });

  it("show the violations in the text of the graph", () => {
    const shown = [
      "  extra = Exp(stray)",
      "  #   ^ value-defined: 'stray' is not defined before it is read",
      "dit-branch: the branch 'mlp-0' has no mark",
    ].join("\n");
    expect(() => {
      assertWellFormed(broken);
    }).toThrow(`internal: the graph 'g' is malformed\n${shown}`);
  });

  it("blame the file where the graph came from one", () => {
    let thrown: unknown;
    try {
      requireWellFormed(broken, "model.onnx");
    } catch (error) {
      thrown = error;
    }
    if (!(thrown instanceof CompilerError)) throw new Error("nothing was thrown that is a CompilerError");
    expect(thrown.code).toBe("MODEL_MALFORMED");
    expect(thrown.exitCode).toBe(3);
    expect(thrown.where).toMatchObject({ file: "model.onnx", value: "stray" });
    expect(thrown.message).toContain("extra = Exp(stray)");
  });

  it("cut long lists", () => {
    const model = withGraph((g) => ({
      nodes: [...g.nodes, ...Array.from({ length: 25 }, () => makeOp("Exp", [inputValue("stray")], { name: "e" }).node)],
    }));
    expect(() => {
      assertWellFormed(model);
    }).toThrow("and 5 more");
  });
});
