/** ONNX files: what is read, what is written, what stays on disk, and how damaged files are refused. */
import { createHash } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  openSync,
  writeSync,
  closeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import fc from "fast-check";
import { onnx } from "onnx-proto";
import * as ort from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { check } from "../ir/check.js";
import { constantOf } from "../ir/constants.js";
import { CompilerError } from "../ir/diagnostics.js";
import {
  type Attribute,
  constant,
  type Graph,
  inputValue,
  makeNode,
  makeOp,
  type Model,
  type Node,
  only,
  type Value,
} from "../ir/graph.js";
import { encodeModel, readModel, writeModel, type WriteOptions, WrittenData } from "../ir/onnx/index.js";
import { parse } from "../ir/parse.js";
import { readTensor, type TensorData, tensorNumbers, tensorOf } from "../ir/tensor.js";
import { readNpy } from "../src/files/npy.js";
import { Session } from "../src/runtime/session.js";
import { canonicalFields } from "./support/wire.js";
import { LOOPED, modelOf } from "./support/models.js";

const FIXTURES = join(import.meta.dirname, "fixtures");
const WEIRD = join(FIXTURES, "weird");
const EXPORTS = ["dit", "dit_original"].flatMap((arch) =>
  ["torchscript-17", "dynamo-20", "dynamo-23"].map((name) => join(FIXTURES, arch, `${name}.onnx`)),
);
const GLYPHS = join(import.meta.dirname, "..", "examples", "glyphs", "model.onnx");

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "smoothcc-onnx-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

let files = 0;
function place(name = `${files++}.onnx`): string {
  const sub = mkdtempSync(join(folder, "x"));
  return join(sub, name);
}

/** A file with these bytes in a folder of its own. */
function fileOf(bytes: Uint8Array): string {
  const file = place();
  writeFileSync(file, bytes);
  return file;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof CompilerError) return error.code;
    throw error;
  }
  return "fine";
}

function nodeNamed(model: Model, name: string): Node {
  const node = model.graph.nodes.find((candidate) => candidate.name === name);
  if (!node) throw new Error(`no node ${name}`);
  return node;
}

/** Every constant by its name. */
function constants(model: Model): Map<string, TensorData> {
  const found = new Map<string, TensorData>();
  for (const node of model.graph.nodes) {
    for (const value of [...node.inputs, ...node.captures.map((port) => port.value)]) if (value?.data) found.set(value.name, value.data);
  }
  return found;
}

const FLOAT = onnx.TensorProto.DataType.FLOAT;

/** A model file made by the other codec. */
function foreign(graph: onnx.IGraphProto): Uint8Array {
  return onnx.ModelProto.encode({ irVersion: 8, opsetImport: [{ domain: "", version: 17 }], graph: { name: "g", ...graph } }).finish();
}

function external(entries: Record<string, string>, dims = [4]): onnx.ITensorProto {
  return {
    name: "w",
    dims,
    dataType: FLOAT,
    dataLocation: onnx.TensorProto.DataLocation.EXTERNAL,
    externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
  };
}

