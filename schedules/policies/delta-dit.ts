/**
 * Δ-DiT (arXiv 2406.01125): early in the run the rear blocks are reused between full steps, late in the run the front blocks,
 * as front blocks draw the outline and rear blocks the details.
 *
 * The paper caches what a range of blocks adds to the stream. That is one branch under a cut with ranges (`--cut 0-6,7-20,21-27`; each
 * range is one block here). Under other cuts every branch of these blocks is cached by itself, and the operators between them, gates
 * above all, use values of the current step.
 */
import { z } from "zod";
import type { Policy } from "../policy.js";

/** 21 of 28 blocks at interval 2 compute 1.6 times less, the figure of the paper's abstract. */
const CACHED_BLOCKS = 0.75;

const options = z.object({
  interval: z.coerce.number().int().min(1).default(2).describe("compute every n-th step"),
  blocks: z.coerce.number().int().min(0).optional().describe("how many blocks are reused between; three quarters of them if absent"),
  boundary: z.coerce
    .number()
    .int()
    .min(0)
    .optional()
    .describe("step from which on the front blocks are reused, before it the rear ones; the middle of the run if absent"),
});

export default {
  name: "delta-dit",
  summary: "reuse the rear blocks early in the run, the front blocks late",
  needs: [],
  options,
  choose({ steps, sites }, { interval, blocks, boundary = Math.ceil(steps / 2) }) {
    const order = [...new Set(sites.map(({ block }) => block))].sort((a, b) => a - b);
    const count = blocks ?? Math.round(CACHED_BLOCKS * order.length);
    const front = new Set(order.slice(0, count));
    const rear = new Set(order.slice(Math.max(0, order.length - count)));
    const cells = sites.map(({ name, block }) => {
      const reuses = (k: number): boolean => k % interval !== 0 && (k < boundary ? rear : front).has(block);
      return [name, Array.from({ length: steps }, (_, k) => (reuses(k) ? 0 : 1))] as const;
    });
    return { cells: new Map(cells) };
  },
} satisfies Policy<typeof options>;
