/** Streams bytes and ranges of other files into a new file, through one small buffer. */
import { createHash, type Hash } from "node:crypto";
import { open, type FileHandle } from "node:fs/promises";
import { cancelled, externalDataShort, fileNotWritten } from "../diagnostics.js";
import type { Piece } from "./data-file.js";
import { asMissing, openFile } from "../open-file.js";
import { convertBytes } from "../tensor.js";
import { type ConvertedRange, type FileRange, problemOf } from "./ranges.js";

const BUFFER_BYTES = 1 << 20;

/**
 * Writes the pieces one after the other; returns the SHA-256 of them all, in hexadecimal digits.
 * Throws CANCELLED, FILE_NOT_WRITTEN, FILE_MISSING, EXTERNAL_DATA_SHORT.
 */
export async function writePieces(file: string, pieces: readonly Piece[], signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  await putPieces(file, "w", pieces, hash, signal);
  return hash.digest("hex");
}

/** Writes the pieces at the end of a file, if there is one; `hash` sees them. Throws what `writePieces` throws. */
export function appendPieces(file: string, pieces: readonly Piece[], hash: Hash, signal?: AbortSignal): Promise<void> {
  return putPieces(file, "a", pieces, hash, signal);
}

async function putPieces(file: string, flag: "w" | "a", pieces: readonly Piece[], hash: Hash, signal?: AbortSignal): Promise<void> {
  const handle = await writing(file, () => open(file, flag));
  const output = new BufferedWriter(file, handle, hash, signal);
  try {
    for (const piece of pieces) {
      if (typeof piece === "number") await output.zeros(piece);
      else if (piece instanceof Uint8Array) await output.bytes(piece);
      else if (piece.kind === "file") await output.range(piece);
      else await output.converted(piece);
    }
    await output.flush();
  } finally {
    await output.close();
  }
}

async function writing<T>(file: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw fileNotWritten(file, problemOf(error) ?? String(error));
  }
}

class BufferedWriter {
  private readonly buffer = Buffer.alloc(BUFFER_BYTES);
  private held = 0;
  /** Holds numbers before their conversion. */
  private readonly scratch = Buffer.alloc(BUFFER_BYTES);
  /** The file that the last range came from. */
  private source: { readonly file: string; readonly handle: FileHandle } | undefined;

  constructor(
    private readonly file: string,
    private readonly handle: FileHandle,
    private readonly hash: Hash,
    private readonly signal: AbortSignal | undefined,
  ) {}

  async bytes(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const part = bytes.subarray(done, done + (await this.room()));
      this.buffer.set(part, this.held);
      this.held += part.length;
      done += part.length;
    }
  }

  async zeros(count: number): Promise<void> {
    for (let done = 0; done < count;) {
      const part = Math.min(count - done, await this.room());
      this.buffer.fill(0, this.held, this.held + part);
      this.held += part;
      done += part;
    }
  }

  async range(range: FileRange): Promise<void> {
    for (let done = 0; done < range.length;) {
      const part = Math.min(range.length - done, await this.room());
      const got = await this.readSource(range, done, this.buffer.subarray(this.held, this.held + part));
      this.held += got;
      done += got;
    }
  }

  async converted({ source, from, to }: ConvertedRange): Promise<void> {
    for (let done = 0; done < source.length;) {
      const part = this.scratch.subarray(0, source.length - done);
      for (let got = 0; got < part.length;) got += await this.readSource(source, done + got, part.subarray(got));
      await this.bytes(convertBytes(part, from, to));
      done += part.length;
    }
  }

  /** Reads at least one byte of a range from its byte `at` on; returns the number of bytes. */
  private async readSource({ file, offset, length }: FileRange, at: number, into: Buffer): Promise<number> {
    const got = await this.readFile(file, into, offset + at);
    if (got === 0) throw externalDataShort(file, offset + length);
    return got;
  }

  private async readFile(file: string, into: Buffer, position: number): Promise<number> {
    try {
      if (this.source?.file !== file) {
        await this.source?.handle.close();
        this.source = undefined;
        this.source = { file, handle: (await openFile(file)).handle };
      }
      return (await this.source.handle.read(into, 0, into.length, position)).bytesRead;
    } catch (error) {
      throw asMissing(file, error);
    }
  }

  /** The number of free bytes in the buffer, at least one: a full buffer is written out first. */
  private async room(): Promise<number> {
    if (this.held === this.buffer.length) await this.flush();
    return this.buffer.length - this.held;
  }

  /** Writes what is held. */
  async flush(): Promise<void> {
    if (this.signal?.aborted) throw cancelled();
    this.hash.update(this.buffer.subarray(0, this.held));
    for (let done = 0; done < this.held;) {
      const from = done;
      const { bytesWritten } = await writing(this.file, () => this.handle.write(this.buffer, from, this.held - from));
      done += bytesWritten;
    }
    this.held = 0;
  }

  async close(): Promise<void> {
    await this.source?.handle.close();
    await this.handle.close();
  }
}
