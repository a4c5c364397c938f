/** `.npy` files: what numpy wrote is read, what is written is read back, and what is broken is refused. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readTensor, tensorNumbers, tensorOf } from "../ir/tensor.js";
import type { ElementType } from "../ir/types.js";
import { npyBytes, parseNpy, readNpy, writeNpy } from "../src/files/npy.js";
import { codeOf } from "./support/thrown.js";

/** A file with this header text and data, in format version 1, 2 or 3. */
function file(header: string, data: Uint8Array, version = 1): Uint8Array {
  const length = Buffer.alloc(version === 1 ? 2 : 4);
  if (version === 1) length.writeUInt16LE(header.length);
  else length.writeUInt32LE(header.length);
  return Buffer.concat([Buffer.from(`\x93NUMPY${String.fromCharCode(version)}\x00`, "latin1"), length, Buffer.from(header), data]);
}

const header = (descr: string, shape: string, fortran = "False"): string =>
  `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }   \n`;
const sixFloats = new Uint8Array(Float32Array.from([1, 2, 3, 4, 5, 6]).buffer);

describe("reading", () => {
  it("reads what numpy wrote", () => {
    const labels = readNpy(fileURLToPath(new URL("../examples/glyphs/reference/class_labels.npy", import.meta.url)));
    expect(labels.elem).toBe("int64");
    expect(labels.shape).toEqual([8]);
    expect(tensorNumbers(labels)).toEqual([18, 12, 14, 14, 19, 7, 2, 2]);
    const noise = readNpy(fileURLToPath(new URL("../examples/glyphs/reference/noise.npy", import.meta.url)));
    expect(noise.elem).toBe("float");
    expect(noise.shape).toEqual([8, 1, 32, 32]);
  });

  it.each([1, 2, 3])("reads format version %d", (version) => {
    const data = parseNpy(file(header("<f4", "(2, 3)"), sixFloats, version), "a.npy");
    expect(data.shape).toEqual([2, 3]);
    expect(tensorNumbers(data)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("reads scalars, empty arrays and other orders of the fields", () => {
    expect(parseNpy(file(header("<f8", "()"), new Uint8Array(8)), "a.npy").shape).toEqual([]);
    expect(parseNpy(file(header("<f8", "(0, 4)"), new Uint8Array()), "a.npy").shape).toEqual([0, 4]);
    expect(parseNpy(file("{'shape': (6,), 'fortran_order': False, 'descr': '<f4'}", sixFloats), "a.npy").shape).toEqual([6]);
    expect(parseNpy(file(header("<f4", "(6,)", "True"), sixFloats), "a.npy").shape).toEqual([6]);
  });

  it.each([
    ["nothing", new Uint8Array()],
    ["another file", Buffer.from("PK\x03\x04 something else altogether")],
    ["an unknown version", file(header("<f4", "(6,)"), sixFloats, 4)],
    ["a header that is cut off", file(header("<f4", "(6,)"), sixFloats).subarray(0, 40)],
    ["data that is cut off", file(header("<f4", "(6,)"), sixFloats.subarray(1))],
    ["data that is too long", file(header("<f4", "(5,)"), sixFloats)],
    ["big-endian numbers", file(header(">f4", "(6,)"), sixFloats)],
    ["Fortran order", file(header("<f4", "(2, 3)", "True"), sixFloats)],
    ["objects", file(header("|O", "(6,)"), sixFloats)],
    ["a structured type", file("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }", sixFloats)],
    ["code in the header", file("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').system('true'),), }", sixFloats)],
    ["a second expression", file("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'more': 1}", sixFloats)],
    ["a missing field", file("{'descr': '<f4', 'shape': (6,), }", sixFloats)],
    ["no dictionary", file("[1, 2]", sixFloats)],
    ["a negative dimension", file(header("<f4", "(-6,)"), sixFloats)],
    ["a dimension beyond all memory", file(header("<f4", "(99999999999999999999,)"), sixFloats)],
    ["a shape whose product overflows", file(header("<f4", "(4294967296, 4294967296, 4294967296)"), sixFloats)],
    ["a dimension beyond all memory beside a 0", file(header("<f4", "(0, 99999999999999999999)"), new Uint8Array())],
  ])("refuses %s", (_, bytes) => {
    expect(codeOf(() => parseNpy(bytes, "a.npy"))).toBe("BAD_NPY");
  });

  it("takes no time over a long hostile header", () => {
    for (const filler of [" ", "(", "'", "1", "1,", "{"]) {
      const started = performance.now();
      const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${filler.repeat(200_000)}`;
      expect(codeOf(() => parseNpy(file(text, sixFloats, 2), "a.npy"))).toBe("BAD_NPY");
      expect(codeOf(() => parseNpy(file(`${text}}`, sixFloats, 2), "a.npy"))).toBe("BAD_NPY");
      expect(performance.now() - started).toBeLessThan(2000);
    }
  });

  it("answers any bytes with an array or BAD_NPY", () => {
    const whole = file(header("<f4", "(2, 3)"), sixFloats);
    const damage = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 });
    fc.assert(
      fc.property(damage, fc.nat(whole.length), (changes, length) => {
        const bytes = Uint8Array.from(whole).subarray(0, length);
        for (const [at, value] of changes) if (at < length) bytes[at] = value;
        expect([undefined, "BAD_NPY"]).toContain(codeOf(() => parseNpy(bytes, "a.npy")));
      }),
      { numRuns: 2000, seed: 1 },
    );
  });

  it("says which file is not there", () => {
    expect(codeOf(() => readNpy("/nowhere/a.npy"))).toBe("FILE_MISSING");
  });
});

describe("writing", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "npy-"));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  it.each<[ElementType, number[], number[]]>([
    ["float", [2, 3], [1.5, -2, 3, 4, 5, 1e-30]],
    ["double", [3], [0.1, -1e300, 0]],
    ["int64", [2], [-5, 2 ** 40]],
    ["int32", [1, 2], [-5, 7]],
    ["uint8", [4], [0, 1, 254, 255]],
    ["bool", [], [1]],
    ["float", [0, 7], []],
  ])("%s %j comes back", async (elem, shape, values) => {
    const path = join(folder, "a.npy");
    const data = tensorOf(elem, shape, values);
    writeFileSync(path, "something that was there");
    await writeNpy(path, data);
    expect(readNpy(path)).toEqual(data);
  });

  it("keeps float16 as it is", () => {
    const data = { elem: "float16", shape: [2], content: { kind: "bytes", bytes: Uint8Array.of(0, 0x3c, 0, 0xc0) } } as const;
    expect(readTensor(parseNpy(npyBytes(data), "a.npy"))).toEqual(data.content.bytes);
  });

  it("writes numpy's own bytes", () => {
    const dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    const bytes = npyBytes(tensorOf("float", [2, 3], [1, 2, 3, 4, 5, 6]));
    expect(Buffer.from(bytes)).toEqual(Buffer.from(file(`${dictionary.padEnd(117)}\n`, sixFloats)));
    expect((bytes.length - sixFloats.length) % 64).toBe(0);
  });

  it("refuses types that numpy has no name for", () => {
    const data = { elem: "bfloat16", shape: [1], content: { kind: "bytes", bytes: new Uint8Array(2) } } as const;
    expect(codeOf(() => npyBytes(data))).toBe("TENSOR_WRONG_TYPE");
  });
});
