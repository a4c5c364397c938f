/** One ONNX Loop over the rows of the sampler's table, whose body is the step: a small model that loads quickly, but has control flow. */
import { uncached } from "../../schedules/index.js";
import type { Form } from "../form.js";
import { LOOP_PASSES } from "../stages.js";

export default {
  name: "loop",
  summary: "one ONNX Loop, small and quickly loaded, for CPU hosts",
  passes: LOOP_PASSES,
  stages: ["step"],
  frees: false,
  async lower(step, { plan, perform, performBeside }) {
    return { model: await perform(step, LOOP_PASSES), uncached: await performBeside(uncached(plan), step, LOOP_PASSES) };
  },
} satisfies Form;
