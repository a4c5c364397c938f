/** The layout of the data file beside a model, and what other models of the same folder have already written. */
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { tensorBytes, type TensorContent, type TensorData } from "../tensor.js";
import type { ConvertedRange, FileRange } from "./ranges.js";
import { contentKey, type Placement } from "./tensors.js";

export type External = Extract<Placement, { kind: "external" }>;

/** Tensors below this many bytes stay in the model: sessions need shapes and indices when they are created. */
export const SMALL_BYTES = 1024;

/** A content and its place. */
type Placed = readonly [content: TensorContent, place: External];

/**
 * Where contents lie in the data files of one folder. Passed to several `writeModel` calls for that folder, it lets later models refer
 * to what earlier ones wrote. Ranges of files are identified by file and offset, bytes in memory by their object, which it keeps nothing of.
 */
export class WrittenData {
  private readonly ranges = new Map<string, External>();
  private readonly objects = new WeakMap<Uint8Array, External>();
  private readonly links = new Map<string, string>();

  /** `before`: what was written before that, in the same folder; nothing is added to it. */
  constructor(private readonly before?: WrittenData) {}

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
    const own = key === undefined ? undefined : typeof key === "string" ? this.ranges.get(key) : this.objects.get(key);
    return own ?? this.before?.find(content);
  }

  record(content: TensorContent, place: External): void {
    const key = contentKey(content);
    if (typeof key === "string") this.ranges.set(key, place);
    else if (key !== undefined) this.objects.set(key, place);
  }

  /** Adds what a layout has placed. */
  add({ placed }: DataLayout): void {
    for (const [content, place] of placed) this.record(content, place);
  }
}

/** As `WrittenData`, but bytes in memory are identified by what they are: models that were made apart share equal ones. */
export class WrittenContents extends WrittenData {
  private readonly contents = new Map<string, External>();
  private readonly digests = new WeakMap<Uint8Array, string>();

  override find(content: TensorContent): External | undefined {
    return super.find(content) ?? (content.kind === "bytes" ? this.contents.get(this.digestOf(content.bytes)) : undefined);
  }

  override record(content: TensorContent, place: External): void {
    super.record(content, place);
    if (content.kind === "bytes") this.contents.set(this.digestOf(content.bytes), place);
  }

  private digestOf(bytes: Uint8Array): string {
    const digest = this.digests.get(bytes) ?? createHash("sha256").update(bytes).digest("hex");
    this.digests.set(bytes, digest);
    return digest;
  }
}

/** Bytes, a range of a file (as it is or converted), or a number of zero bytes. */
export type Piece = Uint8Array | FileRange | ConvertedRange | number;

/** Pages of 64 KiB can be mapped on every system; vector instructions want 64 bytes. */
const PAGE = 1 << 16;
const LINE = 64;

/** What models add to a data file: tensors in the order in which they come, each content once. */
export class DataLayout {
  readonly pieces: Piece[] = [];
  /** What it adds. */
  readonly placed: Placed[] = [];
  /** The data files of the folder that its tensors lie in. */
  readonly locations = new Set<string>();
  private readonly own = new WrittenData();

  /** `file`: the name of the data file. Tensors below `threshold` bytes stay in the model. `size`: what the file has before. */
  constructor(
    private readonly file: string,
    private readonly threshold: number,
    private readonly written: WrittenData,
    public size = 0,
  ) {}

  place(data: TensorData): Placement {
    const { content } = data;
    const length = tensorBytes(data);
    if (content.kind === "strings" || length === 0 || length < this.threshold) return { kind: "appended" };
    const place = this.written.find(content) ?? this.own.find(content) ?? this.append(content, length);
    this.locations.add(place.location);
    return place;
  }

  private append(content: Exclude<TensorContent, { kind: "strings" }>, length: number): External {
    const unit = length >= PAGE ? PAGE : LINE;
    const offset = Math.ceil(this.size / unit) * unit;
    if (offset > this.size) this.pieces.push(offset - this.size);
    const place: External = { kind: "external", location: this.file, offset, length };
    this.pieces.push(content.kind === "bytes" ? content.bytes : content);
    this.size = offset + length;
    this.placed.push([content, place]);
    this.own.record(content, place);
    return place;
  }
}
