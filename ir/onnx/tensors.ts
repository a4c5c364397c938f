/** TensorProto to TensorData and back: payloads in the file, in typed fields, or in other files of the model's folder. */
import { realpathSync, statSync } from "node:fs";
import { dirname, isAbsolute, relative, resolve, sep } from "node:path";
import {
  externalDataMalformed,
  externalDataMissing,
  externalDataOutside,
  externalDataShort,
  externalDataSize,
  tensorMalformed,
  unsupportedType,
} from "../diagnostics.js";
import { convertedKey, rangeKey } from "../digest.js";
import { readTensor, type TensorContent, type TensorData } from "../tensor.js";
import { byteSize, ELEMENT_TYPES, elementCount, type ElementType, elementTypeOf } from "../types.js";
import type { FileRange } from "./ranges.js";
import { type Draft, EXTERNAL, has, type Message } from "./schema.js";

/** Reads the tensors of one model. */
export class TensorReader {
  private readonly folder: string;
  /** Size and path of the external files, by location. */
  private readonly files = new Map<string, { readonly path: string; readonly size: number }>();

  constructor(private readonly file: string) {
    this.folder = dirname(file);
  }

  /** `payload`: where the raw data is, if it was left on disk. External data is located, never read. */
  read(tensor: Message<"TensorProto">, payload?: FileRange): TensorData {
    const elem = elementTypeOf(tensor.data_type);
    if (!elem) throw unsupportedType(tensor.data_type, { file: this.file, value: tensor.name });
    const shape = tensor.dims.map(Number);
    const count = elementCount(shape);
    if (shape.some((dim) => dim < 0) || !Number.isSafeInteger(count * 16))
      throw this.malformed(tensor, `its shape is [${shape.join(", ")}]`);
    if (tensor.data_location === EXTERNAL) {
      if (elem === "string") throw this.malformed(tensor, "strings cannot be external");
      return { elem, shape, content: this.locate(tensor, byteSize(elem, count)) };
    }
    if (elem === "string") {
      if (tensor.string_data.length !== count) throw this.malformed(tensor, `it has ${tensor.string_data.length} strings, not ${count}`);
      return { elem, shape, content: { kind: "strings", strings: tensor.string_data } };
    }
    const content = payload ?? { kind: "bytes", bytes: this.inline(tensor, elem, count) };
    const length = content.kind === "file" ? content.length : content.bytes.length;
    const wanted = byteSize(elem, count);
    if (length !== wanted) throw this.malformed(tensor, `it has ${length} bytes; ${elem}[${shape.join(", ")}] takes ${wanted}`);
    return { elem, shape, content };
  }

  private inline(tensor: Message<"TensorProto">, elem: Exclude<ElementType, "string">, count: number): Uint8Array {
    if (has(tensor, "raw_data")) return tensor.raw_data;
    const [field, width] = typedField(elem);
    const chunks = tensor[field];
    if (width === 0) return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
    const bytes = numbers(chunks, width, byteSize(elem, count));
    if (!bytes) throw this.malformed(tensor, `its ${field} has not the numbers that ${elem}[${tensor.dims.join(", ")}] takes`);
    return bytes;
  }

  private locate(tensor: Message<"TensorProto">, wanted: number): FileRange {
    const entries = new Map(tensor.external_data.map(({ key, value }) => [key, value]));
    const location = entries.get("location") ?? "";
    const number = (key: string, otherwise: number): number => {
      const text = entries.get(key);
      if (text === undefined) return otherwise;
      const value = /^\d+$/.test(text) ? Number(text) : NaN;
      if (!Number.isSafeInteger(value)) throw externalDataMalformed(this.file, tensor.name, `its ${key} is '${text}'`);
      return value;
    };
    if (location === "") throw externalDataMalformed(this.file, tensor.name, "it has no location");
    const offset = number("offset", 0);
    const length = number("length", wanted);
    const { path, size } = this.files.get(location) ?? this.find(location, tensor.name);
    if (length !== wanted) throw externalDataSize(path, tensor.name, length, wanted);
    if (offset + length > size) throw externalDataShort(path, offset + length, tensor.name);
    return { kind: "file", file: path, offset, length };
  }

