// A policy in one file: compute everything for the first third of the run, then every third step.
//
//   smoothcc plan trace.json --policy ./examples/warm-start.js -o plan.json
import { everywhere } from "smoothcc/schedules";
import { z } from "zod";

export default {
  name: "warm-start",
  summary: "compute all of the first steps, then every n-th",
  needs: [],
  options: z.object({
    warm: z.coerce.number().min(0).max(1).default(0.33).describe("share of the run that is computed whole"),
    interval: z.coerce.number().int().min(1).default(3).describe("then compute every n-th step"),
  }),
  choose({ steps, sites }, { warm, interval }) {
    const first = Math.max(1, Math.round(warm * steps));
    const row = Array.from({ length: steps }, (_, k) => (k < first || k === steps - 1 || (k - first) % interval === 0 ? 1 : 0));
    return { cells: everywhere(sites, row) };
  },
};
