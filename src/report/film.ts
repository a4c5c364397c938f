/** Videos as animated PNG files, which browsers play (PNG, third edition: W3C, 2025, §11.3.6; the chunks acTL, fcTL and fdAT). */
import { crc32 } from "node:zlib";
import { notAPicture } from "../words/index.js";
import { type Latent, latentPicture } from "./picture.js";

/** The first bytes of each PNG file. */
const SIGNATURE_BYTES = 8;

/**
 * The batch side by side as one animated PNG of `rate` frames a second, played again and again. `video` is [batch, channels, frames, height,
 * width]; `range` as for `latentPicture`. Throws NOT_A_PICTURE.
 */
export function film(video: Latent, range: readonly [number, number], rate: number): Uint8Array {
  const frames = framesOf(video).map((frame) => chunksOf(latentPicture(frame, range)));
  const [first] = frames;
  const header = first?.find(({ type }) => type === "IHDR");
  if (!first || !header) throw new Error("internal: a video without frames");
  const size = header.data.subarray(0, 8);
  let sequence = 0;
  const counted = (...rest: readonly Uint8Array[]): Buffer => Buffer.concat([uint32(sequence++), ...rest]);
  const control = (): Buffer => counted(size, uint32(0, 0), uint16(1000, Math.round(1000 * rate)), Buffer.from([0, 0]));
  const parts: Buffer[] = [chunk("IHDR", header.data), chunk("acTL", uint32(frames.length, 0))];
  for (const [i, chunks] of frames.entries()) {
    parts.push(chunk("fcTL", control()));
    for (const { type, data } of chunks) {
      if (type !== "IDAT") continue;
      parts.push(i === 0 ? chunk("IDAT", data) : chunk("fdAT", counted(data)));
    }
  }
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...parts, chunk("IEND", Buffer.alloc(0))]);
}

/** The pictures of a video, one after the other. Throws NOT_A_PICTURE. */
function framesOf({ shape, values }: Latent): readonly Latent[] {
  const [batch = 0, channels = 0, frames = 0, height = 0, width = 0] = filmShape(shape);
  const area = height * width;
  return Array.from({ length: frames }, (_, frame) => {
    const picture = new Float32Array(batch * channels * area);
    for (let plane = 0; plane < batch * channels; plane++) {
      const from = (plane * frames + frame) * area;
      picture.set(values.subarray(from, from + area), plane * area);
    }
    return { shape: [batch, channels, height, width], values: picture };
  });
}

/** Throws NOT_A_PICTURE for the shape of no video. */
export function filmShape(shape: readonly number[]): readonly number[] {
  if (shape.length !== 5) throw notAPicture(shape, "it does not have five axes");
  if (shape.includes(0)) throw notAPicture(shape, "it is empty");
  return shape;
}

interface Chunk {
  readonly type: string;
  readonly data: Buffer;
}

/** The chunks of a PNG file: length, type, data, checksum. */
function chunksOf(png: Uint8Array): readonly Chunk[] {
  const file = Buffer.from(png);
  const chunks: Chunk[] = [];
  for (let at = SIGNATURE_BYTES; at < file.length;) {
    const length = file.readUInt32BE(at);
    chunks.push({ type: file.toString("latin1", at + 4, at + 8), data: file.subarray(at + 8, at + 8 + length) });
    at += length + 12;
  }
  return chunks;
}

function chunk(type: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  return Buffer.concat([uint32(data.length), body, uint32(crc32(body))]);
}

function uint32(...numbers: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * numbers.length);
  for (const [i, number] of numbers.entries()) bytes.writeUInt32BE(number, 4 * i);
  return bytes;
}

function uint16(...numbers: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 * numbers.length);
  for (const [i, number] of numbers.entries()) bytes.writeUInt16BE(number, 2 * i);
  return bytes;
}
