/** `.npz` files: what numpy wrote is read, what is written is a ZIP file as numpy's, and what is broken is refused. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { zipSync } from "fflate";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readTensor, tensorNumbers, tensorOf } from "../ir/tensor.js";
import type { Schedule } from "../schedules/index.js";
import { npyBytes } from "../src/files/npy.js";
import { npzBytes, parseNpz, readNpz } from "../src/files/npz.js";
import { readPlan, writePlan } from "../src/job/plan-file.js";
import { codeOf, thrownBy } from "./support/thrown.js";

const FIXTURES = join(import.meta.dirname, "fixtures", "plan");

const arrays = new Map([
  ["attn/1/scale", tensorOf("float", [3], [1.5, -0.25, 3])],
  ["attn-0@uncond/12/shift", tensorOf("double", [3], [0.1, 0, -7])],
  ["mlp/2/shift", tensorOf("float16", [3], [1, 2, 0.5])],
]);

/** The entries of a ZIP file that is not compressed, by its central directory (PKWARE's APPNOTE.TXT, 4.3.12 and 4.3.16). */
function entriesOf(bytes: Buffer): readonly { readonly name: string; readonly date: number; readonly content: Buffer }[] {
  const end = bytes.length - 22;
  const entries = [];
  for (let at = bytes.readUInt32LE(end + 16); at < end;) {
    const nameLength = bytes.readUInt16LE(at + 28);
    const local = bytes.readUInt32LE(at + 42);
    const dataAt = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    const content = bytes.subarray(dataAt, dataAt + bytes.readUInt32LE(at + 20));
    expect([bytes.readUInt16LE(at + 10), bytes.readUInt32LE(at + 16)]).toEqual([0, crc32(content)]);
    entries.push({ name: bytes.toString("utf8", at + 46, at + 46 + nameLength), date: bytes.readUInt32LE(at + 12), content });
    at += 46 + nameLength + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);
  }
  return entries;
}

describe("reading", () => {
  it.each(["stored", "compressed"])("reads what numpy wrote: %s", (name) => {
    const read = readNpz(join(FIXTURES, `${name}.npz`));
    expect([...read.keys()]).toEqual([...arrays.keys()]);
    for (const [key, data] of arrays) {
      const found = read.get(key);
      expect(found).toMatchObject({ elem: data.elem, shape: data.shape });
      expect(found && tensorNumbers(found)).toEqual(tensorNumbers(data));
    }
  });

  it.each([
    ["nothing", new Uint8Array(), "BAD_NPZ"],
    ["one array", npyBytes(tensorOf("float", [1], [1])), "BAD_NPZ"],
    ["an archive that is cut off", npzBytes(arrays).subarray(0, 300), "BAD_NPZ"],
    ["an archive of something else", zipSync({ "readme.txt": new Uint8Array(3) }), "BAD_NPZ"],
    ["an archive whose arrays are none", zipSync({ "a.npy": new Uint8Array(3) }), "BAD_NPY"],
  ])("refuses %s", (_, bytes, code) => {
    expect(codeOf(() => parseNpz(bytes, "a.npz"))).toBe(code);
  });

  it("answers any bytes with arrays or a diagnostic", () => {
    const whole = readFileSync(join(FIXTURES, "compressed.npz"));
    const damage = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 });
    fc.assert(
      fc.property(damage, fc.nat(30), (changes, missing) => {
        const bytes = Uint8Array.from(whole).subarray(0, missing < 20 ? whole.length : whole.length - missing);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        expect([undefined, "BAD_NPZ", "BAD_NPY"]).toContain(codeOf(() => parseNpz(bytes, "a.npz")));
      }),
      { numRuns: 500, seed: 1 },
    );
  });

  /** A ZIP file of one entry of many zeros, whose directory and its end are then changed; offsets are those of the records. */
  const bomb = (change: (bytes: Buffer, central: number, end: number) => Buffer | undefined): Uint8Array => {
    const bytes = Buffer.from(zipSync({ "a.npy": new Uint8Array(1e7) }));
    const end = bytes.length - 22;
    return change(bytes, bytes.readUInt32LE(end + 16), end) ?? bytes;
  };
  it.each([
    [
      "entries that share their bytes",
      bomb((bytes, central, end) => {
        const entry = (i: number): Buffer => {
          const copy = Buffer.from(bytes.subarray(central, end));
          copy.write(String.fromCharCode(98 + i), 46);
          return copy;
        };
        const all = Buffer.concat([bytes.subarray(0, central), ...Array.from({ length: 20 }, (_, i) => entry(i)), bytes.subarray(end)]);
        all.writeUInt16LE(20, all.length - 22 + 8);
        all.writeUInt16LE(20, all.length - 22 + 10);
        return all;
      }),
      "overlap",
    ],
    ["a size of 4 GB", bomb((bytes, central) => void bytes.writeUInt32LE(0xfffffff0, central + 24)), "are read at most"],
    ["a size that is too small", bomb((bytes, central) => void bytes.writeUInt32LE(10, central + 24)), "is damaged"],
    ["a count that lies", bomb((bytes, _, end) => void bytes.writeUInt32LE(0xffffffff, end + 8)), "its directory is damaged"],
    ["a directory that is elsewhere", bomb((bytes, _, end) => void bytes.writeUInt32LE(0x7fffffff, end + 16)), "cut off"],
    ["a byte that has changed", bomb((bytes, central) => void bytes.writeUInt8(7, central - 9)), "is damaged"],
    [
      "an entry of many sizes in ZIP64",
      bomb((bytes, central, end) => {
        const locator = Buffer.alloc(76);
        locator.writeUInt32LE(0x06064b50, 0);
        locator.writeUInt32LE(0xffffffff, 32);
        locator.writeUInt32LE(central, 48);
        locator.writeUInt32LE(0x07064b50, 56);
        locator.writeUInt32LE(end, 64);
        const all = Buffer.concat([bytes.subarray(0, end), locator, bytes.subarray(end)]);
        all.writeUInt16LE(0xffff, all.length - 12);
        return all;
      }),
      "its directory is damaged",
    ],
  ])("refuses %s at once", (_, bytes, problem) => {
    const start = performance.now();
    const thrown = thrownBy(() => parseNpz(bytes, "a.npz"));
    expect(thrown?.code).toBe("BAD_NPZ");
    expect(thrown?.message).toContain(problem);
    expect(performance.now() - start).toBeLessThan(1000);
  });

  it("says which file is not there", () => {
    expect(codeOf(() => readNpz("/nowhere/a.npz"))).toBe("FILE_MISSING");
  });
});

