/** Damaged and hostile variants of inputs, by the syntax that the inputs have. */
import { zipSync } from "fflate";
import { unzipped } from "../../src/files/zip.js";
import type { Random } from "./random.js";
import { bytesOf, type Field, fieldsOf, varintBytes } from "./wire.js";

/** A variant of `input`; `other` is another input of the same reader, to take parts from. The same random numbers make the same variant. */
export type Mutation = (input: Buffer, other: Buffer, random: Random) => Buffer;

/** Bombs are mostly small, and never larger than this. */
const LARGEST = 1 << 22;

/** Names and strings that some reader may take for something else. */
const WORDS = [
  ...["", " ", ".", "..", "/", "../../etc/passwd", "__proto__", "constructor", "toString", "length", "float", "seq", "v", "v_1", "nan", "-0", "{...}"],
  ...['"', "\\", "\\\"", "\n", "\r\n", "\t", "\0", "\u001b[31m", "\u202e", "\u2028", "\uFEFF", "\uFFFD", "\ud800", "é", "日本", "😀", "a.b", "a b", "a_1", "%s", "#", "# mark "],
]; // prettier-ignore

const NUMBERS = [0, -0, 1, -1, 2, 7, 127, 128, 255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e21, 1e308, -1e308, 5e-324, 0.1, 1.5]; // prettier-ignore

/** Places near the beginning and the end are more often chosen: headers and directories stand there. */
function place(length: number, random: Random): number {
  const edge = Math.min(length, 128);
  const from = random.pick([0, length - edge, -1]);
  return from < 0 ? random.below(length) : from + random.below(edge);
}

/** `count` slices of a buffer that lie beside one another, up to the whole. */
function slice(bytes: Buffer, random: Random): readonly [from: number, to: number] {
  const from = place(bytes.length, random);
  return [from, Math.min(bytes.length, from + random.size(bytes.length - from + 1))];
}

function interesting(random: Random): Buffer {
  const width = random.pick([1, 2, 4, 8]);
  const bytes = Buffer.alloc(8);
  const value = BigInt.asUintN(
    64,
    BigInt(Math.trunc(random.pick(NUMBERS.filter((n) => Math.abs(n) < 2 ** 63)))) + BigInt(random.below(3) - 1),
  );
  if (random.once(2)) bytes.writeBigUInt64LE(value);
  else return (bytes.writeBigUInt64BE(value), bytes.subarray(8 - width));
  return bytes.subarray(0, width);
}

const joined = (...parts: readonly Uint8Array[]): Buffer => Buffer.concat(parts);

/** For any format: bytes and slices changed, moved, repeated, taken from elsewhere. */
const bytes: Mutation = (input, other, random) => {
  const [from, to] = slice(input, random);
  const before = input.subarray(0, from);
  const within = input.subarray(from, to);
  const after = input.subarray(to);
  switch (random.below(9)) {
    case 0: {
      const flipped = Buffer.from(input);
      for (let n = random.size(8); n >= 0 && flipped.length > 0; n--) {
        const at = place(flipped.length, random);
        flipped[at] = (flipped[at] ?? 0) ^ (1 << random.below(8));
      }
      return flipped;
    }
    case 1:
      return before;
    case 2:
      return joined(before, after);
    case 3:
      return joined(before, within, within, after);
    case 4: {
      const [start, end] = slice(other, random);
      return joined(before, other.subarray(start, end), after);
    }
    case 5: {
      const number = interesting(random);
      return joined(before, number, input.subarray(Math.min(input.length, from + (random.once(2) ? number.length : 0))));
    }
    case 6: {
      const [start, end] = slice(after, random);
      return joined(before, after.subarray(start, end), after.subarray(0, start), within, after.subarray(end));
    }
    case 7: {
      const times = Math.min(random.size(1e5), Math.floor(LARGEST / (within.length + 1)));
      return joined(before, ...Array<Buffer>(times).fill(within), after);
    }
    default:
      return joined(before, Buffer.from(random.pick(WORDS)), after);
  }
};

/** A list with one entry, or a few, removed, repeated, moved, or replaced. */
function rearranged<T>(list: readonly T[], random: Random, replacement: () => T): T[] {
  const changed = [...list];
  const at = random.below(changed.length);
  const [entry = replacement()] = changed.slice(at);
  const kind = random.below(6);
  if (kind === 0) changed.splice(at, 1);
  else if (kind === 1) changed.splice(random.below(changed.length + 1), 0, entry);
  else if (kind === 2) changed.splice(random.below(changed.length), 0, ...changed.splice(at, 1));
  else if (kind === 3) changed.splice(at, 0, replacement());
  else if (kind === 4 && random.once(20)) changed.splice(at, 0, ...Array<T>(random.size(3000)).fill(entry));
  else changed.splice(at, 1, replacement());
  return changed;
}

/** For protocol buffers: fields changed, so that all lengths around them are right. */
const wire: Mutation = (input, other, random) => {
  const fields = fieldsOf(input);
  if (!fields) return bytes(input, other, random);
  const donor = fieldsOf(other) ?? fields;
  return bytesOf(changedFields(fields, donor, random));
};

