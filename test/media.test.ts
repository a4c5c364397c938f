/** Films and sound, read again by hand: chunks and headers as their standards have them. */
import { inflateSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { film } from "../src/report/film.js";
import { sound } from "../src/report/sound.js";
import { codeOf } from "./support/thrown.js";

/** Type and data of each chunk of a PNG file, in order. */
function chunksOf(png: Uint8Array): readonly (readonly [type: string, data: Buffer])[] {
  const file = Buffer.from(png);
  const chunks: [string, Buffer][] = [];
  for (let at = 8; at < file.length; at += file.readUInt32BE(at) + 12)
    chunks.push([file.toString("latin1", at + 4, at + 8), file.subarray(at + 8, at + 8 + file.readUInt32BE(at))]);
  return chunks;
}

describe("film", () => {
  // Two samples, one channel, three frames of one row and two columns.
  const video = { shape: [2, 1, 3, 1, 2], values: Float32Array.of(0, 0.2, 0.4, 0.6, 0.8, 1, 1, 0.8, 0.6, 0.4, 0.2, 0) };
  const chunks = chunksOf(film(video, [0, 1], 8));

  it("has every frame, the batch side by side", () => {
    const frames = chunks.filter(([type]) => type === "IDAT" || type === "fdAT");
    const pixels = frames.map(([type, data]) => [...inflateSync(type === "fdAT" ? data.subarray(4) : data)]);
    expect(pixels).toEqual([
      [0, 0, 51, 255, 204],
      [0, 102, 153, 153, 102],
      [0, 204, 255, 51, 0],
    ]);
  });

  it("says how long each is shown, in the order of the sequence numbers", () => {
    expect(chunks.map(([type]) => type)).toEqual(["IHDR", "acTL", "fcTL", "IDAT", "fcTL", "fdAT", "fcTL", "fdAT", "IEND"]);
    expect(chunks.find(([type]) => type === "acTL")?.[1].readUInt32BE(0)).toBe(3);
    const numbered = chunks.filter(([type]) => type === "fcTL" || type === "fdAT");
    expect(numbered.map(([, data]) => data.readUInt32BE(0))).toEqual([0, 1, 2, 3, 4]);
    const controls = chunks.filter(([type]) => type === "fcTL").map(([, data]) => data);
    expect(controls.every((data) => data.readUInt32BE(4) === 4 && data.readUInt32BE(8) === 1)).toBe(true);
    expect(controls.every((data) => data.readUInt16BE(20) / data.readUInt16BE(22) === 1 / 8)).toBe(true);
  });

  it("takes no pictures", () => {
    expect(codeOf(() => film({ shape: [1, 1, 2, 2], values: new Float32Array(4) }, [0, 1], 8))).toBe("NOT_A_PICTURE");
  });
});

describe("sound", () => {
  it("has the samples of both channels in turn, clipped, behind a header that says so", () => {
    const file = Buffer.from(sound({ shape: [1, 2, 3], values: Float32Array.of(0, 0.5, 2, -1, -0.5, NaN) }, 22050));
    expect(file.toString("latin1", 0, 4) + file.toString("latin1", 8, 16)).toBe("RIFFWAVEfmt ");
    expect([file.readUInt16LE(22), file.readUInt32LE(24), file.readUInt32LE(28), file.readUInt16LE(34)]).toEqual([2, 22050, 88200, 16]);
    expect(file.readUInt32LE(40)).toBe(file.length - 44);
    expect(Array.from({ length: 6 }, (_, i) => file.readInt16LE(44 + 2 * i))).toEqual([0, -32767, 16384, -16383, 32767, 0]);
  });

  it("refuses what nobody can hear", () => {
    for (const shape of [[1, 3, 4], [1, 2, 3, 4], [1, 1, 0], [2]])
      expect(codeOf(() => sound({ shape, values: new Float32Array(24) }, 8000))).toBe("NOT_SOUND");
  });
});
