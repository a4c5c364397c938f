/** Δ-DiT against its rule, written out. */
import { describe, expect, it } from "vitest";
import { choose, inputOf, rowText, siteOf } from "../support/policy-input.js";

describe("delta-dit", () => {
  const blocks = (count: number) =>
    inputOf(
      10,
      Array.from({ length: count }, (_, block) => [siteOf(`attn-${block}`, 0.5 / count), siteOf(`mlp-${block}`, 0.5 / count)]).flat(),
    );

  it("reuses the rear blocks before the boundary, and the front blocks from it on", async () => {
    const { schedule } = await choose("delta-dit", { interval: 3, blocks: 1, boundary: 5 }, blocks(3));
    const rows = Object.fromEntries([...schedule.cells].map(([key, row]) => [key, rowText(row)]));
    expect(rows).toEqual({
      "attn-0": "1111101001",
      "mlp-0": "1111101001",
      "attn-1": "1111111111",
      "mlp-1": "1111111111",
      "attn-2": "1001011111",
      "mlp-2": "1001011111",
    });
  });

  it("reuses 21 of 28 blocks unless told otherwise: 1.6 times less at interval 2", async () => {
    const { schedule } = await choose("delta-dit", {}, blocks(28));
    expect(1 / Number(schedule.predicted?.["computedShare"])).toBeCloseTo(1.6, 12);
    // 7 blocks are always computed on either side; the 14 in the middle are reused early and late.
    const row = (site: string): string => rowText(schedule.cells.get(site));
    expect([row("attn-6"), row("attn-7"), row("attn-20"), row("attn-21")]).toEqual([
      "1111101010",
      "1010101010",
      "1010101010",
      "1010111111",
    ]);
  });

  it("reuses all blocks if so many are asked for, and none if none", async () => {
    const all = await choose("delta-dit", { blocks: 99, interval: 2 }, blocks(4));
    expect(all.schedule.predicted?.["computedShare"]).toBe(0.5);
    const none = await choose("delta-dit", { blocks: 0 }, blocks(4));
    expect(none.schedule.predicted?.["computedShare"]).toBe(1);
  });
});
