/** The two walks over a graph. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { check } from "../ir/check.js";
import { constant, type Graph, inputValue, makeNode, makeOp, type Node, only, type Value } from "../ir/graph.js";
import { rewrite, sweep } from "../ir/rewrite.js";
import { tensorOf } from "../ir/tensor.js";
import { parse } from "../ir/parse.js";
import { print } from "../ir/print.js";

const HEAD = '<ir_version: 10, opset_import: ["" : 20]>';

function graphOf(text: string): Graph {
  return parse(`${HEAD} ${text}`).graph;
}

/** Name, braces and all between them, on one line. */
function textOf(graph: Graph): string {
  const text = print({ graph, opsets: new Map([["", 20]]), irVersion: 10, metadata: new Map() });
  return text.slice(HEAD.length + 1).replaceAll(/\s+/g, " ");
}

function produced(value: Value | undefined): Node {
  if (!value?.producer) throw new Error("no producer");
  return value.producer;
}

describe("rewrite", () => {
  it("returns the same graph if nothing changes", () => {
    const graph = graphOf("g (x) => (y) { a = Exp(x) y = Neg(a) }");
    expect(rewrite(graph, () => undefined)).toBe(graph);
  });

  it("shows each node with the current inputs and as it was", () => {
    const graph = graphOf("g (x) => (y) { a = Exp(x) y = Neg(a) }");
    const seen: [string, string, boolean][] = [];
    rewrite(graph, (node, original) => {
      seen.push([node.opType, node.inputs[0]?.name ?? "", node === original]);
      if (node.opType !== "Exp") return undefined;
      const { node: made, value } = makeOp("Log", node.inputs, { name: "b" });
      return { nodes: [made], outputs: [value] };
    });
    expect(seen).toEqual([["Exp", "x", true], ["Neg", "b", false]]); // prettier-ignore
  });

  it("follows chains of substitutions: a replacement that is itself replaced", () => {
    const graph = graphOf("g (x) => (y) { a = Identity(x) b = Identity(a) c = Identity(b) y = Exp(c) # mark attn-0 @0 = c\n }");
    const bypassed = rewrite(graph, (node) =>
      node.opType === "Identity" && node.inputs[0] ? { nodes: [], outputs: [node.inputs[0]] } : undefined,
    );
    expect(textOf(bypassed)).toBe("g (x) => (y) { y = Exp(x) # mark attn-0 @0 = x }");
    expect(textOf(graph)).toContain("c = Identity(b)");
  });

  it("takes outputs, captures and marks along", () => {
    const graph = graphOf(
      "g (x) => (y, z) { a = Exp(x) y = Neg(a) z = If(x) # capture inner = a\n # mark attn-0 @2 = a\n # mark mlp-0 @2 = y\n }",
    );
    const next = rewrite(graph, (node) => {
      if (node.opType !== "Exp" && node.opType !== "Neg") return undefined;
      const { node: made, value } = makeOp(node.opType === "Exp" ? "Log" : "Abs", node.inputs, { name: "new" });
      return { nodes: [made], outputs: [value] };
    });
    expect(textOf(next)).toBe(
      "g (x) => (y, z) { new = Log(x) y = Abs(new) z = If(x) # capture inner = new # mark attn-0 @2 = new # mark mlp-0 @2 = y }",
    );
    expect(check({ graph: next, opsets: new Map([["", 20]]), irVersion: 10, metadata: new Map() })).toEqual([]);
  });

  it("substitutes in the graphs of nodes what they read from around them", () => {
    const inner = (a: string): string => `b = Op< f = f (p) => (q) { q = Op< h = h () => (r) { r = Sum(p, x, ${a}) } >() } >()`;
    const graph = graphOf(`g (x) => (y) { a = Exp(x) ${inner("a")} y = Neg(b) }`);
    const next = rewrite(graph, ({ opType, inputs }) => {
      if (opType !== "Exp") return undefined;
      const { node, value } = makeOp("Log", inputs, { name: "new" });
      return { nodes: [node], outputs: [value] };
    });
    expect(textOf(next)).toBe(`g (x) => (y) { new = Log(x) ${inner("new")} y = Neg(b) }`);
    expect(textOf(graph)).toBe(`g (x) => (y) { a = Exp(x) ${inner("a")} y = Neg(b) }`);
    expect(sweep(next)).toBe(next);
    // What changes elsewhere leaves them as they are.
    const [, before] = next.nodes;
    const [, after] = rewrite(next, ({ opType, inputs }) => {
      if (opType !== "Neg") return undefined;
      const { node, value } = makeOp("Abs", inputs, { name: "y" });
      return { nodes: [node], outputs: [value] };
    }).nodes;
    expect(after).toBe(before);
  });

  it("drops inputs that constants and results stand for, and keeps those that other inputs stand for", () => {
    const graph = graphOf("g (p, q, r) => (y) { y = Sum(p, q, r) }");
    const [p, q] = graph.inputs;
    if (!p || !q) throw new Error("no inputs");
    const start = new Map([[p, constant("one", tensorOf("float", [], [1]))], [q, inputValue("q2")]]); // prettier-ignore
    expect(textOf(rewrite(graph, () => undefined, start))).toBe("g (q2, r) => (y) < float one = {1} > { y = Sum(one, q2, r) }");
  });

  it("keeps the identity of nodes before the change and of none after it that it reaches", () => {
    const graph = graphOf("g (x) => (y, z) { a = Exp(x) b = Neg(a) y = Abs(b) z = Log(a) }");
    const next = rewrite(graph, (node) => (node.opType === "Neg" ? { nodes: [], outputs: [node.inputs[0] ?? only(node)] } : undefined));
    expect(next.nodes.map((node) => graph.nodes.indexOf(node))).toEqual([0, -1, 3]);
  });

  it("says that a replacement lacks an output", () => {
    const graph = graphOf("g (x) => (y) { y = Exp(x) }");
    expect(() => rewrite(graph, () => ({ nodes: [], outputs: [] }))).toThrow("internal: output 0 of Exp");
  });
});

