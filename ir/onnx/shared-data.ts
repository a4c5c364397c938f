/** Data files that are written before the models that read them, so that models of several folders can have one. */
import { createHash, type Hash } from "node:crypto";
import { resolve } from "node:path";
import { freeValues } from "../analysis.js";
import { type Model, type Value, withGraph } from "../graph.js";
import { rewrite } from "../rewrite.js";
import { DataLayout, SMALL_BYTES, WrittenContents, WrittenData } from "./data-file.js";
import { assignNames } from "./names.js";
import { appendPieces } from "./output.js";

/** Grows the data files of a folder. What it has written is found by `writeModel` where that is given `written`. */
export class SharedData {
  /** Where what was added lies. */
  readonly written: WrittenData;
  private readonly files = new Map<string, { readonly hash: Hash; size: number }>();

  /** `isForSeveral`: models that were made apart share equal constants. */
  constructor(
    readonly folder: string,
    isForSeveral: boolean,
  ) {
    this.written = isForSeveral ? new WrittenContents() : new WrittenData();
  }

  /**
   * Appends the constants of a model that lie in no data file yet to the one of this name. Throws NAME_CLASH, FILE_NOT_WRITTEN, CANCELLED, and
   * FILE_MISSING or EXTERNAL_DATA_SHORT for weights that are gone.
   */
  async add({ graph }: Model, name: string, signal?: AbortSignal): Promise<void> {
    const file = this.files.get(name) ?? { hash: createHash("sha256"), size: 0 };
    const layout = new DataLayout(name, SMALL_BYTES, this.written, file.size);
    for (const { data } of assignNames(graph).constants) if (data) layout.place(data);
    if (layout.placed.length === 0) return;
    await appendPieces(this.pathOf(name), layout.pieces, file.hash, signal);
    file.size = layout.size;
    this.files.set(name, file);
    this.written.link(name, this.pathOf(name));
    this.written.add(layout);
  }

  /** The model with ranges of the data files for the constants that lie in them, so that these need not be held in memory. */
  onDisk(model: Model): Model {
    const moved = new Map<Value, Value>();
    for (const value of freeValues(model.graph)) {
      const { data } = value;
      const place = data?.content.kind === "bytes" ? this.written.find(data.content) : undefined;
      if (!data || !place) continue;
      const content = { kind: "file", file: this.pathOf(place.location), offset: place.offset, length: place.length } as const;
      moved.set(value, { ...value, data: { ...data, content } });
    }
    return withGraph(
      model,
      rewrite(model.graph, () => undefined, moved),
    );
  }

  /** SHA-256 of the data files so far, in hexadecimal digits, by name. */
  digests(): ReadonlyMap<string, string> {
    return new Map(Array.from(this.files, ([name, { hash }]) => [name, hash.copy().digest("hex")]));
  }

  /** The path of a data file. */
  pathOf(name: string): string {
    return resolve(this.folder, name);
  }
}
