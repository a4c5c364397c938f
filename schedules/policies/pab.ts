/**
 * Pyramid Attention Broadcast (arXiv 2408.12588): in the middle of a run the output of an attention is used for several steps. The less
 * a kind of attention changes, the longer it is used: spatial attention changes most, then temporal, then cross-attention.
 */
import { z } from "zod";
import { groupBranches, type Policy, type PolicySite } from "../policy.js";

const range = z.coerce.number().int().min(1);

const options = z.object({
  spatial: range.default(2).describe("steps that one output of spatial self-attention is used for, counted from the run's first step"),
  temporal: range.default(4).describe("the same of temporal self-attention"),
  cross: range.default(6).describe("the same of cross-attention"),
  mlp: range.default(1).describe("the same of feed-forward networks, and of branches that hold one"),
  window: z
    .string()
    .regex(/^\d*\.?\d+,\d*\.?\d+$/, "takes two times with a comma between")
    .default("100,800")
    .describe("times of the sampler between which outputs are reused: low,high, both excluded"),
});

export default {
  name: "pab",
  summary: "reuse attention for as many steps as its kind allows, in the middle of the run",
  needs: [],
  options,
  choose({ timesteps, sites }, { window, ...ranges }) {
    const [low = 0, high = 0] = window.split(",").map(Number);
    // As in diffusers, `hooks/pyramid_attention_broadcast.py`: steps outside of the window are counted too.
    const rowOf = (range: number): (0 | 1)[] => timesteps.map((time, k) => (low < time && time < high && k % range !== 0 ? 0 : 1));
    return { cells: new Map(groupBranches(sites).map(({ key, sites: [site] }) => [key, rowOf(site ? ranges[rangeOptionOf(site)] : 1)])) };
  },
} satisfies Policy<typeof options>;

/** The option that applies to a branch. */
function rangeOptionOf({ kind, stream }: PolicySite): "spatial" | "temporal" | "cross" | "mlp" {
  if (kind === "cross_attn") return "cross";
  if (kind !== "attn") return "mlp";
  return stream === "temporal" ? "temporal" : "spatial";
}
