/** Files of torch.save, written by torch itself (`fixtures/routers/generate.py`), read without it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { zipSync } from "fflate";
import { describe, expect, it } from "vitest";
import { tensorNumbers } from "../ir/tensor.js";
import { unpickle } from "../src/files/pickle.js";
import { parseTorchFile, readTorchFile } from "../src/files/torch-file.js";
import { codeOf, thrownBy } from "./support/thrown.js";

const FIXTURES = join(import.meta.dirname, "fixtures", "routers");

describe("readTorchFile", () => {
  it("reads types, shapes and views; what stands in a list is not found", () => {
    const tensors = readTorchFile(join(FIXTURES, "tensors.pt"));
    expect([...tensors.keys()]).toEqual(["half", "view"]);
    const found = [...tensors.values()].map((data) => ({ elem: data.elem, shape: data.shape, numbers: tensorNumbers(data) }));
    expect(found).toEqual([
      { elem: "float16", shape: [1, 2], numbers: [1.5, 2] },
      { elem: "int64", shape: [3], numbers: [2, 3, 4] },
    ]);
  });

  it("finds tensors in dictionaries of dictionaries, beside an optimiser's state and a script's arguments", () => {
    const names = [...readTorchFile(join(FIXTURES, "dit.pt")).keys()];
    expect(names.slice(0, 6)).toEqual([0, 1, 2, 3, 4, 5].map((step) => `routers.${step}.prob`));
    expect(names).toContain("opt.state.0.exp_avg");
  });

  it("reads the same routers from either form of file", () => {
    const bare = readTorchFile(join(FIXTURES, "u-vit.pth"));
    const among = readTorchFile(join(FIXTURES, "dit.pt"));
    expect(bare.size).toBe(6);
    for (const [name, data] of bare) expect(tensorNumbers(data)).toEqual(tensorNumbers(among.get(`routers.${name}`) ?? data));
  });
});

describe("unpickle", () => {
  const shared = [1, -2, 300, 70000, 2 ** 40, -(2 ** 40), 1.5, true, false, null];
  const inner = new Map<string, unknown>([
    ["k", new Map()],
    ["l", []],
  ]);
  const value = new Map<unknown, unknown>([
    ["a", shared],
    ["é", ["x", [1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]],
    [3, inner],
    ["again", shared],
  ]);

  // pickle.dumps(value, protocol) of Python 3.
  it.each([
    [
      2,
      "gAJ9cQAoWAEAAABhcQFdcQIoSwFK/v///00sAUpwEQEAigYAAAAAAAGKBgAAAAAA/0c/+AAAAAAAAIiJTmVYAgAAAMOpcQMoWAEAAAB4cQRLAYVxBUsBSwKGcQZLAUsCSwOHcQcoSwFLAksDSwR0cQh0cQlLA31xCihYAQAAAGtxC31xDFgBAAAAbHENXXEOdVgFAAAAYWdhaW5xD2gCdS4=",
    ],
    [
      4,
      "gASVfQAAAAAAAAB9lCiMAWGUXZQoSwFK/v///00sAUpwEQEAigYAAAAAAAGKBgAAAAAA/0c/+AAAAAAAAIiJTmWMAsOplCiMAXiUSwGFlEsBSwKGlEsBSwJLA4eUKEsBSwJLA0sEdJR0lEsDfZQojAFrlH2UjAFslF2UdYwFYWdhaW6UaAJ1Lg==",
    ],
  ])("reads what Python wrote in protocol %i", (_, pickle) => {
    const refuse = (): never => {
      throw new Error("nothing is called");
    };
    const found = unpickle(Buffer.from(pickle, "base64"), { call: refuse, persistent: refuse });
    expect(found).toEqual(value);
    expect(found instanceof Map && found.get("a") === found.get("again")).toBe(true);
  });
});

/** A file of torch's whose pickle is these bytes. */
function withPickle(...parts: readonly (string | Uint8Array)[]): Uint8Array {
  const pickle = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part, "latin1") : part)));
  return zipSync({ "a/data.pkl": pickle, "a/data/0": new Uint8Array(4096) }, { level: 0 });
}

