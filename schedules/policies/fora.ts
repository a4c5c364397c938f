/** FORA (arXiv 2407.01425): every branch is computed at every n-th step and reused between. */
import { z } from "zod";
import { everywhere, type Policy } from "../policy.js";

const options = z.object({
  interval: z.coerce.number().int().min(1).default(2).describe("compute every n-th step"),
  phase: z
    .enum(["smoothcache", "fora"])
    .default("smoothcache")
    .describe("smoothcache: count from the first step and compute the last too; fora: count from the last step and compute the first too"),
});

export default {
  name: "fora",
  summary: "compute every branch at every n-th step",
  needs: [],
  options,
  choose({ steps, sites }, { interval, phase }) {
    // `smoothcache`: Roblox/SmoothCache's <T>-N-<n>-fora.json. `fora`: prathebaselva/FORA's src/models.py, whose counter runs down.
    const last = steps - 1;
    const computes = (k: number): boolean => k === 0 || k === last || (phase === "smoothcache" ? k : last - k) % interval === 0;
    const row = Array.from({ length: steps }, (_, k) => (computes(k) ? 1 : 0));
    return { cells: everywhere(sites, row) };
  },
} satisfies Policy<typeof options>;