describe("reading", () => {
  it("gives the same values as another decoder", async () => {
    for (const file of [...EXPORTS, GLYPHS]) {
      const model = await readModel(file);
      const { graph } = onnx.ModelProto.decode(readFileSync(file));
      expect(model.graph.nodes.map((node) => [node.opType, node.name, ...node.inputs.map((value) => value?.name ?? "")])).toEqual(
        graph?.node?.map((node) => [node.opType, node.name, ...(node.input ?? [])]),
      );
      expect(model.graph.outputs.map((port) => port.name)).toEqual(graph?.output?.map(({ name }) => name));
      const read = constants(model);
      for (const { name, rawData, dims } of graph?.initializer ?? []) {
        const data = read.get(name ?? "");
        expect(data?.shape).toEqual(dims?.map(Number));
        expect(data && Buffer.from(readTensor(data)).equals(rawData ?? new Uint8Array())).toBe(true);
      }
      expect([...read.values()].filter(({ content }) => content.kind === "file").length).toBeGreaterThan(10);
    }
  });

  it("takes module paths from both exporters", async () => {
    const scopes = async (file: string): Promise<Set<string | undefined>> =>
      new Set((await readModel(file)).graph.nodes.map((node) => node.scope));
    expect(await scopes(join(FIXTURES, "dit", "dynamo-20.onnx"))).toContain("model.transformer_blocks.0.ff.net.2");
    expect(await scopes(join(FIXTURES, "dit", "torchscript-17.onnx"))).toContain("model.transformer_blocks.0.ff.net.2");
    const weird = await readModel(join(WEIRD, "features.onnx"));
    expect(nodeNamed(weird, "add").scope).toBe("it's.here");
    expect(nodeNamed(weird, "/mlp/mlp.0/Mul").scope).toBe("mlp.0");
  });

  it("reads rare features", async () => {
    const model = await readModel(join(WEIRD, "features.onnx"));
    const names = (node: Node): string[] => node.captures.map((port) => port.name).sort();
    expect(names(nodeNamed(model, "if"))).toEqual(["deep", "flag", "mid", "w", "x"]);
    expect(nodeNamed(model, "omitted input").inputs[1]).toBeUndefined();
    expect(nodeNamed(model, "omitted output").outputs[1]?.name).toBe("");
    const [x, , byDefault] = model.graph.inputs;
    expect(x?.type).toEqual({ elem: "float", shape: ["n", 4] });
    expect(byDefault?.data && tensorNumbers(byDefault.data)).toEqual([2, 2, 2, 2]);
    expect(model.graph.outputs.at(-1)?.value).toBe(x);
    expect(model.metadata).toEqual(
      new Map([
        ["first", "1"],
        ["empty", ""],
      ]),
    );
    const rare = model.graph.nodes.find(({ opType }) => opType === "Rare");
    const attribute = (name: string): Attribute | undefined => rare?.attributes.get(name);
    expect(attribute("zero")).toEqual({ kind: "int", value: 0n });
    expect(attribute("big")).toEqual({ kind: "int", value: -(2n ** 63n) });
    expect(attribute("numbers")).toEqual({ kind: "ints", value: [1n, -1n, 2n ** 62n] });
    expect(attribute("reals")).toEqual({ kind: "floats", value: [0.5, Infinity, -0] });
    expect(attribute("text")).toEqual({ kind: "string", value: "Größe \ufeff" });
    expect(attribute("no_numbers")).toEqual({ kind: "ints", value: [] });
    expect(["kind", "tensors", "bytes"].map((name) => attribute(name)?.kind)).toEqual(["opaque", "opaque", "opaque"]);
  });

  it("reads every typed field", async () => {
    const read = constants(await readModel(join(WEIRD, "typed.onnx")));
    const numbers = (name: string): readonly number[] | undefined => {
      const data = read.get(name);
      return data && tensorNumbers(data);
    };
    const bits = (name: string): string => {
      const data = read.get(name);
      return data ? Buffer.from(readTensor(data)).toString("hex") : "";
    };
    expect(numbers("float")).toEqual([1.5, -2, Infinity]);
    expect(numbers("double")).toEqual([1.5, -2, 1e300]);
    expect(numbers("int8")).toEqual([-128, 0, 127]);
    expect(numbers("int16")).toEqual([-32768, 0, 32767]);
    expect(numbers("int32")).toEqual([-(2 ** 31), 0, 2 ** 31 - 1]);
    expect(numbers("uint8")).toEqual([0, 1, 255]);
    expect(numbers("uint16")).toEqual([0, 1, 65535]);
    expect(numbers("uint32")).toEqual([0, 1, 2 ** 32 - 1]);
    expect(numbers("bool")).toEqual([1, 0, 1]);
    expect(numbers("nothing")).toEqual([]);
    expect(numbers("scalar")).toEqual([42]);
    expect(bits("int64")).toBe("0000000000000080" + "ffffffffffffffff" + "ffffffffffffff7f");
    expect(bits("uint64")).toBe("0000000000000000" + "0100000000000000" + "ffffffffffffffff");
    expect(bits("float16")).toBe("003e" + "00c0" + "ff7b");
    expect(bits("bfloat16")).toBe("c03f" + "00c0" + "8043");
    expect(bits("float8e4m3fn")).toBe("3cc07e");
    expect(bits("uint4")).toBe("700f");
    expect(bits("int4")).toBe("0807");
    expect(bits("complex64")).toBe("0000803f00000040" + "00000080000040c0" + "0000003f00000000");
    const strings = read.get("string")?.content;
    expect(strings?.kind === "strings" && strings.strings.map((bytes) => Buffer.from(bytes).toString())).toEqual(["a", "", "ß"]);
  });

  it("sorts nodes, as little as need be, and leaves external data where it is", async () => {
    const model = await readModel(join(WEIRD, "external.onnx"));
    expect(model.graph.nodes.map(({ name }) => name)).toEqual(["first", "last", "flat", "ints"]);
    const read = constants(model);
    expect(read.get("a_again")?.content).toEqual({ kind: "file", file: join(WEIRD, "weights.bin"), offset: 3, length: 48 });
    expect([...constants(model).values()].map((data) => tensorNumbers(data).at(-1))).toEqual([11, 11, 11, 5]);
  });

  it("refuses weights that are not where or what they should be", async () => {
    const sub = join(folder, "refused");
    mkdirSync(join(sub, "folder"), { recursive: true });
    writeFileSync(join(folder, "outside.bin"), Buffer.alloc(16));
    writeFileSync(join(sub, "inside.bin"), Buffer.alloc(16));
    symlinkSync(join(folder, "outside.bin"), join(sub, "link.bin"));
    symlinkSync(join(sub, "inside.bin"), join(sub, "fine.bin"));
    const code = async (entries: Record<string, string>, dims?: number[]): Promise<string> => {
      const file = join(sub, "model.onnx");
      const node = [{ opType: "Identity", input: ["w"], output: ["y"] }];
      writeFileSync(file, foreign({ node, initializer: [external(entries, dims)], output: [{ name: "y" }] }));
      return codeOf(readModel(file));
    };
    const location = "inside.bin";
    expect(await code({ location })).toBe("fine");
    expect(await code({ location: "fine.bin", offset: "0", length: "16" })).toBe("fine");
    expect(await code({ location: "../refused/inside.bin" })).toBe("fine");
    expect(await code({ location: join(sub, "inside.bin") })).toBe("EXTERNAL_DATA_OUTSIDE");
    expect(await code({ location: "../outside.bin" })).toBe("EXTERNAL_DATA_OUTSIDE");
    expect(await code({ location: "link.bin" })).toBe("EXTERNAL_DATA_OUTSIDE");
    expect(await code({ location: "absent.bin" })).toBe("EXTERNAL_DATA_MISSING");
    expect(await code({ location: "folder" })).toBe("EXTERNAL_DATA_MISSING");
    expect(await code({ location: "a\0b" })).toBe("EXTERNAL_DATA_MISSING");
    expect(await code({ location, offset: "4" })).toBe("EXTERNAL_DATA_SHORT");
    expect(await code({ location, length: "12" })).toBe("EXTERNAL_DATA_SIZE");
    expect(await code({ location, offset: "-4" })).toBe("EXTERNAL_DATA_MALFORMED");
    expect(await code({ location, offset: "99999999999999999999" })).toBe("EXTERNAL_DATA_MALFORMED");
    expect(await code({})).toBe("EXTERNAL_DATA_MALFORMED");
    expect(await code({ location }, [-4])).toBe("TENSOR_MALFORMED");
    expect(await code({ location }, [2 ** 31, 2 ** 31])).toBe("TENSOR_MALFORMED");
  });

  it("takes the runtime's domains as imported, as the runtime does", async () => {
    const text = (domain: string): string =>
      `<ir_version: 10, opset_import: ["" : 20, "${domain}" : 1]> g (float[2] x) => (float[2] y) { y = ${domain}.Gelu(x) }`;
    const without = async (domain: string): Promise<Model> => {
      const model = parse(text(domain));
      return readModel(fileOf(encodeModel({ ...model, opsets: new Map([["", 20]]) })));
    };
    const model = await without("com.microsoft");
    expect([...model.opsets]).toEqual([
      ["", 20],
      ["com.microsoft", 1],
    ]);
    expect(check(model)).toEqual([]);
    expect(check(await without("my.domain")).map(({ rule }) => rule)).toEqual(["node-opset"]);
  });

  it("leaves payloads in the file, of initializers and of attributes, and writes them back", async () => {
    const length = 300_000;
    const large = (name: string, seed: number): onnx.ITensorProto => ({
      ...{ name, dims: [length], dataType: FLOAT },
      rawData: Buffer.from(Float32Array.from({ length }, (_, i) => seed + i).buffer),
    });
    const { TENSOR, INT } = onnx.AttributeProto.AttributeType;
    const bytes = foreign({
      node: [
        { opType: "Constant", output: ["a"], attribute: [{ name: "value", type: TENSOR, t: large("", 1000) }] },
        {
          ...{ opType: "Rare", domain: "rare", input: ["a", "w"], output: ["y"] },
          attribute: [
            { name: "n", type: INT, i: 3 },
            { name: "p", type: TENSOR, t: large("p", 2000) },
            { name: "q", type: TENSOR, t: large("q", 3000) },
          ],
        },
      ],
      initializer: [large("w", 4000)],
      output: [{ name: "y" }],
    });
    const model = await readModel(fileOf(bytes));
    const written = Buffer.from(encodeModel(model));
    const again = await readModel(fileOf(written));
    expect(Buffer.from(encodeModel(again)).equals(written)).toBe(true);
    for (const { graph } of [model, again]) {
      const [a, rare] = graph.nodes;
      const tensors = [a, rare].flatMap((node) =>
        Array.from(node?.attributes.values() ?? [], (attribute) => (attribute.kind === "tensor" ? attribute.value : undefined)),
      );
      const large = [...tensors, rare?.inputs[1]?.data].filter((data) => data !== undefined);
      expect(large.map(({ content }) => content.kind)).toEqual(["file", "file", "file", "file"]);
      expect(large.map((data) => tensorNumbers(data).slice(-2))).toEqual(
        [1000, 2000, 3000, 4000].map((seed) => [seed + length - 2, seed + length - 1]),
      );
    }
    const two = { name: "value", type: onnx.AttributeProto.AttributeType.GRAPH, t: large("", 1), g: { name: "g" } };
    const file = fileOf(foreign({ node: [{ opType: "Rare", output: ["y"], attribute: [two] }], output: [{ name: "y" }] }));
    expect(await codeOf(readModel(file))).toBe("MODEL_CORRUPT");
  });

  it("refuses graphs that make no sense", async () => {
    const code = (graph: onnx.IGraphProto): Promise<string> => codeOf(readModel(fileOf(foreign(graph))));
    const op = (input: string[], output: string[]): onnx.INodeProto => ({ opType: "Add", input, output });
    expect(await code({ input: [{ name: "x" }], node: [op(["x", "z"], ["y"])] })).toBe("UNDEFINED_NAME");
    expect(await code({ output: [{ name: "y" }] })).toBe("UNDEFINED_NAME");
    expect(await code({ node: [op(["b"], ["a"]), op(["a"], ["b"])] })).toBe("GRAPH_CYCLE");
    expect(await code({ node: [op(["a"], ["a"])] })).toBe("GRAPH_CYCLE");
    expect(await code({ node: [op([], ["a"]), op([], ["a"])] })).toBe("DUPLICATE_NAME");
    expect(await code({ input: [{ name: "x" }], node: [op([], ["x"])] })).toBe("DUPLICATE_NAME");
    expect(await code({ input: [{ name: "x" }, { name: "x" }] })).toBe("DUPLICATE_NAME");
    expect(await code({ node: [{ input: [], output: ["a"] }] })).toBe("MODEL_CORRUPT");
    expect(await code({ initializer: [{ name: "w", dims: [1], dataType: 99, rawData: Buffer.alloc(4) }] })).toBe("UNSUPPORTED_TYPE");
    expect(await code({ initializer: [{ name: "w", dims: [2], dataType: FLOAT, rawData: Buffer.alloc(4) }] })).toBe("TENSOR_MALFORMED");
    expect(await code({ initializer: [{ name: "w", dims: [2], dataType: FLOAT, floatData: [1] }] })).toBe("TENSOR_MALFORMED");
    expect(await code({ initializer: [{ name: "w", dims: [2], dataType: 7, int64Data: [1] }] })).toBe("TENSOR_MALFORMED");
    expect(await code({ initializer: [{ name: "w", dims: [2 ** 40], dataType: 7, int64Data: [1] }] })).toBe("TENSOR_MALFORMED");
    const body = { name: "b", initializer: [external({ location: "w.bin" })] };
    const branch = { name: "then_branch", type: onnx.AttributeProto.AttributeType.GRAPH, g: body };
    expect(await code({ node: [{ opType: "If", attribute: [branch] }] })).toBe("SUBGRAPH_UNSUPPORTED");
    let nested: onnx.IGraphProto = {};
    for (let depth = 0; depth < 32; depth++) nested = { node: [{ opType: "If", attribute: [{ ...branch, g: nested }] }] };
    expect(await code(nested)).toBe("MODEL_CORRUPT");
    expect(await code(nested.node?.[0]?.attribute?.[0]?.g ?? {})).toBe("fine");
  });

  it("refuses what is no model", async () => {
    const code = (bytes: Uint8Array): Promise<string> => codeOf(readModel(fileOf(bytes)));
    expect(await codeOf(readModel(join(folder, "absent.onnx")))).toBe("FILE_MISSING");
    expect(await codeOf(readModel(folder))).toBe("NOT_A_FILE");
    expect(await codeOf(readModel("/dev/zero"))).toBe("NOT_A_FILE");
    expect(await code(new Uint8Array())).toBe("NOT_ONNX");
    expect(await code(Buffer.from("Hello, this is a text and no model.\n"))).toMatch(/^(NOT_ONNX|MODEL_CORRUPT)$/);
    expect(await code(Buffer.from('{ "model": 1 }\n'))).toMatch(/^(NOT_ONNX|MODEL_CORRUPT)$/);
    expect(await code(Buffer.from("PK\x03\x04\x14\0\0\0\b\0", "latin1"))).toMatch(/^(NOT_ONNX|MODEL_CORRUPT)$/);
    expect(await code(Buffer.alloc(100_000))).toBe("NOT_ONNX");
    expect(await code(onnx.ModelProto.encode({ irVersion: 8 }).finish())).toBe("NOT_ONNX");
    expect(await code(onnx.ModelProto.encode({ irVersion: 8, graph: {} }).finish())).toBe("MODEL_CORRUPT");
  });

  it("survives every truncation", async () => {
    for (const [name, boundaries] of [
      ["features.onnx", 8],
      ["typed.onnx", 2],
    ] as const) {
      const bytes = readFileSync(join(WEIRD, name));
      const file = place();
      let fine = 0;
      for (let length = 0; length < bytes.length; length++) {
        writeFileSync(file, bytes.subarray(0, length));
        const code = await codeOf(readModel(file));
        // Cut between two fields of the model, after those that we ask for, it is a model.
        if (code === "fine") fine++;
        else expect(code).toMatch(/^(NOT_ONNX|MODEL_CORRUPT)$/);
      }
      expect(fine).toBe(boundaries);
    }
    const whole = readFileSync(join(FIXTURES, "dit", "dynamo-20.onnx"));
    const file = fileOf(whole);
    const places = fc.sample(fc.integer({ min: 0, max: whole.length - 1 }), { numRuns: 200, seed: 1 }).sort((a, b) => b - a);
    for (const length of places) {
      truncateSync(file, length);
      expect(await codeOf(readModel(file))).toMatch(/^(NOT_ONNX|MODEL_CORRUPT)$/);
    }
  });

  it("survives damage", async () => {
    const flips = fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 0, max: 255 })), {
      minLength: 1,
      maxLength: 4,
    });
    const damaged = async (source: string, runs: number): Promise<number> => {
      const bytes = readFileSync(source);
      const file = place();
      let refused = 0;
      const property = fc.asyncProperty(flips, async (changes) => {
        const copy = Buffer.from(bytes);
        for (const [where, byte] of changes) copy[Math.floor(where * (copy.length - 1))] = byte;
        writeFileSync(file, copy);
        if ((await codeOf(readModel(file))) !== "fine") refused++;
        else await codeOf(readModel(file).then((model) => writeModel(model, `${file}.out`)));
      });
      await fc.assert(property, { numRuns: runs, seed: 7 });
      return refused;
    };
    expect(await damaged(join(WEIRD, "features.onnx"), 1500)).toBeGreaterThan(500);
    expect(await damaged(join(WEIRD, "typed.onnx"), 1500)).toBeGreaterThan(500);
    await damaged(join(FIXTURES, "dit_original", "dynamo-23.onnx"), 40);
    const noise = fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
      expect(await codeOf(readModel(fileOf(bytes)))).not.toBe("fine");
    });
    await fc.assert(noise, { numRuns: 500, seed: 7 });
  });
});

