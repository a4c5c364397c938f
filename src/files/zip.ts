/** ZIP files in memory: the container of numpy's `.npz` and of what torch saves. */
import { crc32, inflateRawSync } from "node:zlib";
import { zipSync } from "fflate";
import { INFLATED_BYTES } from "../../ir/limits.js";

/** Signatures, and sizes without names, of the records of PKWARE's APPNOTE.TXT: 4.3.7, 4.3.12 and 4.3.16. */
const LOCAL = { signature: 0x04034b50, size: 30 };
const CENTRAL = { signature: 0x02014b50, size: 46 };
const END = { signature: 0x06054b50, size: 22 };

/** Methods. */
const STORED = 0;
const DEFLATED = 8;

/** Flags: the content is encrypted, the name is in UTF-8. */
const ENCRYPTED = 1;
const UTF8 = 1 << 11;

/**
 * The entries of a ZIP file by name, each read when it is asked for. `refuse` makes the error for bytes that are none. Entries that overlap,
 * or that are larger than limits allow, are refused before anything is inflated. ZIP64 is for files of more than 4 GB: what it adds is not read.
 */
export function unzipped(bytes: Uint8Array, refuse: (problem: string) => Error): ReadonlyMap<string, () => Uint8Array> {
  try {
    return entriesOf(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), refuse);
  } catch (error) {
    throw error instanceof RangeError ? refuse("it is cut off, or its directory is damaged") : error;
  }
}

function entriesOf(bytes: Buffer, refuse: (problem: string) => Error): ReadonlyMap<string, () => Uint8Array> {
  const endAt = endOf(bytes);
  if (endAt === undefined) throw refuse("it is no ZIP file, or is cut off");
  const count = bytes.readUInt16LE(endAt + 10);
  const directoryAt = bytes.readUInt32LE(endAt + 16);
  const entries = new Map<string, () => Uint8Array>();
  const ranges: { readonly from: number; readonly to: number }[] = [{ from: directoryAt, to: endAt }];
  let inflated = 0;
  for (let i = 0, at = directoryAt; i < count; i++) {
    if (bytes.readUInt32LE(at) !== CENTRAL.signature) throw refuse("its directory is damaged");
    const flags = bytes.readUInt16LE(at + 8);
    const method = bytes.readUInt16LE(at + 10);
    const crc = bytes.readUInt32LE(at + 16);
    const packed = bytes.readUInt32LE(at + 20);
    const size = bytes.readUInt32LE(at + 24);
    const nameAt = at + CENTRAL.size;
    const nameEnd = nameAt + bytes.readUInt16LE(at + 28);
    const name = bytes.toString(flags & UTF8 ? "utf8" : "latin1", nameAt, nameEnd);
    const localAt = bytes.readUInt32LE(at + 42);
    at = nameEnd + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);
    if (flags & ENCRYPTED || (method !== STORED && method !== DEFLATED))
      throw refuse(`'${name}' in it is encrypted or compressed in an unusual way`);
    if (entries.has(name)) throw refuse(`it has '${name}' twice`);
    if (bytes.readUInt32LE(localAt) !== LOCAL.signature) throw refuse(`'${name}' is not where its directory says`);
    const from = localAt + LOCAL.size + bytes.readUInt16LE(localAt + 26) + bytes.readUInt16LE(localAt + 28);
    ranges.push({ from: localAt, to: from + packed });
    if (method === DEFLATED) inflated += size;
    entries.set(name, () => {
      const content = bytes.subarray(from, from + packed);
      const whole = method === STORED ? content : inflate(content, size);
      if (whole?.length !== size || crc32(whole) !== crc) throw refuse(`'${name}' in it is damaged`);
      return whole;
    });
  }
  if (inflated > INFLATED_BYTES) throw refuse(`its entries take ${inflated} bytes, and ${INFLATED_BYTES} are read at most`);
  ranges.sort((a, b) => a.from - b.from);
  if (ranges.some(({ from }, i) => from < (ranges[i - 1]?.to ?? 0))) throw refuse("its entries overlap");
  return entries;
}

/** Where the last record begins: a comment of at most 64 KiB may follow. */
function endOf(bytes: Buffer): number | undefined {
  for (let at = bytes.length - END.size; at >= Math.max(0, bytes.length - END.size - 0xffff); at--)
    if (bytes.readUInt32LE(at) === END.signature) return at;
  return undefined;
}

/** The bytes, no more than `size` of them; undefined if they cannot be inflated. */
function inflate(packed: Uint8Array, size: number): Uint8Array | undefined {
  try {
    return inflateRawSync(packed, { maxOutputLength: Math.max(size, 1) });
  } catch {
    return undefined;
  }
}

/** The entries as a ZIP file, in their order, not compressed; the same bytes everywhere. */
export function zipped(entries: ReadonlyMap<string, Uint8Array>): Uint8Array {
  // ZIP has local times, and begins in 1980.
  return zipSync(Object.fromEntries(entries), { level: 0, mtime: new Date(1980, 0, 1) });
}
