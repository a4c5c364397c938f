/** Walks a model file through a small window and cuts out the payloads of large tensors (initializers, attributes), which stay on disk. */
import { type FileHandle, realpath } from "node:fs/promises";
import { modelCorrupt, modelTooLarge, notOnnx } from "../diagnostics.js";
import { asMissing, openFile } from "../open-file.js";
import type { FileRange } from "./ranges.js";
import { header, type MessageName, MESSAGE_LIMIT, type Schema } from "./schema.js";

/** Payloads above this size are left on disk. */
const CUT_BYTES = 1024;

/** The same for those of attributes. Exporters repeat tables there, which are found to be equal by their bytes. */
const ATTRIBUTE_CUT_BYTES = 1 << 20;

/** Large enough for few reads in graphs of many small nodes, small enough to read little in vain between large payloads. */
const WINDOW_BYTES = 1 << 16;

/** The longest tag and length that there can be. */
const HEAD_BYTES = 20;

/** Fields of ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto. */
const GRAPH = 7;
const NODE = 1;
const INITIALIZER = 5;
const ATTRIBUTE = 5;
const TENSOR = 5;
const RAW_DATA = 9;

const DELIMITED = 2;

export interface Skeleton {
  /** A ModelProto without the large payloads. */
  readonly bytes: Uint8Array;
  readonly payloads: Payloads;
}

/** Where the payloads that were cut out are. A link to the model file is resolved. */
export class Payloads {
  private readonly places = new Map<string, FileRange>();

  /** The `index`-th initializer, or an attribute of the `index`-th node. */
  at(index: number, attribute?: number): FileRange | undefined {
    return this.places.get([index, attribute].join());
  }

  set(place: FileRange | undefined, index: number, attribute?: number): void {
    if (place) this.places.set([index, attribute].join(), place);
    else this.places.delete([index, attribute].join());
  }
}

interface Field {
  readonly id: number;
  readonly wire: number;
  /** Offsets of the tag, of what follows it (and the length, if there is one), and of the end. */
  readonly start: number;
  readonly body: number;
  readonly end: number;
}

/** Throws FILE_MISSING, NOT_A_FILE, NOT_ONNX, MODEL_CORRUPT, MODEL_TOO_LARGE. */
export async function scan(file: string): Promise<Skeleton> {
  const { handle, size } = await openFile(file);
  try {
    return await scanHandle(handle, file, size, await realpath(file));
  } catch (error) {
    throw asMissing(file, error);
  } finally {
    await handle.close();
  }
}

async function scanHandle(handle: FileHandle, file: string, size: number, real: string): Promise<Skeleton> {
  if (size === 0) throw notOnnx(file, "it is empty");
  const window = new FileWindow(handle, file, size);
  const payloads = new Payloads();
  let graphs = 0;
  let nodes = 0;
  let initializers = 0;
  const tensor = (part: Field, index: number, attribute?: number): Promise<Cutting> =>
    copied(window, part, ({ id, body, end }) => {
      if (id !== RAW_DATA) return undefined;
      // Of a repeated field the last one counts.
      const isCut = end - body > (attribute === undefined ? CUT_BYTES : ATTRIBUTE_CUT_BYTES);
      payloads.set(isCut ? { kind: "file", file: real, offset: body, length: end - body } : undefined, index, attribute);
      return isCut ? new Cutting() : undefined;
    });
  const node = (part: Field, index: number): Promise<Cutting> => {
    let attributes = 0;
    return copied(window, part, (field) => {
      if (field.id !== ATTRIBUTE) return undefined;
      const attribute = attributes++;
      const withoutPayload = (held: Field): Promise<Cutting> | undefined =>
        held.id === TENSOR ? nested("AttributeProto", "t", tensor(held, index, attribute)) : undefined;
      return isLarge(field) ? nested("NodeProto", "attribute", copied(window, field, withoutPayload)) : undefined;
    });
  };
  const graph = (part: Field): Promise<Cutting> =>
    copied(window, part, (field) => {
      if (field.id === NODE) {
        const index = nodes++;
        return isLarge(field) ? nested("GraphProto", "node", node(field, index)) : undefined;
      }
      if (field.id !== INITIALIZER) return undefined;
      const index = initializers++;
      return isLarge(field) ? nested("GraphProto", "initializer", tensor(field, index)) : undefined;
    });
  const model = await copied(window, { body: 0, end: size }, (field) => {
    if (field.id !== GRAPH) return undefined;
    graphs++;
    return nested("ModelProto", "graph", graph(field));
  });
  if (graphs === 0) throw notOnnx(file, "it has no graph");
  if (model.length > MESSAGE_LIMIT) throw modelTooLarge(file, model.length);
  return { bytes: await model.copy(handle, file), payloads };
}

function isLarge({ body, end }: Field): boolean {
  return end - body > CUT_BYTES;
}

