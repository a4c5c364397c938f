/** The text form: what is printed, what is read back, and where it says that a text is wrong. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { freeValues } from "../ir/analysis.js";
import { structureDigest } from "../ir/digest.js";
import { CompilerError } from "../ir/diagnostics.js";
import { type Attribute, constant, inputValue, makeNode, makeOp, type Model, type Node, only, type Value } from "../ir/graph.js";
import { tensorFrom, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { excerpt, print } from "../ir/print.js";
import { parse } from "../ir/parse.js";
import { byteSize, ELEMENT_TYPES, isElementType } from "../ir/types.js";
import { LOOPED, modelOf } from "./support/models.js";

const HEAD = '<ir_version: 10, opset_import: ["" : 20]>';

function constantNamed(model: Model, name: string): Value {
  for (const node of model.graph.nodes) for (const value of node.inputs) if (value?.name === name && value.data) return value;
  throw new Error(`no constant ${name}`);
}

function attributes(text: string): ReadonlyMap<string, Attribute> {
  const [node] = parse(`${HEAD} g () => () { = Op<${text}>() }`).graph.nodes;
  if (!node) throw new Error("no node");
  return node.attributes;
}

describe("print", () => {
  it("writes everything that it has a notation for", () => {
    const x = inputValue("x", { elem: "float", shape: ["N", 2, null, "a/b"] });
    const w = constant("w", tensorOf("float", [2], [0.1, -2]));
    const a = makeNode({
      domain: "com.microsoft",
      opType: "FusedMatMul",
      inputs: [x, undefined, w],
      outputs: [{ name: "/net/a.0", type: { elem: "float", shape: [] } }, { name: "" }],
      attributes: new Map<string, Attribute>([
        ["alpha", { kind: "float", value: 1 }],
        ["axes", { kind: "ints", value: [] }],
        ["body", { kind: "opaque", bytes: new Uint8Array(3) }],
        ["value", { kind: "tensor", value: tensorOf("int64", [], [-7]) }],
      ]),
      captures: [{ name: "outer", value: x }],
    });
    const [first] = a.outputs;
    if (!first) throw new Error("no output");
    const b = makeOp("Exp", [first], { name: "b", type: { elem: "float", shape: null } });
    const model = {
      ...modelOf({
        inputs: [x],
        outputs: [
          { name: "y", value: b.value },
          { name: "again", value: b.value },
        ],
        nodes: [a, b.node],
        marks: [{ site: "attn-0", half: "cond", step: 3, value: first }],
      }),
      metadata: new Map([["note", 'say "\\"']]),
    };
    expect(print(model)).toMatchInlineSnapshot(`
      "<ir_version: 10, opset_import: ["" : 20], metadata_props: ["note" : "say \\"\\\\\\""]>
      g (float[N,2,?,"a/b"] x) => (float[] y, float[] again)
      <
        float[2] w = {0.1, -2},
        float "/net/a.0"
      >
      {
        "/net/a.0", "" = com.microsoft.FusedMatMul<alpha = 1.0, axes: ints = [], body = {...}, value = int64 {-7}>(x, "", w)
        # capture outer = x
        y = Exp("/net/a.0")
        # output again = y
        # mark attn-0 @3 = "/net/a.0"
      }"
    `);
  });

  it("keeps the interface's names and numbers what would be called the same", () => {
    const x = inputValue("x");
    const chain = [makeOp("Exp", [x], { name: "x" })];
    chain.push(makeOp("Exp", [chain[0]?.value], { name: "y" }), makeOp("Exp", [chain[0]?.value], { name: "x" }));
    const [first, second, last] = chain;
    if (!first || !second || !last) throw new Error("no chain");
    const text = print(modelOf({ inputs: [x], outputs: [{ name: "y", value: last.value }], nodes: chain.map(({ node }) => node) }));
    expect(text.split("\n").slice(3, 6)).toEqual(["  x_1 = Exp(x)", "  y_1 = Exp(x_1)", "  y = Exp(x_1)"]);
    expect(print(parse(text))).toBe(text);
  });

  it("gives no value the name of an output that is another value", () => {
    const x = inputValue("x");
    const [first, other] = [makeOp("Exp", [x], { name: "y" }), makeOp("Neg", [x], { name: "again" })];
    const outputs = ["y", "again"].map((name) => ({ name, value: first.value }));
    const text = print(modelOf({ inputs: [x], outputs, nodes: [first.node, other.node] }));
    expect(text.split("\n").slice(3, 6)).toEqual(["  y = Exp(x)", "  again_1 = Neg(x)", "  # output again = y"]);
  });

  it("quotes names that would be read as types", () => {
    const text = print(modelOf({ inputs: [inputValue("float"), inputValue("seq")] }));
    expect(text).toContain('g ("float", "seq") => ()');
    expect(parse(text).graph.inputs.map(({ name }) => name)).toEqual(["float", "seq"]);
  });

  it("elides payloads above the limit, and reads them as addresses of their own that lead nowhere", () => {
    const w = constant("w", tensorOf("float", [65], Array<number>(65).fill(1)));
    const v = constant("v", tensorOf("float", [66], Array<number>(66).fill(1)));
    const { node, value } = makeOp("Concat", [w, v], { name: "y" }, { axis: { kind: "int", value: 0n } });
    const model = modelOf({ outputs: [{ name: "y", value }], nodes: [node] });
    const text = print(model);
    expect(text).toContain("float[65] w = {...}");
    const again = parse(text);
    expect(constantNamed(again, "w").data?.content).toMatchObject({ kind: "file", offset: 0, length: 260 });
    expect(constantNamed(again, "v").data?.content).toMatchObject({ kind: "file", offset: 260, length: 264 });
    expect(print(again, Infinity)).toBe(text);
    expect(print(parse(print(model, Infinity)), Infinity)).not.toContain("{...}");
  });

  it("writes the graphs of nodes, and their constants in the outermost one", () => {
    const model = parse(LOOPED);
    expect(print(model)).toBe(LOOPED);
    const [neg, loop] = model.graph.nodes;
    const [body] = loop ? loop.subgraphs : [];
    const branch = body?.nodes[1];
    if (!neg || !body || !branch) throw new Error("no body");
    expect(body.outputs[0]?.value).toBe(body.inputs[1]);
    expect(branch.subgraphs.map(({ outputs }) => outputs[0]?.value)).toContain(neg.outputs[0]);
    expect(freeValues(body).map(({ name }) => name)).toEqual(["computes", "w", "a"]);
  });

  it("gives values of different graphs different names", () => {
    const text = `${HEAD} g (c, x) => (y) { y = If<then_branch = t () => (a) { a = Exp(x) }, else_branch = e () => (a) { a = Neg(x) }>(c) }`;
    const printed = print(parse(text));
    expect(printed).toContain("a = Exp(x)");
    expect(printed).toContain("a_1 = Neg(x)");
    expect(print(parse(printed))).toBe(printed);
  });

  it("shows nodes alone with remarks, under the names that they have in the whole text", () => {
    const model = parse(`${HEAD} g (x) => (y) { a = Exp(x) y = Exp(a) }`);
    const [, second] = model.graph.nodes;
    if (!second) throw new Error("no node");
    expect(excerpt(model, new Map([[second, ["odd", "very"]]]))).toBe("  y = Exp(a)\n  #   ^ odd\n  #   ^ very");
  });
});

describe("names", () => {
  it("are given in near-linear time where all values are called the same", () => {
    const chain = (length: number): Model => {
      const x = inputValue("v");
      const nodes: Node[] = [];
      for (let i = 0; i < length; i++) nodes.push(makeOp("Exp", [nodes.at(-1)?.outputs[0] ?? x], { name: "v" }).node);
      return modelOf({ inputs: [x], nodes });
    };
    const best = (model: Model): number =>
      Math.min(
        ...[1, 2].map(() => {
          const started = process.cpuUsage();
          print(model);
          return process.cpuUsage(started).user / 1000;
        }),
      );
    const [small, large] = [chain(10_000), chain(100_000)];
    // Ten times the nodes: numbering by search takes a hundred times as long.
    expect(best(large)).toBeLessThan(40 * Math.max(best(small), 5));
    expect(print(large)).toContain("v_100000 = Exp(v_99999)");
  });
});

describe("parse", () => {
  it("reads the example of the published syntax", () => {
    const model = parse(`
      <
        ir_version: 7,
        opset_import: [ "" : 10, "com.microsoft": 1 ],
        producer_name: "x", model_version: 3
      >
      agraph (float[N, 128] X, float[128,10] W, float[10] B) => (float[N,10] C)
      <float[10] unread = {0,0,0,0,0,0,0,0,0,0}, float[N,10] S>
      { # plain comments say nothing
        [first] T = MatMul(X, W)
        S = Add(T, B)
        C = Softmax <axis: int = 1> (S)
      }`);
    expect(model.irVersion).toBe(7);
    expect([...model.opsets]).toEqual([["", 10], ["com.microsoft", 1]]); // prettier-ignore
    const { inputs, outputs, nodes } = model.graph;
    expect(inputs.map(({ type }) => type?.shape)).toEqual([["N", 128], [128, 10], [10]]);
    expect(nodes.map(({ opType, name }) => [opType, name])).toEqual([["MatMul", "first"], ["Add", ""], ["Softmax", ""]]); // prettier-ignore
    expect(nodes[1]?.inputs).toEqual([nodes[0]?.outputs[0], inputs[2]]);
    expect(nodes[1]?.outputs[0]?.type).toEqual({ elem: "float", shape: ["N", 10] });
    expect(nodes[2]?.attributes.get("axis")).toEqual({ kind: "int", value: 1n });
    expect(outputs).toEqual([{ name: "C", value: nodes[2]?.outputs[0] }]);
  });

  it("knows the runtime's own domains without an import, as the reader of files does", () => {
    expect([...parse(`${HEAD}\ng (x) => (y) { y = com.microsoft.Gelu(x) }`).opsets]).toEqual([["", 20], ["com.microsoft", 1]]); // prettier-ignore
  });

  it("tells kinds of attributes apart", () => {
    expect([...attributes('a = -3, b = 1e-06, c = "q\\"\\\\", d = [1, -2], e = [1.0, 2], f = ["x"], g: floats = [1], h: float = -0').values()]).toEqual([
      { kind: "int", value: -3n },
      { kind: "float", value: Math.fround(0.000001) },
      { kind: "string", value: 'q"\\' },
      { kind: "ints", value: [1n, -2n] },
      { kind: "floats", value: [1, 2] },
      { kind: "strings", value: ["x"] },
      { kind: "floats", value: [1] },
      { kind: "float", value: -0 },
    ]); // prettier-ignore
    expect([...attributes("a: ints = [], b: strings = [], c = inf, d = -inf, e = nan").values()]).toEqual([
      { kind: "ints", value: [] },
      { kind: "strings", value: [] },
      { kind: "float", value: Infinity },
      { kind: "float", value: -Infinity },
      { kind: "float", value: NaN },
    ]);
  });

  it("reads missing operands in every spelling", () => {
    const read = (list: string): (string | undefined)[] => {
      const { nodes } = parse(`${HEAD} g (x) => () { y = Op(${list}) }`).graph;
      return nodes[0]?.inputs.map((value) => value?.name) ?? [];
    };
    expect(["", ",x", '""', ",", "x,", 'x,"",x', "x,,x"].map(read)).toEqual([
      [], [undefined, "x"], [undefined], [undefined], ["x"], ["x", undefined, "x"], ["x", undefined, "x"],
    ]); // prettier-ignore
  });

  it("reads constants to the bit", () => {
    const { graph } = parse(`${HEAD} g () => ()
      <float[4] f = {-1.5e-3, inf, -0, 3}, int8[2] i = {-128, 127}, float16[1] h = {15360}, uint64[1] u = {18446744073709551615},
       int4[3] n = {33, 3}, complex64[1] c = {1, -2}, string[2] s = {"a\\"", ""}, bool b = {1}>
      { = Op(f, i, h, u, n, c, s, b) }`);
    const [f, i, h, u, n, c, s, b] = graph.nodes[0]?.inputs ?? [];
    expect(f?.data && tensorNumbers(f.data)).toEqual([Math.fround(-0.0015), Infinity, -0, 3]);
    expect(i?.data && tensorNumbers(i.data)).toEqual([-128, 127]);
    const bytes = [h, u, n, c, b].map((value) => (value?.data?.content.kind === "bytes" ? [...value.data.content.bytes] : undefined));
    expect(bytes).toEqual([[0, 60], Array(8).fill(255), [33, 3], [0, 0, 128, 63, 0, 0, 0, 192], [1]]);
    expect(s?.data?.content).toEqual({ kind: "strings", strings: [new TextEncoder().encode('a"'), new Uint8Array()] });
  });

  it("takes linear time over long comments, spaces, strings and numbers", () => {
    const long = 5_000_000;
    expect(parse(`${"# comment\n".repeat(long / 10)}${" ".repeat(long)}${HEAD} g () => () {}`).graph.nodes).toEqual([]);
    expect(parse(`${HEAD} "${"\\n".repeat(long / 2)}" () => () {}`).graph.name.length).toBe(long / 2);
    for (const [open, close] of [["int64 {", "}"], ["", ""]]) expect(() => attributes(`a = ${open}${"9".repeat(long)}${close}`)).toThrow(/^Line 1, column \d+: 9{99,101}…9{80,100} is no int64\.$/); // prettier-ignore
  });

  it.each([
    ["", 1, 1, "'<' expected"],
    ["<ir_version: 9007199254740992>", 1, 14, "too large"],
    [`${HEAD}\ng (int8[1] x = {nan(0x1)}) => () {}`, 2, 17, "is no int8"],
    ["<ir_version: 10>\ng () => () {}", 1, 17, "opset_import"],
    ["<ir_version: 10, opset: []>", 1, 18, "'opset' is no field"],
    [`${HEAD}\ng (float[2] x) => () {\n  y = Exp(z)\n}`, 3, 11, "nothing before this defines 'z'"],
    [`${HEAD}\ng (x) => (y) {\n}`, 2, 11, "defines 'y'"],
    [`${HEAD}\ng (x) => () {\n  x = Exp(x)\n}`, 3, 3, "'x' is defined twice"],
    [`${HEAD}\ng (x, x) => () {}`, 2, 7, "'x' is defined twice"],
    [`${HEAD}\ng (x) => ()\n<float[3] w = {1, 2}>\n{}`, 3, 15, "3 elements expected, 2 found"],
    [`${HEAD}\ng (x) => ()\n<int8[1] w = {128}>\n{}`, 3, 15, "128 is no int8"],
    [`${HEAD}\ng (x) => ()\n<int64[1] w = {1.5}>\n{}`, 3, 16, "1.5 is no int64"],
    [`${HEAD}\ng (x) => ()\n<int64[N] w = {1}>\n{}`, 3, 14, "fixed shape"],
    [`${HEAD}\ng (seq(float) x) => () {}`, 2, 4, "only tensors"],
    [`${HEAD}\ng (x) => () {\n  y = Op<a = []>(x)\n}`, 3, 16, "empty list"],
    [`${HEAD}\ng (x) => () {\n  y = Op<a = 1, a = 2>(x)\n}`, 3, 17, "given twice"],
    [`${HEAD}\ng (x) => () {\n  y = Op<a: ints = 2>(x)\n}`, 3, 10, "said to be ints and is int"],
    [`${HEAD}\ng (x) => () {\n  y = Op<a = 9223372036854775808>(x)\n}`, 3, 14, "no int64"],
    [`${HEAD}\ng (x) => () {\n  y = ""(x)\n}`, 3, 9, "name of an operator"],
    [`${HEAD}\ng (x) => () {\n  # mark attn-0 3 = x\n}`, 3, 17, "'@' expected"],
    [`${HEAD}\ng (x) => () {\n  # mark attn-0 @3 = z\n}`, 3, 22, "defines 'z'"],
    [`${HEAD}\ng (x) => () {\n  = Op<a = f () => () { y = Exp(x) }>()\n  = Op(y)\n}`, 4, 8, "defines 'y'"],
    [`${HEAD}\ng (x) => () {\n  = Op<a = f (x) => () {}>()\n}`, 3, 15, "'x' is defined twice"],
    [`${HEAD}\ng (x) => () {${" = Op<a = f () => () {".repeat(31)}`, 2, 684, "more than 30 deep"],
    [`${HEAD}\ng (x) => () {} f (x) => (y) {}`, 2, 16, "end of the text"],
  ])("says where %j is wrong", (text, line, column, problem) => {
    const thrown = ((): unknown => {
      try {
        return parse(text);
      } catch (error) {
        return error;
      }
    })();
    if (!(thrown instanceof CompilerError)) throw new Error("nothing was thrown that is a CompilerError");
    expect(thrown.code).toBe("TEXT_INVALID");
    expect(thrown.message).toMatch(new RegExp(`^Line ${line}, column ${column}: `));
    expect(thrown.message).toContain(problem);
  });
});

describe("structureDigest", () => {
  it("looks into the graphs of nodes, at anything but names", () => {
    const digest = (text: string): string => structureDigest(parse(text));
    const renamed = LOOPED.replaceAll("chosen", "taken").replace("body (", "inner (");
    expect(digest(renamed)).toBe(digest(LOOPED));
    for (const [from, to] of [["MatMul(h, w)", "MatMul(w, h)"], ["=> (bool on, float[2,2] next)", "=> (bool on, float[2,2] chosen)"]] as const)
      expect(digest(LOOPED.replace(from, to))).not.toBe(digest(LOOPED)); // prettier-ignore
  });
});

describe("round trip", () => {
  it("keeps names of any characters", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.string({ minLength: 1, unit: "grapheme" }), { maxLength: 5 }), (names) => {
        const text = print(modelOf({ inputs: names.map((name) => inputValue(name)) }));
        expect(parse(text).graph.inputs.map(({ name }) => name)).toEqual(names);
      }),
    );
  });

  it("keeps the bytes of every element type", () => {
    const elems = Object.keys(ELEMENT_TYPES).filter(isElementType).filter((elem) => elem !== "string"); // prettier-ignore
    expect(elems.length).toBe(25);
    fc.assert(
      fc.property(fc.constantFrom(...elems), fc.uint8Array({ minLength: 48, maxLength: 48 }), (elem, bytes) => {
        const isFloat = ["float", "double", "complex64", "complex128"].includes(elem);
        // Every second float is a NaN with some payload.
        const odd = isFloat ? bytes.map((byte, i) => (i % 8 === 7 ? byte | 0x7f : i % 8 === 6 ? byte | 0xf0 : byte)) : bytes;
        const data = tensorFrom(elem, [3], odd.slice(0, byteSize(elem, 3)));
        const node = makeNode({ opType: "Op", inputs: [constant("w", data)], outputs: [] });
        expect(constantNamed(parse(print(modelOf({ nodes: [node] }))), "w").data).toEqual(data);
      }),
      { numRuns: 500 },
    );
  });

  it("keeps defaults of inputs", () => {
    const text = `${HEAD}\ng (float[2] x = {1, nan(0x7fc00001)}, float y) => (float[2] z)\n{\n  z = Add(x, y)\n}`;
    const [x, y] = parse(text).graph.inputs;
    expect([x?.data?.shape, y?.data]).toEqual([[2], undefined]);
    expect(print(parse(text))).toBe(text);
  });

  it("elides strings that are no text", () => {
    const strings = [Uint8Array.of(0xff)];
    const node = makeNode({
      opType: "Op",
      inputs: [constant("w", { elem: "string", shape: [1], content: { kind: "strings", strings } })],
      outputs: [],
    });
    const text = print(modelOf({ nodes: [node] }));
    expect(text).toContain("string[1] w = {...}");
    expect(print(parse(text))).toBe(text);
  });

  it("keeps float attributes", () => {
    fc.assert(
      fc.property(fc.float(), (value) => {
        const { node } = makeOp("Elu", [], { name: "y" }, { alpha: { kind: "float", value } });
        expect(parse(print(modelOf({ nodes: [node] }))).graph.nodes[0]?.attributes.get("alpha")).toEqual({ kind: "float", value });
      }),
      { examples: [[-0], [NaN], [-Infinity], [Math.fround(1e-7)], [3.4028234663852886e38], [1.401298464324817e-45]] },
    );
  });

  it("keeps edges, outputs, captures and marks", () => {
    const x = inputValue("x");
    const a = makeNode({
      opType: "A",
      inputs: [x, undefined],
      outputs: [{ name: "p" }, { name: "q" }],
      captures: [{ name: "o/x", value: x }],
    });
    const b = makeNode({ opType: "B", inputs: [...a.outputs, x], outputs: [{ name: "r" }] });
    const [p] = a.outputs;
    if (!p) throw new Error("no output");
    const { graph } = parse(
      print(
        modelOf({
          inputs: [x],
          outputs: [
            { name: "first", value: only(b) },
            { name: "second", value: only(b) },
            { name: "other", value: x },
          ],
          nodes: [a, b],
          marks: [{ site: "odd site", half: "cond", step: 12, value: p }],
        }),
      ),
    );
    const [a2, b2] = graph.nodes;
    const [x2] = graph.inputs;
    expect(a2?.inputs).toEqual([x2, undefined]);
    expect(a2?.captures[0]?.name).toBe("o/x");
    expect(a2?.captures[0]?.value).toBe(x2);
    expect(b2?.inputs.map((value) => [...(a2?.outputs ?? []), x2].findIndex((known) => known === value))).toEqual([0, 1, 2]);
    expect(graph.outputs.map(({ name }) => name)).toEqual(["first", "second", "other"]);
    expect(graph.outputs.map(({ value }) => [b2?.outputs[0], x2].findIndex((known) => known === value))).toEqual([0, 0, 1]);
    expect(graph.marks.map(({ site, step }) => [site, step])).toEqual([["odd site", 12]]);
    expect(graph.marks[0]?.value).toBe(a2?.outputs[0]);
  });
});