describe("sweep", () => {
  it("returns the same graph if all is needed", () => {
    const graph = graphOf("g (x) => (y) { a = Exp(x) y = Neg(a) }");
    expect(sweep(graph)).toBe(graph);
  });

  it("keeps exactly the ancestors of the outputs, in their order", () => {
    fc.assert(
      fc.property(randomGraph(), (graph) => {
        const needed = ancestors(graph);
        const next = sweep(graph);
        expect(next.nodes).toEqual(graph.nodes.filter((node) => needed.has(node)));
        expect(next.marks).toEqual(graph.marks.filter(({ value }) => !value.producer || needed.has(value.producer)));
        expect([next.inputs, next.outputs]).toEqual([graph.inputs, graph.outputs]);
        expect(sweep(next)).toBe(next);
      }),
      { numRuns: 300 },
    );
  });
});

describe("400 000 nodes in a chain", () => {
  const chain = (length: number): Graph => {
    const x = inputValue("x");
    const nodes: Node[] = [];
    let last = x;
    for (let i = 0; i < length; i++) {
      const { node, value } = makeOp("Exp", [last], { name: "v" });
      nodes.push(node);
      last = value;
    }
    return { name: "g", inputs: [x], outputs: [{ name: "y", value: last }], nodes, marks: [] };
  };
  const replaceAll = (graph: Graph): Graph =>
    rewrite(graph, (node) => {
      const made = makeNode({ ...node, opType: "Neg" });
      return { nodes: [made], outputs: made.outputs };
    });
  const milliseconds = (work: () => unknown): number => {
    const started = process.cpuUsage();
    work();
    return process.cpuUsage(started).user / 1000;
  };

  it("are walked without recursion, in near-linear time", () => {
    const small = chain(40_000);
    const large = chain(400_000);
    const next = replaceAll(large);
    expect(next.nodes.length).toBe(400_000);
    expect(produced(next.outputs[0]?.value).opType).toBe("Neg");
    expect(sweep({ ...next, outputs: [{ name: "y", value: only(produced(next.nodes[199_999]?.outputs[0])) }] }).nodes.length).toBe(200_000);
    for (const work of [replaceAll, sweep]) {
      const best = (graph: Graph): number => Math.min(...[1, 2].map(() => milliseconds(() => work(graph))));
      // Ten times the nodes: a quadratic walk takes a hundred times as long.
      expect(best(large)).toBeLessThan(40 * Math.max(best(small), 5));
    }
  });
});

/** Nodes with one or two outputs that read anything before them, also by capture; some marks; some outputs. */
function randomGraph(): fc.Arbitrary<Graph> {
  const pick = fc.nat({ max: 1_000_000 });
  const plan = fc.record({
    nodes: fc.array(fc.record({ reads: fc.array(pick, { maxLength: 3 }), captures: fc.array(pick, { maxLength: 1 }), two: fc.boolean() }), {
      maxLength: 30,
    }),
    outputs: fc.array(pick, { maxLength: 3 }),
    marks: fc.array(pick, { maxLength: 4 }),
  });
  return plan.map((drawn) => {
    const x = inputValue("x");
    const values: Value[] = [x, constant("w", tensorOf("float", [1], [1]))];
    const at = (n: number): Value => values[n % values.length] ?? x;
    const nodes = drawn.nodes.map(({ reads, captures, two }) => {
      const node = makeNode({
        opType: "Op",
        inputs: reads.map(at),
        outputs: two ? [{ name: "a" }, { name: "b" }] : [{ name: "a" }],
        captures: captures.map((n, i) => ({ name: `c${i}`, value: at(n) })),
      });
      values.push(...node.outputs);
      return node;
    });
    return {
      name: "g",
      inputs: [x],
      outputs: drawn.outputs.map((n, i) => ({ name: `y${i}`, value: at(n) })),
      nodes,
      marks: drawn.marks.map((n, step) => ({ site: "attn-0", half: "cond" as const, step, value: at(n) })),
    };
  });
}

/** By search from the outputs, not by a walk over the list. */
function ancestors(graph: Graph): Set<Node> {
  const found = new Set<Node>();
  const queue = graph.outputs.map(({ value }) => value);
  for (let value = queue.pop(); value; value = queue.pop()) {
    const { producer } = value;
    if (!producer || found.has(producer)) continue;
    found.add(producer);
    for (const input of producer.inputs) if (input) queue.push(input);
    queue.push(...producer.captures.map((port) => port.value));
  }
  return found;
}