describe("writing", () => {
  /** The version that a model is written with whose file says 14. The versions of operator sets and types are those of onnx's Versioning.md. */
  async function writtenAs(opset: number, graph: onnx.IGraphProto, more: onnx.IModelProto = {}): Promise<number> {
    const bytes = onnx.ModelProto.encode({
      irVersion: 14,
      opsetImport: [{ domain: "", version: opset }],
      graph: { name: "g", ...graph },
      ...more,
    });
    return Number(onnx.ModelProto.decode(encodeModel(await readModel(fileOf(bytes.finish())))).irVersion);
  }
  const [x, y] = ["x", "y"].map((name) => ({ name, type: { tensorType: { elemType: 1, shape: { dim: [{ dimValue: 2 }] } } } }));
  const neg = { opType: "Neg", input: ["x"], output: ["y"] };

  it.each([
    [7, 3], [8, 3], [9, 4], [10, 5], [11, 6], [13, 7], [14, 7], [15, 8], [17, 8], [18, 8], [19, 9], [20, 9], [21, 10], [22, 10], [23, 11], [24, 12], [25, 13],
  ])("opset %i: format version %i", async (opset, version) => {
    expect(await writtenAs(opset, { node: [neg], input: [x ?? {}], output: [y ?? {}] })).toBe(version);
  }); // prettier-ignore

  it("takes the lowest version of the format that has what the model uses", async () => {
    const of = (elemType: number): onnx.IGraphProto => ({
      node: [
        { opType: "Cast", input: ["w"], output: ["y"], attribute: [{ name: "to", i: 1, type: onnx.AttributeProto.AttributeType.INT }] },
      ],
      initializer: [{ name: "w", dataType: elemType, dims: [2], rawData: new Uint8Array(elemType > 20 ? 1 : 2) }],
      output: [y ?? {}],
    });
    expect(await writtenAs(7, of(9))).toBe(4);
    expect([await writtenAs(17, of(17)), await writtenAs(17, of(22)), await writtenAs(17, of(23))]).toEqual([9, 10, 11]);
    // The exporter left metadata at its nodes.
    const noted = encodeModel(await readModel(join(FIXTURES, "dit", "dynamo-20.onnx")));
    expect(Number(onnx.ModelProto.decode(noted).irVersion)).toBe(10);
    const functions = [{ name: "f", domain: "own", input: ["a"], output: ["b"], node: [{ ...neg, input: ["a"], output: ["b"] }] }];
    expect(await writtenAs(13, { node: [neg], input: [x ?? {}], output: [y ?? {}] }, { functions })).toBe(8);
  });

  it("writes a model of a version that no runtime knows as one that all know", async () => {
    const graph = { node: [neg], input: [x ?? {}], output: [y ?? {}] };
    const bytes = onnx.ModelProto.encode({
      irVersion: 99,
      opsetImport: [{ domain: "", version: 17 }],
      graph: { name: "g", ...graph },
    }).finish();
    const session = await Session.open(await readModel(fileOf(bytes)), { optimise: "disabled" });
    const results = await session.run(new Map([["x", tensorOf("float", [2], [1, -2])]]));
    expect(tensorNumbers(results.get("y") ?? tensorOf("float", [0], []))).toEqual([-1, 2]);
    await session.close();
  });

  it("loses no field of an unchanged model", async () => {
    for (const file of [...EXPORTS, GLYPHS, join(WEIRD, "features.onnx")]) {
      const copy = place();
      await writeModel(await readModel(file), copy, { external: "none" });
      const kept = (name: string): readonly string[] =>
        canonicalFields(readFileSync(name)).filter((field) => !field.startsWith("1 varint"));
      expect(kept(copy)).toEqual(kept(file));
      const [before, after] = [file, copy].map((name) => onnx.ModelProto.decode(readFileSync(name)).graph);
      expect(after?.node?.length).toBe(before?.node?.length);
      for (const [i, node] of (before?.node ?? []).entries()) {
        const other = after?.node?.[i];
        expect([other?.opType, other?.name, other?.domain, other?.input, other?.output]).toEqual([
          node.opType,
          node.name,
          node.domain,
          node.input,
          node.output,
        ]);
        expect(other?.attribute).toEqual(node.attribute);
      }
      expect(after?.input).toEqual(before?.input);
      expect(after?.output).toEqual(before?.output);
    }
  });

  it("is a fixed point after one round, typed fields and external data included", async () => {
    for (const name of ["features.onnx", "typed.onnx", "external.onnx"]) {
      const model = await readModel(join(WEIRD, name));
      const once = Buffer.from(encodeModel(model));
      const again = await readModel(fileOf(once));
      expect(Buffer.from(encodeModel(again)).equals(once)).toBe(true);
      const [before, after] = [constants(model), constants(again)];
      for (const [key, data] of after) {
        const other = before.get(key);
        if (data.content.kind !== "strings") expect(other && Buffer.from(readTensor(other)).equals(readTensor(data))).toBe(true);
      }
    }
  });

  it("puts weights into one aligned file, once", async () => {
    const model = await readModel(GLYPHS);
    const file = place("model.onnx");
    const result = await writeModel(model, file);
    const digestOf = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
    expect(result).toEqual({
      ...{ modelBytes: statSync(file).size, dataBytes: statSync(`${file}.data`).size, dataFile: `${file}.data` },
      reads: new Set(["model.onnx.data"]),
      digests: new Map(["model.onnx.data", "model.onnx"].map((name) => [name, digestOf(join(dirname(file), name))])),
    });
    expect(readdirSync(dirname(file)).sort()).toEqual(["model.onnx", "model.onnx.data"]);
    const before = constants(model);
    const after = constants(await readModel(file));
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    const offsets = new Set<number>();
    for (const [name, data] of after) {
      const source = before.get(name);
      expect(source && Buffer.from(readTensor(source)).equals(readTensor(data))).toBe(true);
      if (data.content.kind !== "file") continue;
      const { offset, length } = data.content;
      expect(offset % (length >= 1 << 16 ? 1 << 16 : 64)).toBe(0);
      expect(offsets.has(offset)).toBe(false);
      offsets.add(offset);
    }
    expect(offsets.size).toBeGreaterThan(50);
  });

  it("writes the same bytes anywhere", async () => {
    const [one, two] = [place("model.onnx"), place("model.onnx")];
    for (const file of [one, two]) await writeModel(await readModel(join(FIXTURES, "dit", "torchscript-17.onnx")), file);
    expect(readFileSync(two).equals(readFileSync(one))).toBe(true);
    expect(readFileSync(`${two}.data`).equals(readFileSync(`${one}.data`))).toBe(true);
    expect(readFileSync(one).includes(folder)).toBe(false);
  });

  it("lets a second model refer to what is there", async () => {
    const model = await readModel(join(FIXTURES, "dit", "dynamo-20.onnx"));
    const home = mkdtempSync(join(folder, "shared"));
    const written = new WrittenData();
    const first = await writeModel(model, join(home, "a.onnx"), { written });
    const second = await writeModel(model, join(home, "b.onnx"), { written });
    expect(first.dataBytes).toBeGreaterThan(0);
    expect(second).toMatchObject({ modelBytes: first.modelBytes, dataBytes: 0, dataFile: undefined });
    expect(readdirSync(home).sort()).toEqual(["a.onnx", "a.onnx.data", "b.onnx"]);
    expect(constants(await readModel(join(home, "b.onnx")))).toEqual(constants(await readModel(join(home, "a.onnx"))));
  });

  it("leaves nothing half-written", async () => {
    const model = await readModel(GLYPHS);
    const file = place("model.onnx");
    const controller = new AbortController();
    controller.abort();
    expect(await codeOf(writeModel(model, file, { signal: controller.signal }))).toBe("CANCELLED");
    const later = new AbortController();
    setTimeout(() => {
      later.abort();
    }, 15);
    const repeated = [...Array(50).keys()].map((i) => constant(`c${i}`, tensorOf("float", [1 << 16], new Float32Array(1 << 16))));
    const large = makeNode({ opType: "Sum", inputs: repeated, outputs: [{ name: "y" }] });
    const slow = modelOf({ nodes: [large], outputs: [{ name: "y", value: only(large) }] });
    expect(await codeOf(writeModel(slow, file, { signal: later.signal }))).toBe("CANCELLED");
    expect(readdirSync(dirname(file))).toEqual([]);
    const lost = constant("w", {
      elem: "float",
      shape: [1024],
      content: { kind: "file", file: join(folder, "lost.bin"), offset: 0, length: 4096 },
    });
    const { node, value } = makeOp("Neg", [lost], { name: "y" });
    const gone = modelOf({ nodes: [node], outputs: [{ name: "y", value }] });
    const other = place("model.onnx");
    expect(await codeOf(writeModel(gone, other))).toBe("FILE_MISSING");
    expect(await codeOf(writeModel(gone, other, { external: "none" }))).toBe("FILE_MISSING");
    writeFileSync(join(folder, "lost.bin"), Buffer.alloc(4000));
    expect(await codeOf(writeModel(gone, other))).toBe("EXTERNAL_DATA_SHORT");
    expect(readdirSync(dirname(other))).toEqual([]);
    expect(await codeOf(writeModel(model, join(folder, "no", "such", "folder.onnx")))).toBe("FILE_NOT_WRITTEN");
    mkdirSync(other);
    expect(await codeOf(writeModel(model, other, { external: "none" }))).toBe("FILE_NOT_WRITTEN");
    expect(readdirSync(dirname(other))).toEqual([basename(other)]);
  });

  it("refuses models above the limit of the format", async () => {
    const weight = constant("w", {
      elem: "uint8",
      shape: [2 ** 31],
      content: { kind: "file", file: "/nowhere", offset: 0, length: 2 ** 31 },
    });
    const { node, value } = makeOp("Neg", [weight], { name: "y" });
    const model = modelOf({ nodes: [node], outputs: [{ name: "y", value }] });
    expect(await codeOf(writeModel(model, place(), { external: "none" }))).toBe("MODEL_TOO_LARGE");
    expect(await codeOf(Promise.resolve().then(() => encodeModel(model)))).toBe("MODEL_TOO_LARGE");
  });
});