function changedFields(fields: readonly Field[], donor: readonly Field[], random: Random): Field[] {
  const at = random.below(fields.length);
  const field = fields[at];
  if (field?.fields && !random.once(5)) {
    const same = donor.filter(({ id, fields: inner }) => id === field.id && inner);
    const taken = same[random.below(same.length)]?.fields ?? field.fields;
    return fields.with(at, withBytes(field, bytesOf(changedFields(field.fields, taken, random))));
  }
  const replacement = (): Field => {
    const known = random.once(3) ? random.pick(donor.length > 0 ? donor : [NOTHING]) : (field ?? NOTHING);
    if (random.once(4)) return known;
    if (random.once(12)) return withBytes({ id: random.once(2) ? 1 + random.below(30) : known.id, wire: 2 }, nested(known, random));
    if (known.wire === 0) return withBytes(known, varintOf(random));
    if (known.wire !== 2) return withBytes(known, Buffer.from(known.bytes.map(() => random.pick([0, 1, 0x7f, 0x80, 0xc0, 0xff]))));
    if (random.once(3)) return withBytes(known, Buffer.from(random.pick(WORDS)));
    if (random.once(6)) return { ...known, id: 1 + random.below(30) };
    return withBytes(known, bytes(known.bytes, known.bytes, random));
  };
  return rearranged(fields, random, replacement);
}

function withBytes({ id, wire }: Pick<Field, "id" | "wire">, content: Buffer): Field {
  return { id, wire, bytes: content };
}

const NOTHING: Field = { id: 1, wire: 0, bytes: Buffer.of(0) };

function varintOf(random: Random): Buffer {
  if (random.once(3)) return Buffer.from("ffffffffffffffffff01", "hex");
  if (random.once(4)) return joined(Buffer.alloc(random.below(9), 0x80), Buffer.of(random.below(128)));
  return varintBytes(random.once(2) ? random.below(40) : Math.abs(Math.trunc(random.pick(NUMBERS.filter((n) => Math.abs(n) < 2 ** 63)))));
}

/** A field inside itself, deep. */
function nested(field: Field, random: Random): Buffer {
  const ids = [field.id, random.pick([1, 5, 6, 7, 11])];
  let inner = field.bytes;
  for (let depth = random.size(2000); depth >= 0 && inner.length < LARGEST; depth--)
    inner = bytesOf([{ id: ids[depth % 2] ?? 1, wire: 2, bytes: inner }]);
  return inner;
}

