/** `compile MODEL --plan PLAN -o DIR`: the emitted model. */
import { writeArtifact, assertReplaceable } from "../artifact.js";
import { compileModel } from "../compile.js";
import { badOption, planSavesNothing } from "../../ir/diagnostics.js";
import { ditView } from "../../ir/graph.js";
import { bind, savesNothing } from "../../schedules/index.js";
import { openJob, warningsOf } from "../job.js";
import { MODEL_OPTIONS, recipeOverrides, runtimeOptions } from "../options.js";
import { readPlan } from "../plan-file.js";
import { bytes, count } from "../text.js";
import type { Command } from "./index.js";

export default {
  name: "compile",
  summary: "compile a model and a plan into one static model of the whole run",
  argument: "MODEL",
  options: [...MODEL_OPTIONS, "precision", "input", "plan", "cache", "output", "force"],
  required: ["output"],
  async run(argument, options, host) {
    const { output = "", force = false, plan: planFile, cache = true } = options;
    if (cache && planFile === undefined) throw badOption("--plan", "name a plan, or compile without caching: --no-cache");
    if (!cache && planFile !== undefined) throw badOption("--no-cache", "a plan has no effect without caching; leave one of the two out");
    assertReplaceable(output, force);
    const started = performance.now();
    const job = await openJob(argument, recipeOverrides(options), runtimeOptions(options, host.signal));
    for (const warning of warningsOf(job)) host.warn(warning);
    const schedule = cache && planFile !== undefined ? readPlan(planFile) : { steps: job.table.rows.length, cells: new Map() };
    const plan = bind(schedule, job.table, ditView(job.model).branches, job.context.guidance);
    if (cache && savesNothing(plan)) throw planSavesNothing();
    const compiled = await compileModel(job, plan);
    const written = await writeArtifact(output, { job, schedule, compiled }, force, host.signal);
    const seconds = (performance.now() - started) / 1000;
    const { nodes, macs, passes, cache: cached } = compiled;
    return {
      json: { artifact: output, nodes, macs, bytes: written, seconds, passes, cache: cached },
      text: [
        `${output}: ${nodes.emitted} nodes (one step ${nodes.step}, uncached ${nodes.uncached}), model ${bytes(written.model)}, data ${bytes(written.data)}`,
        `${count(macs.emitted)} of ${count(macs.uncached)} MACs: at most ${macs.bound.toFixed(2)}× faster; cached values take ${bytes(cached.peakBytes)} at most`,
        `compiled in ${seconds.toFixed(1)} s`,
      ].join("\n"),
    };
  },
} satisfies Command;
