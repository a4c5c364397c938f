/** Pyramid Attention Broadcast against the steps that diffusers' hooks computed. */
import { describe, expect, it } from "vitest";
import { choose, inputOf, rowOf, rowText, single, siteOf } from "../support/policy-input.js";
import { recorded } from "../support/recorded-policies.js";
import { rejectedCodeOf } from "../support/thrown.js";

describe("pab", () => {
  const sites = [
    { ...siteOf("attn-0", 0.2), site: "spatial_attn-0", stream: "spatial" },
    { ...siteOf("cross_attn-0", 0.2), site: "spatial_cross_attn-0", stream: "spatial" },
    { ...siteOf("mlp-0", 0.2), site: "spatial_mlp-0", stream: "spatial" },
    { ...siteOf("attn-0", 0.2), site: "temporal_attn-0", stream: "temporal" },
    { ...siteOf("mlp-0", 0.2), site: "temporal_mlp-0", stream: "temporal" },
  ];

  it.each(recorded.pab)("computes the steps that diffusers computes: ranges $spatial, $temporal, $cross", async (recording) => {
    const { spatial, temporal, cross, window, times, rows } = recording;
    const input = { ...inputOf(times.length, sites), timesteps: times };
    const { schedule } = await choose("pab", { spatial, temporal, cross, window: window.join() }, input);
    const row = (key: string): string => rowText(schedule.cells.get(key));
    expect(row("spatial_attn")).toBe(rows.spatial);
    expect(row("spatial_cross_attn")).toBe(rows.cross);
    expect(row("temporal_attn")).toBe(rows.temporal);
    expect(row("spatial_mlp")).toMatch(/^1+$/);
    expect(row("temporal_mlp")).toMatch(/^1+$/);
  });

  it("broadcasts feed-forward networks where asked to, and branches that hold one", async () => {
    const [{ times, window, rows } = { times: [], window: [0, 0], rows: { spatial: "" } }] = recorded.pab;
    const input = {
      ...inputOf(times.length, [siteOf("mlp-0", 0.5), { ...siteOf("attn-1", 0.5), site: "single-1", kind: "single" as const }]),
    };
    const options = { mlp: 2, window: window.join() };
    expect(await rowOf("pab", options, { ...input, timesteps: times }, "mlp")).toBe(rows.spatial);
    expect(await rowOf("pab", options, { ...input, timesteps: times }, "single")).toBe(rows.spatial);
  });

  it.each([{ window: "100" }, { window: "low,high" }, { spatial: 0 }])("refuses %o", async (options) => {
    expect(await rejectedCodeOf(choose("pab", options, single(20)))).toBe("BAD_OPTION");
  });
});
