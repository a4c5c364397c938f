/** Noise against what torch's CPU generator drew. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { TorchGenerator, torchRandn } from "../src/job/noise.js";

const numbers = z.array(z.number());
const recorded = z
  .object({
    cases: z.array(
      z.object({
        seed: z.int(),
        shape: z.array(z.int()),
        values: numbers.optional(),
        first: numbers.optional(),
        last: numbers.optional(),
        sum: z.number().optional(),
        sha256_le_float32: z.string().optional(),
      }),
    ),
    sequences: z.array(z.object({ seed: z.int(), sizes: z.array(z.int()), values: z.array(numbers) })),
  })
  .parse(JSON.parse(readFileSync(new URL("fixtures/torch_randn.json", import.meta.url), "utf8")));

const inFloat32 = (values: readonly number[]): number[] => values.map(Math.fround);

describe("torch.randn", () => {
  it.each(recorded.cases)("seed $seed, shape $shape", ({ seed, shape, values, first, last, sha256_le_float32 }) => {
    const drawn = torchRandn(
      seed,
      shape.reduce((a, b) => a * b, 1),
    );
    if (values) expect([...drawn]).toEqual(inFloat32(values));
    if (first && last) {
      expect([...drawn.subarray(0, first.length)]).toEqual(inFloat32(first));
      expect([...drawn.subarray(-last.length)]).toEqual(inFloat32(last));
      expect(createHash("sha256").update(new Uint8Array(drawn.buffer)).digest("hex")).toBe(sha256_le_float32);
    }
  });

  it.each(recorded.sequences)("seed $seed, one generator, sizes $sizes", ({ seed, sizes, values }) => {
    const generator = new TorchGenerator(seed);
    expect(sizes.map((size) => [...generator.randn(size)])).toEqual(values.map(inFloat32));
  });

  it("takes the lower half of a long seed", () => {
    expect(torchRandn(2 ** 32 + 5, 40)).toEqual(torchRandn(5, 40));
    expect(torchRandn(6, 40)).not.toEqual(torchRandn(5, 40));
  });

  it.each([-1, 0.5, NaN, 2 ** 53])("refuses the seed %d", (seed) => {
    expect(() => new TorchGenerator(seed)).toThrow(RangeError);
  });
});