describe("names", () => {
  const type = { elem: "float", shape: [2] } as const;
  const x = inputValue("x", type);
  const neg = (value: Value, name: string): Node => makeNode({ opType: "Neg", name, inputs: [value], outputs: [{ name, type }] });

  function written(model: Model, options: WriteOptions & { base?: string } = {}): onnx.IGraphProto {
    const { graph } = onnx.ModelProto.decode(encodeModel(model, options));
    if (!graph) throw new Error("no graph");
    return graph;
  }

  const lines = (graph: onnx.IGraphProto): string[] =>
    (graph.node ?? []).map((node) => `${(node.output ?? []).join()} = ${node.opType ?? ""}(${(node.input ?? []).join()})`);

  it("are made unique in the order of the nodes", () => {
    const a = neg(x, "a");
    const b = neg(only(a), "a");
    const c = neg(only(b), "");
    const d = neg(only(c), "x");
    const graph = written(modelOf({ inputs: [x], nodes: [a, b, c, d], outputs: [{ name: "a_1", value: only(d) }] }));
    expect(lines(graph)).toEqual(["a = Neg(x)", "a_2 = Neg(a)", "Neg_output = Neg(a_2)", "a_1 = Neg(Neg_output)"]);
    expect(graph.node?.map((node) => node.name)).toEqual(["a", "a_1", "", "x"]);
  });

  it("have an Identity where one value is several outputs, or an input or a constant is one", () => {
    const a = neg(x, "a");
    const c = constant("c", tensorOf("float", [2], [1, 2]));
    const outputs = [
      { name: "first", value: only(a) },
      { name: "second", value: only(a) },
      { name: "c", value: c },
      { name: "x", value: x },
      { name: "copy", value: x },
    ];
    const graph = written(modelOf({ inputs: [x], nodes: [a], outputs }));
    expect(lines(graph)).toEqual(["first = Neg(x)", "second = Identity(first)", "c = Identity(c_1)", "copy = Identity(x)"]);
    expect(graph.output?.map(({ name }) => name)).toEqual(["first", "second", "c", "x", "copy"]);
    expect(graph.initializer?.map(({ name }) => name)).toEqual(["c_1"]);
  });

  it("that subgraphs read are exact", async () => {
    const source = await readModel(join(WEIRD, "features.onnx"));
    const original = nodeNamed(source, "if");
    const [flag] = original.inputs;
    const a = neg(x, "mid");
    const b = neg(only(a), "then_local");
    const w = constant("weight", tensorOf("float", [4], [1, 2, 3, 4]));
    const captures = [
      { name: "deep", value: only(b) },
      { name: "mid", value: only(b) },
      { name: "w", value: w },
      { name: "x", value: x },
    ];
    const branch = makeNode({ ...original, captures, outputs: [{ name: "chosen" }] });
    const inputs = [x, ...(flag ? [flag] : [])];
    const graph = written(modelOf({ inputs, nodes: [a, b, branch], outputs: [{ name: "y", value: only(branch) }] }));
    expect(lines(graph)).toEqual(["mid_1 = Neg(x)", "deep = Neg(mid_1)", "mid = Identity(deep)", "y = If(flag)"]);
    expect(graph.initializer?.map(({ name }) => name)).toEqual(["w"]);
    const clash = makeNode({ ...branch, captures: [{ name: "x", value: only(a) }], outputs: [{ name: "z" }] });
    const model = modelOf({ inputs, nodes: [a, b, branch, clash], outputs: [] });
    expect(() => encodeModel(model)).toThrow(expect.objectContaining({ code: "NAME_CLASH" }));
  });

  it("that opaque attributes read are exact in the graphs of nodes, too", async () => {
    const original = nodeNamed(await readModel(join(WEIRD, "features.onnx")), "if");
    const mid = neg(x, "m");
    const captures = ["mid", "deep"].map((name) => ({ name, value: only(mid) }));
    const reader = makeNode({ ...original, inputs: [], captures, outputs: [{ name: "chosen" }] });
    const value: Graph = { name: "b", inputs: [], outputs: [{ name: "o", value: only(reader) }], nodes: [mid, reader], marks: [] };
    const holder = makeNode({ opType: "If", inputs: [], outputs: [{ name: "y" }], attributes: new Map([["b", { kind: "graph", value }]]) });
    const graph = written(modelOf({ inputs: [x], nodes: [neg(x, "mid"), holder] }));
    expect(lines(graph)).toEqual(["mid_1 = Neg(x)", "y = If()"]);
    expect(lines(graph.node?.[1]?.attribute?.[0]?.g ?? {})).toEqual(["mid = Neg(x)", "deep = Identity(mid)", "chosen = If()"]);
  });

  it("of inner values are not given to outer ones", async () => {
    const source = await readModel(join(WEIRD, "features.onnx"));
    const branch = nodeNamed(source, "if");
    const reader = neg(only(branch), "inner_t");
    const graph = written({ ...source, graph: { ...source.graph, nodes: [...source.graph.nodes, reader] } });
    expect(lines(graph).at(-1)).toBe("inner_t_1 = Neg(chosen)");
  });

  it("of values in the graphs of nodes hide none from around them", () => {
    const inner = neg(x, "a");
    const outer = neg(x, "a");
    const side = (name: string, node: Node, value: Value): [string, Attribute] => [
      name,
      {
        kind: "graph",
        value: {
          name,
          inputs: [],
          outputs: [value, only(node), only(node)].map((given) => ({ name: "same", value: given })),
          nodes: [node],
          marks: [],
        },
      },
    ];
    const c = constant("c", tensorOf("float", [2], [1, 2]));
    const branch = makeNode({
      opType: "If",
      inputs: [constant("flag", tensorOf("bool", [], [1]))],
      outputs: ["p", "q", "r"].map((name) => ({ name, type })),
      attributes: new Map([side("then_branch", inner, x), side("else_branch", neg(only(outer), "a"), c)]),
    });
    const ports = branch.outputs.map((value) => ({ name: value.name, value }));
    const graph = written(modelOf({ inputs: [x], nodes: [outer, branch], outputs: ports }));
    expect(lines(graph)).toEqual(["a = Neg(x)", "p,q,r = If(flag)"]);
    expect(graph.initializer?.map(({ name }) => name)).toEqual(["flag", "c"]);
    const sides = graph.node?.[1]?.attribute?.map(({ g }) => g ?? {}) ?? [];
    expect(sides.map(lines)).toEqual([
      ["a_1 = Neg(x)", "x_out = Identity(x)", "a_1_out = Identity(a_1)"],
      ["a_2 = Neg(a)", "c_out = Identity(c)", "a_2_out = Identity(a_2)"],
    ]);
    expect(sides.map(({ output }) => output?.map(({ name }) => name))).toEqual([["x_out", "a_1", "a_1_out"], ["c_out", "a_2", "a_2_out"]]); // prettier-ignore
  });

  it("are one for constants with the same content, which come in the order of use", () => {
    const range = { kind: "file", file: join(WEIRD, "weights.bin"), offset: 3, length: 8 } as const;
    const bytes = { kind: "bytes", bytes: new Uint8Array(8) } as const;
    const all = [
      constant("r", { elem: "float", shape: [2], content: range }),
      constant("b", { elem: "float", shape: [2], content: bytes }),
      constant("r2", { elem: "float", shape: [2], content: { ...range } }),
      constant("flat", { elem: "float", shape: [1, 2], content: range }),
      constant("b2", { elem: "float", shape: [2], content: { ...bytes } }),
    ];
    const unused = constant("unused", tensorOf("float", [], [1]));
    const sum = makeNode({ opType: "Sum", inputs: all, outputs: [{ name: "y", type }] });
    const graph = written(
      modelOf({ nodes: [sum], outputs: [{ name: "y", value: only(sum) }], marks: [{ site: "s", half: "cond", step: 0, value: unused }] }),
    );
    expect(lines(graph)).toEqual(["y = Sum(r,b,r,flat,b)"]);
    expect(graph.initializer?.map(({ name }) => name)).toEqual(["r", "b", "flat"]);
  });

  it("say types where they are wanted", async () => {
    const file = place();
    const model = await readModel(GLYPHS);
    await writeModel(model, file, { valueInfo: false, external: "none" });
    expect(onnx.ModelProto.decode(readFileSync(file)).graph?.valueInfo).toEqual([]);
    expect((await readModel(file)).graph.outputs.map((port) => port.value.type)).toEqual(
      model.graph.outputs.map((port) => port.value.type),
    );
  });
});