describe("writing", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "npz-"));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  it("has the entries that numpy.savez writes, of the same date", () => {
    const numpys = entriesOf(readFileSync(join(FIXTURES, "stored.npz")));
    expect(numpys).toHaveLength(3);
    expect(entriesOf(Buffer.from(npzBytes(arrays)))).toEqual(numpys);
  });

  it("keeps the scales and shifts of a plan beside it", async () => {
    const cells: Schedule["cells"] = new Map([["attn", [1, 0, 0]]]);
    const ofAttn = new Map([
      [1, { scale: Float32Array.of(1, 2), shift: Float32Array.of(0.1, -0) }],
      [2, { shift: Float32Array.of(3, 4) }],
    ]);
    const schedule: Schedule = { steps: 3, cells, adjustments: new Map([["attn-0@uncond", ofAttn]]) };
    const json = await writePlan(join(folder, "budget.json"), schedule, false);
    expect(readdirSync(folder).sort()).toEqual(["budget.json", "budget.npz"]);
    expect(json).toMatchObject({ tensors: "budget.npz" });
    expect(readPlan(join(folder, "budget.json"))).toEqual({ ...schedule, policy: undefined, predicted: undefined });
    await writePlan(join(folder, "plain.json"), { steps: 3, cells, adjustments: new Map() }, false);
    expect(readdirSync(folder).sort()).toEqual(["budget.json", "budget.npz", "plain.json"]);
    rmSync(join(folder, "budget.npz"));
    expect(codeOf(() => readPlan(join(folder, "budget.json")))).toBe("FILE_MISSING");
  });

  it("comes back", () => {
    const file = join(folder, "a.npz");
    writeFileSync(file, npzBytes(arrays));
    const read = readNpz(file);
    expect([...read.keys()]).toEqual([...arrays.keys()]);
    for (const [key, data] of arrays) expect(readTensor(read.get(key) ?? tensorOf("float", [], []))).toEqual(readTensor(data));
  });
});