/** A message of which `replace` may put something else in the place of a length-delimited field. */
async function copied(
  window: FileWindow,
  { body, end }: Pick<Field, "body" | "end">,
  replace: (field: Field) => Promise<Cutting> | Cutting | undefined,
): Promise<Cutting> {
  const copy = new Cutting();
  for await (const field of fields(window, body, end)) {
    const other = field.wire === DELIMITED ? replace(field) : undefined;
    if (other) copy.append(await other);
    else copy.keep(field.start, field.end);
  }
  return copy;
}

/** A message as a field of another. */
async function nested<S extends MessageName>(name: S, field: keyof Schema[S], made: Promise<Cutting>): Promise<Cutting> {
  const message = await made;
  const whole = new Cutting();
  whole.insert(header(name, field, message.length));
  whole.append(message);
  return whole;
}

/** The fields of the message that lies between two offsets, without going into them. */
async function* fields(window: FileWindow, from: number, to: number): AsyncGenerator<Field> {
  for (let at = from; at < to;) {
    if (!window.holds(at)) await window.load(at);
    const tag = window.varint(at, to);
    const id = Math.floor(tag.value / 8);
    const wire = tag.value % 8;
    if (id === 0 || tag.value > 0xffffffff) throw window.corrupt(at, "no field of a message starts there");
    let body = tag.end;
    let end: number;
    if (wire === 0) end = window.varint(body, to).end;
    else if (wire === 1) end = body + 8;
    else if (wire === 5) end = body + 4;
    else if (wire === DELIMITED) {
      const length = window.varint(body, to);
      body = length.end;
      end = body + length.value;
    } else throw window.corrupt(at, "no field of a message starts there");
    if (end > to) throw window.corrupt(at, `the field that starts there would end at ${end}, after what holds it (${to})`);
    yield { id, wire, start: at, body, end };
    at = end;
  }
}

/** The part of a file that is in memory. */
class FileWindow {
  private readonly buffer = Buffer.alloc(WINDOW_BYTES);
  private start = 0;
  private length = 0;

  constructor(
    private readonly handle: FileHandle,
    private readonly file: string,
    private readonly size: number,
  ) {}

  /** Whether the head of a field at this offset is in memory. */
  holds(at: number): boolean {
    return at >= this.start && Math.min(at + HEAD_BYTES, this.size) <= this.start + this.length;
  }

  async load(at: number): Promise<void> {
    this.start = at;
    this.length = 0;
    const wanted = Math.min(this.buffer.length, this.size - at);
    await readFully(this.handle, this.file, this.buffer.subarray(0, wanted), at);
    this.length = wanted;
  }

  /** A number of at most 64 bits that ends before `to`. Above 2⁵³ it is not exact, but no offset is that large. */
  varint(at: number, to: number): { readonly value: number; readonly end: number } {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++, scale *= 128) {
      const byte = at + i < to ? this.buffer[at + i - this.start] : undefined;
      if (byte === undefined) throw this.corrupt(at, "the file or a part of it ends within a number");
      value += (byte & 127) * scale;
      if (byte < 128) return { value, end: at + i + 1 };
    }
    throw this.corrupt(at, "a number is too long");
  }

  corrupt(at: number, problem: string): Error {
    return at === 0
      ? notOnnx(this.file, "it does not begin like one")
      : modelCorrupt(this.file, `at byte ${at} of ${this.size}, ${problem}`);
  }
}

/** A message under construction from ranges of the file and from bytes. */
class Cutting {
  private readonly parts: (Uint8Array | { from: number; to: number })[] = [];
  length = 0;

  keep(from: number, to: number): void {
    const last = this.parts.at(-1);
    if (last && !(last instanceof Uint8Array) && last.to === from) last.to = to;
    else this.parts.push({ from, to });
    this.length += to - from;
  }

  insert(bytes: Uint8Array): void {
    this.parts.push(bytes);
    this.length += bytes.length;
  }

  append(other: Cutting): void {
    for (const part of other.parts) this.parts.push(part);
    this.length += other.length;
  }

  async copy(handle: FileHandle, file: string): Promise<Uint8Array> {
    const bytes = Buffer.alloc(this.length);
    let at = 0;
    for (const part of this.parts) {
      const length = part instanceof Uint8Array ? part.length : part.to - part.from;
      if (part instanceof Uint8Array) bytes.set(part, at);
      else await readFully(handle, file, bytes.subarray(at, at + length), part.from);
      at += length;
    }
    return bytes;
  }
}

async function readFully(handle: FileHandle, file: string, into: Buffer, from: number): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await handle.read(into, done, into.length - done, from + done);
    if (bytesRead === 0) throw modelCorrupt(file, `it ended at byte ${from + done} while it was read`);
    done += bytesRead;
  }
}