describe("in the runtime", () => {
  const feeds = (arch: string): Record<string, ort.Tensor> => {
    const inputs = join(FIXTURES, arch, "inputs");
    return Object.fromEntries(
      readdirSync(inputs).map((name) => {
        const data = readNpy(join(inputs, name));
        const numbers = tensorNumbers(data);
        const tensor =
          data.elem === "int64"
            ? new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), data.shape)
            : new ort.Tensor("float32", Float32Array.from(numbers), data.shape);
        return [basename(name, ".npy"), tensor];
      }),
    );
  };
  const prediction = async (source: string | Uint8Array, arch: string, base?: string): Promise<ort.Tensor["data"]> => {
    const session = { ...(base === undefined ? {} : { model_external_initializers_file_folder_path: base }) };
    const options = { graphOptimizationLevel: "disabled", extra: { session } } as const;
    const created = await (typeof source === "string"
      ? ort.InferenceSession.create(source, options)
      : ort.InferenceSession.create(source, options));
    const { prediction: result } = await created.run(feeds(arch));
    await created.release();
    if (!result) throw new Error("no prediction");
    return result.data;
  };

  it("files, byte strings and references compute what the original does", async () => {
    for (const file of EXPORTS) {
      const arch = basename(dirname(file));
      const wanted = await prediction(file, arch);
      const model = await readModel(file);
      expect(await prediction(encodeModel(model), arch)).toEqual(wanted);
      // Weights stay inside the original .onnx file, at whatever offsets they have.
      const references = encodeModel(model, { base: dirname(file) });
      expect(references.length).toBeLessThan(statSync(file).size / 2);
      expect(await prediction(references, arch, dirname(file))).toEqual(wanted);
      const copy = place("model.onnx");
      await writeModel(model, copy);
      expect(await prediction(copy, arch)).toEqual(wanted);
    }
  });
});

