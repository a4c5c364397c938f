/** The layout of the data file beside a model, and what earlier models of the same folder have already written. */
import { resolve } from "node:path";
import { tensorBytes, type TensorContent, type TensorData } from "../tensor.js";
import type { ConvertedRange, FileRange } from "./ranges.js";
import { contentKey, type Placement } from "./tensors.js";

type External = Extract<Placement, { kind: "external" }>;

/**
 * Where contents lie in the data files of one folder. Passed to several `writeModel` calls for that folder, it lets later models refer
 * to what earlier ones wrote. Ranges of files are identified by file and offset, bytes in memory by their object.
 */
export class WrittenData {
  private readonly places = new Map<string | Uint8Array, External>();
  private readonly links = new Map<string, string>();

  /** Records that `name`, a file of the folder, has the same bytes as `file`, so that ranges of `file` are not written again. */
  link(name: string, file: string): void {
    this.links.set(resolve(file), name);
  }

  find(content: TensorContent): External | undefined {
    if (content.kind === "file") {
      const { file, offset, length } = content;
      const location = this.links.get(file);
      if (location !== undefined) return { kind: "external", location, offset, length };
    }
    const key = contentKey(content);
    return key === undefined ? undefined : this.places.get(key);
  }

  record(content: TensorContent, place: External): void {
    const key = contentKey(content);
    if (key !== undefined) this.places.set(key, place);
  }

  /** Adds the entries of another. */
  add(other: WrittenData): void {
    for (const [key, place] of other.places) this.places.set(key, place);
  }
}

/** Bytes, a range of a file (as it is or converted), or a number of zero bytes. */
export type Piece = Uint8Array | FileRange | ConvertedRange | number;

/** Pages of 64 KiB can be mapped on every system; vector instructions want 64 bytes. */
const PAGE = 1 << 16;
const LINE = 64;

/** The data file of one model: tensors in the order in which they come, each content once. */
export class DataLayout {
  readonly pieces: Piece[] = [];
  size = 0;
  /** What this file adds to the folder. */
  readonly placed = new WrittenData();

  /** `file`: the name of the data file. Tensors below `threshold` bytes stay in the model. */
  constructor(
    private readonly file: string,
    private readonly threshold: number,
    private readonly written: WrittenData,
  ) {}

  place(data: TensorData): Placement {
    const { content } = data;
    const length = tensorBytes(data);
    if (content.kind === "strings" || length === 0 || length < this.threshold) return { kind: "appended" };
    const known = this.written.find(content) ?? this.placed.find(content);
    if (known) return known;
    const unit = length >= PAGE ? PAGE : LINE;
    const offset = Math.ceil(this.size / unit) * unit;
    if (offset > this.size) this.pieces.push(offset - this.size);
    const place: External = { kind: "external", location: this.file, offset, length };
    this.pieces.push(content.kind === "bytes" ? content.bytes : content);
    this.size = offset + length;
    this.placed.record(content, place);
    return place;
  }
}
