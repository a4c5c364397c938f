/** `plan TRACE -o PLAN --policy NAME`: chooses what is computed when. */
import { assertFree } from "../files.js";
import { choosePlan, planningOf, type PlanSummary } from "../plan.js";
import { policyOptionsOf } from "../options.js";
import { writePlan } from "../plan-file.js";
import { count, table } from "../text.js";
import { readTrace } from "../trace.js";
import type { Command } from "./index.js";

export default {
  name: "plan",
  summary: "choose a plan from a trace",
  argument: "TRACE",
  options: ["policy", "policyOption", "output", "force"],
  required: ["policy", "output"],
  plans: true,
  async run(argument, options, host) {
    const { policy = "", output = "", force = false } = options;
    assertFree(output, force);
    const { schedule, summary, warnings } = await choosePlan(planningOf(readTrace(argument)), policy, policyOptionsOf(options));
    for (const warning of warnings) host.warn(warning);
    await writePlan(output, schedule, force);
    return { json: summary, text: describePlan(summary) };
  },
} satisfies Command;

/** The plan's figures for people. */
function describePlan({ steps, computed, macs, predicted }: PlanSummary): string {
  return [
    table([["kind", "computed"], ...Object.entries(computed).map(([kind, n]) => [kind, `${n} of ${steps} steps`])]),
    `${count(macs.planned)} of ${count(macs.uncached)} linear MACs: at most ${macs.bound.toFixed(2)}× faster`,
    ...Object.entries(predicted).map(
      ([what, value]) => `${what}: ${typeof value === "number" ? Number(value.toPrecision(4)) : JSON.stringify(value)}`,
    ),
  ].join("\n");
}
