/** Pictures of latents, decoded by hand: chunks, zlib, rows. */
import { inflateSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { differencePicture, latentPicture } from "../src/report/picture.js";

interface Decoded {
  readonly width: number;
  readonly height: number;
  /** PNG's colour type: 0 grey, 2 RGB. */
  readonly colourType: number;
  /** Samples of each row of pixels. */
  readonly rows: readonly (readonly number[])[];
}

/** Reads 8-bit PNG files whose rows are not filtered. */
function decode(png: Uint8Array): Decoded {
  const file = Buffer.from(png);
  expect(file.subarray(0, 8).toString("latin1")).toBe("\x89PNG\r\n\x1a\n");
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < file.length;) {
    const length = file.readUInt32BE(at);
    const name = file.toString("latin1", at + 4, at + 8);
    expect(chunks.has(name)).toBe(false);
    chunks.set(name, file.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  const header = chunks.get("IHDR") ?? Buffer.alloc(13);
  const [width, height, depth, colourType] = [header.readUInt32BE(0), header.readUInt32BE(4), header[8], header[9] ?? -1];
  expect(depth).toBe(8);
  const stride = width * (colourType === 0 ? 1 : 3) + 1;
  const raw = inflateSync(chunks.get("IDAT") ?? Buffer.alloc(0));
  expect(raw.length).toBe(stride * height);
  const rows = Array.from({ length: height }, (_, y) => [...raw.subarray(y * stride, (y + 1) * stride)]);
  expect(rows.every(([filter]) => filter === 0)).toBe(true);
  return { width, height, colourType, rows: rows.map(([, ...samples]) => samples) };
}

describe("latentPicture", () => {
  it("lays a grey batch side by side, enlarged, clipped to its range", () => {
    const latent = { shape: [2, 1, 2, 2], values: Float32Array.of(-1, 1, 0, 7, -9, NaN, 0.5, -0.5) };
    expect(decode(latentPicture(latent, [-1, 1], { scale: 2 }))).toEqual({
      width: 8,
      height: 4,
      colourType: 0,
      rows: [
        [0, 0, 255, 255, 0, 0, 0, 0],
        [0, 0, 255, 255, 0, 0, 0, 0],
        [128, 128, 255, 255, 191, 191, 64, 64],
        [128, 128, 255, 255, 191, 191, 64, 64],
      ],
    });
  });

  it("breaks the batch into rows and leaves the rest of the last one black", () => {
    const latent = { shape: [3, 1, 1, 2], values: Float32Array.of(0.2, 0.4, 0.6, 0.8, 1, 1) };
    expect(decode(latentPicture(latent, [0, 1], { columns: 2 })).rows).toEqual([
      [51, 102, 153, 204],
      [255, 255, 0, 0],
    ]);
  });

  it("interleaves three channels, and the first three of more", () => {
    const rgb = { shape: [1, 3, 1, 2], values: Float32Array.of(1, 0.2, 0, 0.4, 0.6, 1) };
    const expected = { width: 2, height: 1, colourType: 2, rows: [[255, 0, 153, 51, 102, 255]] };
    expect(decode(latentPicture(rgb, [0, 1]))).toEqual(expected);
    const four = { shape: [1, 4, 1, 2], values: Float32Array.of(...rgb.values, 1, 1) };
    expect(decode(latentPicture(four, [0, 1]))).toEqual(expected);
  });

  it("finds each sample's own channels", () => {
    const latent = { shape: [2, 3, 1, 1], values: Float32Array.of(0, 0.2, 0.4, 0.6, 0.8, 1) };
    expect(decode(latentPicture(latent, [0, 1])).rows).toEqual([[0, 51, 102, 153, 204, 255]]);
  });

  it.each([
    { shape: [1, 2, 2, 2], range: [-1, 1] as const, says: "two channels" },
    { shape: [8, 2], range: [-1, 1] as const, says: "four axes" },
    { shape: [1, 1, 2, 2, 2], range: [-1, 1] as const, says: "four axes" },
    { shape: [0, 1, 2, 2], range: [-1, 1] as const, says: "empty" },
    { shape: [1, 1, 2, 2], range: [1, 1] as const, says: "range [1, 1]" },
  ])("refuses $shape in $range", ({ shape, range, says }) => {
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const draw = (): Uint8Array => latentPicture({ shape, values }, range);
    expect(draw).toThrow(says);
    expect(draw).toThrow(expect.objectContaining({ code: "NOT_A_PICTURE", exitCode: 2 }));
  });
});

describe("differencePicture", () => {
  const shape = [1, 1, 1, 3];
  const a = { shape, values: Float32Array.of(0, 1, -1) };

  it("draws the largest difference white", () => {
    const { png, white } = differencePicture(a, { shape, values: Float32Array.of(0.5, 0.75, -1) });
    expect(white).toBe(0.5);
    expect(decode(png).rows).toEqual([[255, 128, 0]]);
  });

  it("is black where nothing differs", () => {
    const { png, white } = differencePicture(a, a);
    expect(white).toBe(0);
    expect(decode(png).rows).toEqual([[0, 0, 0]]);
  });
});