/** For JSON: values changed; if the text is none, its bytes. */
const json: Mutation = (input, other, random) => {
  const read = (buffer: Buffer): unknown => {
    try {
      const value: unknown = JSON.parse(buffer.toString());
      return value;
    } catch {
      return undefined;
    }
  };
  const value = read(input);
  if (value === undefined || random.once(12)) return bytes(input, other, random);
  const text = JSON.stringify(changedValue(value, read(other) ?? value, random), undefined, random.pick([0, 1]));
  // Keys may be given twice, and numbers spelled as JavaScript would not.
  if (random.once(20)) return Buffer.from(text.replace(/("[^"]*":\s*)(\d+|"[^"]*")/, "$1$2, $1 1"));
  if (random.once(20))
    return Buffer.from(text.replace(/\d+(\.\d+)?/, random.pick(["NaN", "-Infinity", "1e999", "-0", "0x10", "1e-400", "9".repeat(400)])));
  if (random.once(200)) return Buffer.from(text.replace(/\d+|"[^"]*"/, () => `${"[".repeat(random.size(2e5))}1`));
  if (random.once(200))
    return Buffer.from(text.replace(/\d+|"[^"]*"/, () => random.pick(['{"a":', "[", "[1,"]).repeat(random.size(1e5)) + "1"));
  return Buffer.from(text);
};

function changedValue(value: unknown, donor: unknown, random: Random): unknown {
  const isList = Array.isArray(value);
  const entries: (readonly [string, unknown])[] = typeof value === "object" && value !== null ? Object.entries(value) : [];
  if (entries.length > 0 && !random.once(6)) {
    const at = random.below(entries.length);
    const [key, inner] = entries[at] ?? ["", undefined];
    const taken: unknown =
      typeof donor === "object" && donor !== null ? Object.entries(donor).find(([name]) => name === key)?.[1] : undefined;
    entries[at] = [key, changedValue(inner, taken ?? inner, random)];
    return isList ? entries.map(([, entry]) => entry) : Object.fromEntries(entries);
  }
  if (entries.length > 0 && random.once(2)) {
    const others: (readonly [string, unknown])[] = typeof donor === "object" && donor !== null ? Object.entries(donor) : entries;
    const replacement = (): readonly [string, unknown] => [
      random.once(2) ? random.pick(WORDS) : (entries[0]?.[0] ?? ""),
      random.once(2) ? oddValue(random) : (others[random.below(others.length)]?.[1] ?? null),
    ];
    const changed = rearranged(entries, random, replacement);
    return isList ? changed.map(([, entry]) => entry) : Object.fromEntries(changed);
  }
  return random.once(4) ? donor : oddValue(random);
}

function oddValue(random: Random): unknown {
  switch (random.below(8)) {
    case 0:
      return random.pick([null, true, false, [], {}, [[]], [null]]);
    case 1:
      return random.pick(WORDS);
    case 2:
      return Array<unknown>(random.size(1000)).fill(random.pick([0, 1, [0, 1], "a", null]));
    case 3:
      return random.once(50)
        ? random.pick(["a", "\\", '"', "\u2028"]).repeat(random.size(LARGEST))
        : random.pick(["linear", "cosine", "karras", "attn", "attn-0", "sde-dpmsolver++"]);
    case 4:
      return random.below(64);
    case 5:
      return -random.size(1e6) / 7;
    default:
      return random.pick(NUMBERS);
  }
}

/** For the text form of models: words and signs changed. */
const text: Mutation = (input, other, random) => {
  const tokens = (buffer: Buffer): string[] => buffer.toString().match(/\s+|"(?:[^"\\]|\\.)*"|[\w.]+|[^]/g) ?? [];
  const own = tokens(input);
  const others = tokens(other);
  if (random.once(100)) own.splice(random.below(own.length), 0, random.pick(["# x\n", "#", " ", "\n", '"', "\\", "[", "<", "(", "a", "1", "-", ", ", '"a"', "{", "y = Op<a = f () => () {", "Op<a = ["]).repeat(random.size(LARGEST / 8))); // prettier-ignore
  const replacement = (): string => {
    if (random.once(3)) return others[random.below(others.length)] ?? "";
    if (random.once(3)) return `"${random.pick(WORDS).replace(/["\\]/g, "\\$&")}"`;
    return random.pick([...WORDS, ...NUMBERS.map(String), ..."<>(){}[],=:.#?@".split(""), "float", "int4", "string", "nan", "-inf", "float[2]", "ints", "1e400"]); // prettier-ignore
  };
  let changed = own;
  for (let n = random.size(4); n >= 0; n--) changed = rearranged(changed, random, replacement);
  return Buffer.from(changed.join(""));
};

/** For ZIP files: an entry changed, by another mutation; or the archive. */
function zip(within: Mutation): Mutation {
  return (input, other, random) => {
    if (random.once(3)) return bytes(input, other, random);
    let entries: [string, Uint8Array][];
    try {
      // A bomb that an earlier change has made is refused here, too: unpacking it would take minutes.
      entries = Array.from(
        unzipped(input, (problem) => new Error(problem)),
        ([name, read]) => [name, read()],
      );
    } catch {
      return bytes(input, other, random);
    }
    const at = random.below(entries.length);
    const [name, content] = entries[at] ?? ["", Buffer.of()];
    const own = Buffer.from(content);
    if (random.once(5)) entries = rearranged(entries, random, () => [random.once(2) ? random.pick(WORDS) : `${name}1`, own]);
    else entries[at] = [name, random.once(1000) ? Buffer.alloc(random.size(1 << 26)) : within(own, own, random)];
    const made = Buffer.from(
      zipSync(Object.fromEntries(entries.filter(([entry]) => entry !== "__proto__")), { level: random.pick([0, 6]), mtime: "1980-01-01" }),
    );
    return random.once(30) ? withDirectoryRepeated(made, random.size(2000)) : made;
  };
}

/** The archive with its list of entries several times, so that many entries have the same contents. */
function withDirectoryRepeated(archive: Buffer, times: number): Buffer {
  const end = archive.lastIndexOf("PK\x05\x06", undefined, "latin1");
  const from = archive.readUInt32LE(end + 16);
  const directory = archive.subarray(from, end);
  const tail = Buffer.from(archive.subarray(end));
  for (const at of [8, 10]) tail.writeUInt16LE((tail.readUInt16LE(at) * times) % 65536, at);
  tail.writeUInt32LE(directory.length * times, 12);
  return joined(archive.subarray(0, from), ...Array<Buffer>(times).fill(directory), tail);
}

/** For `.npy` files: their header, or any bytes. */
const npy: Mutation = (input, other, random) => {
  if (random.once(2)) return bytes(input, other, random);
  const header = input.subarray(10, 10 + input.readUInt16LE(Math.min(8, input.length - 2)));
  const changed = text(header, other.subarray(10, 128), random);
  const start = Buffer.from(input.subarray(0, 10));
  start.writeUInt16LE(changed.length % 65536, Math.min(8, start.length - 2));
  return joined(start, changed, input.subarray(10 + header.length));
};

/** By the syntax of a reader's inputs. */
export const mutations = {
  wire,
  json,
  text,
  npy: (input, other, random) => (input.length < 12 ? bytes(input, other, random) : npy(input, other, random)),
  npz: zip(npySafe),
  pt: zip(bytes),
} satisfies Record<string, Mutation>;

function npySafe(input: Buffer, other: Buffer, random: Random): Buffer {
  return input.length < 12 ? bytes(input, other, random) : npy(input, other, random);
}