  private find(location: string, tensor: string): { readonly path: string; readonly size: number } {
    const path = resolve(this.folder, location);
    if (isAbsolute(location) || !isWithin(path, this.folder)) throw externalDataOutside(this.file, tensor, location);
    let real: string;
    let folders: string[];
    let info;
    try {
      real = realpathSync(path);
      // As in the runtime: if the model file is a link (as in a download cache), its data may lie beside the file it links to.
      folders = [realpathSync(this.folder), dirname(realpathSync(this.file))];
      info = statSync(real);
    } catch (error) {
      throw externalDataMissing(path, tensor, error instanceof Error ? error.message : String(error));
    }
    if (!folders.some((folder) => isWithin(real, folder))) throw externalDataOutside(this.file, tensor, location);
    if (!info.isFile()) throw externalDataMissing(path, tensor, "it is not a file");
    // The runtime only reads weights in the folder of the real file.
    const found = { path: real, size: info.size };
    this.files.set(location, found);
    return found;
  }

  private malformed(tensor: Message<"TensorProto">, problem: string): Error {
    return tensorMalformed(this.file, tensor.name, problem);
  }
}

/** Whether a resolved path lies in a resolved folder, or is it. */
export function isWithin(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

/**
 * The typed field that holds elements of a type, and the bytes that a number takes after decoding;
 * 0 if the field holds the bytes of the elements.
 */
function typedField(
  elem: Exclude<ElementType, "string">,
): readonly ["float_data" | "double_data" | "int32_data" | "int64_data" | "uint64_data", number] {
  switch (elem) {
    case "float":
    case "complex64":
      return ["float_data", 0];
    case "double":
    case "complex128":
      return ["double_data", 0];
    case "int64":
      return ["int64_data", 8];
    case "uint64":
      return ["uint64_data", 8];
    case "uint32":
      return ["uint64_data", 4];
    default:
      // Elements of less than a byte are packed into bytes first.
      return ["int32_data", Math.ceil(ELEMENT_TYPES[elem].bits / 8)];
  }
}

/** Packed varints as little-endian numbers of `width` bytes; undefined unless they fill `size` bytes. */
function numbers(chunks: readonly Uint8Array[], width: number, size: number): Uint8Array | undefined {
  // A varint takes at least one byte, so a damaged shape cannot ask for a huge allocation.
  if (chunks.reduce((sum, chunk) => sum + chunk.length, 0) * width < size) return undefined;
  const bytes = Buffer.alloc(size);
  let at = 0;
  for (const chunk of chunks) {
    for (let i = 0; i < chunk.length;) {
      let low = 0;
      let high = 0;
      for (let shift = 0; ; shift += 7) {
        const byte = chunk[i++];
        if (byte === undefined || shift > 63) return undefined;
        const bits = byte & 127;
        if (shift < 32) low |= bits << shift;
        if (shift >= 28) high |= shift === 28 ? bits >>> 4 : bits << (shift - 32);
        if (byte < 128) break;
      }
      if (at + width > size) return undefined;
      for (let b = 0; b < width; b++) bytes[at++] = (b < 4 ? low >>> (8 * b) : high >>> (8 * (b - 4))) & 255;
    }
  }
  return at === size ? bytes : undefined;
}

/** The bytes of a range, whatever their number. Throws FILE_MISSING, EXTERNAL_DATA_SHORT. */
export function payloadBytes(content: Exclude<TensorContent, { kind: "strings" }>): Uint8Array {
  return content.kind === "bytes" ? content.bytes : readTensor({ elem: "uint8", shape: [content.length], content }, content.length);
}

/** Where a payload goes. */
export type Placement =
  | { readonly kind: "inline"; readonly bytes: Uint8Array }
  /** The caller writes the payload after the encoded message. */
  | { readonly kind: "appended" }
  | { readonly kind: "external"; readonly location: string; readonly offset: number; readonly length: number };

/** The message of a tensor. */
export function tensorDraft(name: string | undefined, data: TensorData, placement: Placement): Draft<"TensorProto"> {
  const head = { name, dims: data.shape, data_type: ELEMENT_TYPES[data.elem].code };
  if (data.content.kind === "strings") return { ...head, string_data: data.content.strings };
  switch (placement.kind) {
    case "inline":
      return { ...head, raw_data: placement.bytes };
    case "appended":
      return head;
    case "external": {
      const entries = { location: placement.location, offset: placement.offset, length: placement.length };
      return {
        ...head,
        external_data: Object.entries(entries).map(([key, value]) => ({ key, value: String(value) })),
        data_location: EXTERNAL,
      };
    }
    default:
      return placement satisfies never;
  }
}

/** A key of a content; equal keys mean equal bytes. Bytes in memory are their own key, and strings have none. */
export function contentKey(content: TensorContent): string | Uint8Array | undefined {
  switch (content.kind) {
    case "file":
      return rangeKey(content);
    case "converted":
      return convertedKey(content);
    case "bytes":
      return content.bytes;
    case "strings":
      return undefined;
    default:
      return content satisfies never;
  }
}
