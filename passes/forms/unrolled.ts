/** A copy of the step for each row of the sampler's table, in which a cache read is an edge. */
import type { Form } from "../form.js";
import { CACHE_PASSES, RUN_PASSES } from "../stages.js";

export default {
  name: "unrolled",
  summary: "a copy of the step for each step of the run",
  passes: [...RUN_PASSES, ...CACHE_PASSES],
  stages: ["step", "run", "cache"],
  frees: true,
  async lower(step, { perform }) {
    const uncached = await perform(step, RUN_PASSES, "run");
    return { uncached, model: await perform(uncached, CACHE_PASSES, "cache") };
  },
} satisfies Form;