describe("graphs in nodes", () => {
  it("run, and are read as bytes with captures", async () => {
    const model = parse(LOOPED);
    const file = place();
    await writeModel(model, file);
    const session = await ort.InferenceSession.create(file);
    const { y } = await session.run({ x: new ort.Tensor("float32", Float32Array.of(1, -2, 0, 3), [2, 2]) });
    await session.release();
    const times = ([a = 0, b = 0, c = 0, d = 0]: readonly number[]): number[] => [a + 3 * b, 2 * a + 4 * b, c + 3 * d, 2 * c + 4 * d];
    const plus = (a: readonly number[], b: readonly number[]): number[] => a.map((number, i) => number + (b[i] ?? 0));
    const start = [-1, 2, -0, -3];
    const second = plus(plus(start, times(start)), start);
    expect([...(y?.data ?? [])]).toEqual(plus(second, times(second)));
    const [, loop] = (await readModel(file)).graph.nodes;
    expect(loop?.attributes.get("body")?.kind).toBe("opaque");
    expect(loop?.captures.map(({ name }) => name).sort()).toEqual(["a", "computes", "w"]);
  });
});

describe("size", () => {
  it("never reads weights: 8 GiB beside the model", async () => {
    const file = place();
    const data = join(dirname(file), "w.bin");
    writeFileSync(data, "");
    truncateSync(data, 2 ** 33);
    const node = [{ opType: "Identity", input: ["w"], output: ["y"] }];
    writeFileSync(file, foreign({ node, initializer: [external({ location: "w.bin" }, [2 ** 31])], output: [{ name: "y" }] }));
    const before = process.memoryUsage().rss;
    const model = await readModel(file);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20);
    expect(constants(model).get("w")?.content).toEqual({ kind: "file", file: data, offset: 0, length: 2 ** 33 });
    const reference = encodeModel(model, { base: dirname(file) });
    expect(reference.length).toBeLessThan(1000);
  });

  it.each(["initializer", "attribute"])("never reads weights: 1.9 GiB inside the model, in an %s", async (kind) => {
    const length = 1900 * 2 ** 20;
    const field = (tag: number, size: number, ...rest: Uint8Array[]): Buffer =>
      Buffer.concat([Buffer.from([tag, ...[0, 7, 14, 21].map((s) => ((size >> s) & 127) | 128), (size >> 28) & 15]), ...rest]);
    const raw = field(0x4a, length);
    const head = onnx.TensorProto.encode({ name: "w", dims: [length], dataType: onnx.TensorProto.DataType.UINT8 }).finish();
    /** A field whose last bytes are the payload, which is not there yet. */
    const around = (tag: number, ...parts: Uint8Array[]): Buffer =>
      field(tag, parts.reduce((sum, part) => sum + part.length, length), ...parts); // prettier-ignore
    const tensor = around(0x2a, head, raw);
    const value = onnx.AttributeProto.encode({ name: "value", type: onnx.AttributeProto.AttributeType.TENSOR }).finish();
    const node = onnx.NodeProto.encode({ opType: "Constant", output: ["w"] }).finish();
    const weight = kind === "initializer" ? tensor : around(0x0a, node, around(0x2a, value, tensor));
    const rest = onnx.GraphProto.encode({ node: [{ opType: "Neg", input: ["w"], output: ["y"] }], output: [{ name: "y" }] }).finish();
    const graph = around(0x3a, rest, weight);
    const file = fileOf(graph);
    truncateSync(file, graph.length + length);
    const tail = onnx.ModelProto.encode({ irVersion: 8, opsetImport: [{ version: 17 }] }).finish();
    const handle = openSync(file, "r+");
    writeSync(handle, tail, 0, tail.length, graph.length + length);
    closeSync(handle);
    const before = process.memoryUsage().rss;
    const model = await readModel(file);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20);
    const [w] = model.graph.nodes.at(-1)?.inputs ?? [];
    expect(constantOf(w)?.content).toEqual({ kind: "file", file, offset: graph.length, length });
  });

  it("is nearly linear in nodes", async () => {
    const seconds = async (count: number): Promise<number> => {
      const w = constant("w", tensorOf("float", [2], [1, 2]));
      let last: Value = inputValue("x", { elem: "float", shape: [2] });
      const inputs = [last];
      const nodes: Node[] = [];
      for (let i = 0; i < count; i++) {
        const node = makeNode({
          opType: i % 2 ? "Add" : "Softmax",
          name: `node ${i % 100}`,
          inputs: i % 2 ? [last, w] : [last],
          outputs: [{ name: "v", type: { elem: "float", shape: [2] } }],
          attributes: i % 2 ? new Map() : new Map<string, Attribute>([["axis", { kind: "int", value: -1n }]]),
        });
        nodes.push(node);
        last = only(node);
      }
      const model = modelOf({ inputs, nodes, outputs: [{ name: "y", value: last }] });
      const file = place();
      const start = process.cpuUsage();
      await writeModel(model, file);
      const again = await readModel(file);
      expect(again.graph.nodes.length).toBe(count);
      expect(again.graph.outputs[0]?.value.producer).toBe(again.graph.nodes.at(-1));
      return process.cpuUsage(start).user / 1e6;
    };
    await seconds(10_000);
    const small = await seconds(25_000);
    const large = await seconds(100_000);
    expect(large).toBeLessThan(10);
    expect(large / small).toBeLessThan(10);
  });
});
