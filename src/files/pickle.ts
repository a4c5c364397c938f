/**
 * Python's pickles (Lib/pickletools.py), as far as torch writes them: data, and calls of functions that the reader knows. Every opcode takes
 * constant time for what it reads or takes off the stack, and makes nothing larger than that, so that no pickle costs more than its length.
 */

/** A class or function that a pickle names. */
export class PickledName {
  constructor(readonly name: string) {}
}

/** What a reader makes of names and of ids of persistent objects. Both throw for what they do not take. */
export interface PickleReader {
  readonly call: (name: string, given: readonly unknown[]) => unknown;
  readonly persistent: (id: unknown) => unknown;
}

const MARK = Symbol("mark");

/** The value of a pickle: dictionaries are Maps, lists and tuples are arrays. Throws an Error that says what is wrong. */
export function unpickle(pickle: Uint8Array, reader: PickleReader): unknown {
  const bytes = Buffer.from(pickle.buffer, pickle.byteOffset, pickle.byteLength);
  const stack: unknown[] = [];
  const memo = new Map<number, unknown>();
  let at = 0;
  /** The offset of the next bytes, which are stepped over. */
  const skip = (count: number): number => {
    const from = at;
    at += count;
    if (at > bytes.length) throw new Error("its pickle is cut off");
    return from;
  };
  const byte = (): number => bytes.readUInt8(skip(1));
  const word = (): number => bytes.readUInt32LE(skip(4));
  const next = (count: number): Uint8Array => bytes.subarray(skip(count), at);
  const text = (count: number): string => bytes.toString("utf8", skip(count), at);
  const line = (): string => {
    const end = bytes.indexOf("\n", at);
    const found = text(end < 0 ? Infinity : end - at);
    skip(1);
    return found;
  };
  const push = (value: unknown): unknown => stack.push(value);
  const take = (count: number): readonly unknown[] => {
    if (stack.length < count) throw new Error("its pickle takes what is not there");
    return stack.splice(stack.length - count);
  };
  const takeToMark = (): readonly unknown[] => {
    const [, ...values] = take(stack.length - stack.lastIndexOf(MARK));
    return values;
  };
  const append = (items: readonly unknown[]): void => {
    const list = stack.at(-1);
    if (!Array.isArray(list)) throw new Error("its pickle appends to what is no list");
    for (const item of items) list.push(item);
  };
  const set = (entries: readonly unknown[]): void => {
    const map = stack.at(-1);
    if (!(map instanceof Map)) throw new Error("its pickle sets entries of what is no dictionary");
    for (let i = 0; i < entries.length; i += 2) map.set(entries[i], entries[i + 1]);
  };
  const named = ([module, name]: readonly unknown[]): unknown => {
    if (typeof module !== "string" || typeof name !== "string") throw new Error("its pickle names what is no name");
    return push(new PickledName(`${module}.${name}`));
  };
  const call = ([called, given]: readonly unknown[]): unknown => {
    if (!(called instanceof PickledName) || !Array.isArray(given)) throw new Error("its pickle calls what is no function");
    return push(reader.call(called.name, given));
  };
  const opcodes: Readonly<Record<string, () => unknown>> = {
    "\x80": byte, // PROTO
    "\x95": () => skip(8), // FRAME
    "(": () => push(MARK),
    q: () => memo.set(byte(), stack.at(-1)), // BINPUT
    r: () => memo.set(word(), stack.at(-1)), // LONG_BINPUT
    "\x94": () => memo.set(memo.size, stack.at(-1)), // MEMOIZE
    h: () => push(memo.get(byte())), // BINGET
    j: () => push(memo.get(word())), // LONG_BINGET
    N: () => push(null), // NONE
    "\x88": () => push(true), // NEWTRUE
    "\x89": () => push(false), // NEWFALSE
    J: () => push(bytes.readInt32LE(skip(4))), // BININT
    K: () => push(byte()), // BININT1
    M: () => push(bytes.readUInt16LE(skip(2))), // BININT2
    "\x8a": () => push(integerOf(next(byte()))), // LONG1
    G: () => push(bytes.readDoubleBE(skip(8))), // BINFLOAT
    X: () => push(text(word())), // BINUNICODE
    "\x8c": () => push(text(byte())), // SHORT_BINUNICODE
    B: () => push(next(word())), // BINBYTES
    C: () => push(next(byte())), // SHORT_BINBYTES
    ")": () => push([]), // EMPTY_TUPLE
    "]": () => push([]), // EMPTY_LIST
    "\x8f": () => push([]), // EMPTY_SET
    "}": () => push(new Map()), // EMPTY_DICT
    t: () => push(takeToMark()), // TUPLE
    "\x85": () => push(take(1)), // TUPLE1
    "\x86": () => push(take(2)), // TUPLE2
    "\x87": () => push(take(3)), // TUPLE3
    a: () => {
      append(take(1)); // APPEND
    },
    e: () => {
      append(takeToMark()); // APPENDS
    },
    "\x90": () => {
      append(takeToMark()); // ADDITEMS
    },
    s: () => {
      set(take(2)); // SETITEM
    },
    u: () => {
      set(takeToMark()); // SETITEMS
    },
    c: () => named([line(), line()]), // GLOBAL
    "\x93": () => named(take(2)), // STACK_GLOBAL
    Q: () => push(reader.persistent(take(1)[0])), // BINPERSID
    R: () => call(take(2)), // REDUCE
    "\x81": () => call(take(2)), // NEWOBJ
    b: () => take(1), // BUILD: attributes of an object, which are no entries of a dictionary
  };
  for (;;) {
    const opcode = String.fromCharCode(byte());
    if (opcode === ".") return take(1)[0];
    const perform = opcodes[opcode];
    if (!perform) throw new Error(`its pickle has the opcode ${JSON.stringify(opcode)}, which torch does not write`);
    perform();
  }
}

/** A signed integer in little-endian bytes; of more than 53 bits, the nearest number. */
function integerOf(bytes: Uint8Array): number {
  const value = bytes.reduceRight((sum, byte) => sum * 256 + byte, 0);
  return (bytes.at(-1) ?? 0) < 128 ? value : value - 256 ** bytes.length;
}
