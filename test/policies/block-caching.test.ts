/** Block Caching against its rule, written here a second time. */
import { describe, expect, it } from "vitest";
import { choose, generator, inputOf, randomBands, rowOf, single, siteOf, statisticsWith } from "../support/policy-input.js";
import { rejectedCodeOf } from "../support/thrown.js";

describe("block-caching", () => {
  it("follows a second writing of the rule on random changes", async () => {
    const random = generator(11);
    for (let run = 0; run < 300; run++) {
      const steps = 2 + Math.floor(50 * random());
      const delta = 0.01 + 0.5 * random();
      const bands = randomBands(steps, 1, random);
      // A cache that lives from one computed step to the last step that its errors allow.
      const want = new Array<number>(steps).fill(0);
      for (let from = 0; from < steps;) {
        want[from] = 1;
        let sum = 0;
        let to = from + 1;
        while (to < steps && (sum += bands[0]?.[to] ?? NaN) <= delta) to++;
        from = to;
      }
      expect(await rowOf("block-caching", { delta }, single(steps, bands), "attn-0")).toBe(want.join(""));
    }
  });

  it("adds up neighbouring changes, not the distance to what is reused", async () => {
    // Back and forth: the branch is where it was after two steps, and yet has moved by 0.4.
    const bands = [0.2, 0].map((error) => new Array<number>(8).fill(error));
    expect(await rowOf("block-caching", { delta: 0.3 }, single(8, bands), "attn-0")).toBe("10101010");
  });

  const random = generator(4);
  const input = inputOf(
    50,
    ["attn-0", "mlp-0", "attn-1", "mlp-1"].map((site, i) =>
      siteOf(
        site,
        0.25,
        statisticsWith(
          50,
          randomBands(50, 1, random).map((row) => row.map((change) => change * (i + 1))),
        ),
      ),
    ),
  );

  it("decides for each branch, or for kinds if asked to", async () => {
    const alone = await choose("block-caching", { delta: 0.4 }, input);
    expect(alone.schedule.cells.get("attn-0")).not.toEqual(alone.schedule.cells.get("attn-1"));
    const kinds = await choose("block-caching", { delta: 0.4, group: "kind" }, input);
    expect([...kinds.schedule.cells.keys()]).toEqual(["attn", "mlp"]);
  });

  it.each([0.8, 0.5, 0.34, 0.2])("finds the threshold that computes %d", async (share) => {
    const { schedule, warnings } = await choose("block-caching", { share }, input);
    expect(Math.abs(Number(schedule.predicted?.["computedShare"]) - share)).toBeLessThan(0.02);
    expect(warnings).toEqual([]);
    const again = await choose("block-caching", { delta: schedule.predicted?.["delta"] }, input);
    expect(again.schedule.cells).toEqual(schedule.cells);
  });

  it.each([
    ["no trace", single(20), {}, "POLICY_NEEDS_TRACE"],
    ["changes that are not finite", single(20, [new Array<number>(20).fill(NaN)]), {}, "BAD_CURVES"],
    ["delta and share", single(20), { delta: 1, share: 0.5 }, "BAD_OPTION"],
  ])("refuses %s", async (_, input, options, code) => {
    expect(await rejectedCodeOf(choose("block-caching", options, input))).toBe(code);
  });
});
