/** MagCache against the steps that diffusers' hooks computed. */
import { describe, expect, it } from "vitest";
import { choose, inputOf, rowOf, single, siteOf, statisticsOfValues, statisticsWith } from "../support/policy-input.js";
import { recorded } from "../support/recorded-policies.js";
import { rejectedCodeOf } from "../support/thrown.js";
import type { PolicyInput } from "../../schedules/index.js";

const withFile = (input: PolicyInput, content: unknown): PolicyInput => ({ ...input, readJson: () => content });

/** One branch with these ratios in its statistics. */
function measured(gamma: readonly number[]): PolicyInput {
  const statistics = { ...statisticsWith(gamma.length, []), gain: gamma.map((ratio, step) => (step === 0 ? 0 : ratio)) };
  return inputOf(gamma.length, [siteOf("attn-0", 1, statistics)]);
}

describe("magcache", () => {
  it("computes the steps that diffusers computes, with FLUX's ratios and others, for other numbers of steps", async () => {
    expect(recorded.magcache.length).toBeGreaterThan(200);
    for (const { ratios, steps, row, ...options } of recorded.magcache) {
      const input = withFile(single(steps), ratios);
      expect(await rowOf("magcache", { ...options, ratios: "ratios.json" }, input), JSON.stringify({ steps, ...options })).toBe(row);
    }
  });

  it("takes the ratios from the trace", async () => {
    const [{ ratios, row } = { ratios: [], row: "" }] = recorded.magcache;
    expect(await rowOf("magcache", {}, measured(ratios))).toBe(row);
  });

  it("measures a ratio as the mean over samples and branches", async () => {
    // Norms 1, 2, 4, … in one branch and 1, ½, ¼, … in the other, twice each: ratios 2 and ½, mean 1.25.
    const norms = (ratio: number): number[][] => Array.from({ length: 12 }, (_, step) => [ratio ** step]);
    const site = (name: string, ratio: number) => siteOf(name, 0.5, statisticsOfValues([norms(ratio), norms(ratio)]));
    const input = inputOf(12, [site("attn-0", 2), site("mlp-0", 0.5)]);
    const options = { k: 9, retention: 0 };
    expect(await rowOf("magcache", { ...options, delta: 0.251 }, input)).toBe("101010101010");
    expect(await rowOf("magcache", { ...options, delta: 0.249 }, input)).toBe("111111111111");
    // |1 − 1.25| + |1 − 1.5625| = 0.8125
    expect(await rowOf("magcache", { ...options, delta: 0.813 }, input)).toBe("100100100100");
  });

  it("finds the threshold for a share", async () => {
    const [{ ratios } = { ratios: [] }] = recorded.magcache;
    const { schedule, warnings } = await choose("magcache", { share: 0.5 }, measured(ratios));
    expect(schedule.predicted?.["computedShare"]).toBeCloseTo(0.5, 12);
    expect(warnings).toEqual([]);
    const again = await choose("magcache", { delta: schedule.predicted?.["delta"] }, measured(ratios));
    expect(again.schedule.cells).toEqual(schedule.cells);
  });

  it.each([
    ["neither ratios nor a trace", single(20), {}, "POLICY_NEEDS_TRACE"],
    ["ratios that are none", withFile(single(20), { gamma: [1] }), { ratios: "ratios.json" }, "BAD_JSON_FIELD"],
    ["a negative ratio", withFile(single(20), [1, -1]), { ratios: "ratios.json" }, "BAD_JSON_FIELD"],
    ["delta and share", single(20), { delta: 0.1, share: 0.5 }, "BAD_OPTION"],
  ])("refuses %s", async (_, input, options, code) => {
    expect(await rejectedCodeOf(choose("magcache", options, input))).toBe(code);
  });
});
