/** FORA (arXiv 2407.01425): every branch is computed at every n-th step and reused between. */
import { z } from "zod";
import { uniformOptions, uniformSteps } from "../planning/interval.js";
import { everywhere, type Policy } from "../policy.js";

const options = z.object(uniformOptions({ interval: 2, warmup: 1, phase: "smoothcache" }));

export default {
  name: "fora",
  summary: "compute every branch at every n-th step",
  needs: [],
  options,
  choose({ steps, sites }, uniform) {
    const row = uniformSteps(steps, uniform).map((computes) => (computes ? 1 : 0));
    return { cells: everywhere(sites, row) };
  },
} satisfies Policy<typeof options>;