describe("pickles that ask for more than they are", () => {
  const int32 = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  const storage = "(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuM\0\x04tQ";
  const bombs: Readonly<Record<string, Uint8Array>> = {
    "a LONG4 of 4 MB": withPickle("\x80\x02\x8b", int32(4e6), new Uint8Array(4e6).fill(1), "."),
    "a pickle that is too long": withPickle("\x80\x02", "N".repeat(3e6), "."),
    "keys of pairs of pairs, 40 deep": withPickle("\x80\x02}(", "K\x01", "q\0h\0\x86".repeat(40), "K\x01u."),
    "names of pairs of pairs, 40 deep": withPickle("\x80\x02K\x01", "q\0h\0\x86".repeat(40), "K\x01\x93."),
    "dictionaries of dictionaries, 40 deep": withPickle("\x80\x02}", "q\0}(K\0h\0K\x01h\0u".repeat(40), "."),
    "dictionaries in one another, 10⁵ deep": withPickle("\x80\x02}", "}(K\0}u".repeat(1e5), "(K\0".repeat(0), "."),
    "lists, 10⁵ deep": withPickle("\x80\x02", "]".repeat(1e5), "a".repeat(1e5 - 1), "."),
    "a shape of 10⁵ axes": withPickle("\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(", storage, "K\0", "(", "K\x01".repeat(1e5), "t)tR."),
    "a tensor of 2⁶² numbers": withPickle(
      "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(",
      storage,
      "K\0J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86K\x01K\x01\x86tR.",
    ),
    "what is called with itself": withPickle("\x80\x02]q\0h\0R."),
    "no mark": withPickle("\x80\x02t."),
    nothing: withPickle(""),
  };

  it.each(Object.entries(bombs))("%s", (_, bytes) => {
    const start = performance.now();
    expect([undefined, "BAD_TORCH_FILE"]).toContain(codeOf(() => parseTorchFile(bytes, "a.pt")));
    expect(performance.now() - start).toBeLessThan(3000);
  });

  it("finds nothing below keys that are no words, and takes no names without end", () => {
    const tensor = ["ctorch._utils\n_rebuild_tensor_v2\n(", storage, "K\0K\x03\x85K\x01\x85tR"];
    const named = (key: string): Uint8Array => withPickle("\x80\x02}", key, ...tensor, "s.");
    expect([...parseTorchFile(named("K\x07"), "a.pt").keys()]).toEqual(["7"]);
    expect([...parseTorchFile(named("K\x07\x85"), "a.pt").keys()]).toEqual([]);
    const long = Buffer.concat([Buffer.from("X"), int32(1e4), Buffer.alloc(1e4, "k")]).toString("latin1");
    expect(thrownBy(() => parseTorchFile(named(long), "a.pt"))?.message).toContain("letters");
  });

  it("lets many tensors share the bytes of one storage", () => {
    const tensor = ["ctorch._utils\n_rebuild_tensor_v2\n(", "h\0", "K\0M\0\x04\x85K\x01\x85tR"];
    const all = Array.from({ length: 1000 }, (_, i) => ["M", Buffer.from([i & 255, i >> 8]), ...tensor]).flat();
    const tensors = parseTorchFile(withPickle("\x80\x02", storage, "q\0}(", ...all, "u."), "a.pt");
    expect(tensors.size).toBe(1000);
    const memory = new Set([...tensors.values()].map(({ content }) => (content.kind === "bytes" ? content.bytes.buffer : undefined)));
    expect(memory.size).toBe(1);
  });

  it("answers any bytes with tensors or a diagnostic", () => {
    const whole = readFileSync(join(FIXTURES, "dit.pt"));
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 }), (changes) => {
        const bytes = Uint8Array.from(whole);
        for (const [at, value] of changes) bytes[at] = value;
        expect([undefined, "BAD_TORCH_FILE"]).toContain(codeOf(() => parseTorchFile(bytes, "a.pt")));
      }),
      { numRuns: 300, seed: 1 },
    );
    const opcode = fc.constantFrom(
      ...Array.from("(.)]}NQRabcehjqrstu\n\0\x01\x02\x81\x85\x86\x87\x8a\x93\x94"),
      "K\x01",
      "X\x01\0\0\0k",
      storage,
    );
    fc.assert(
      fc.property(fc.array(opcode, { maxLength: 30 }), (opcodes) => {
        expect([undefined, "BAD_TORCH_FILE"]).toContain(codeOf(() => parseTorchFile(withPickle(...opcodes, "."), "a.pt")));
      }),
      { numRuns: 1000, seed: 1 },
    );
  });
});
