/** `compile MODEL --plan PLAN -o DIR`: the emitted model. */
import { ARTIFACT, writeArtifact } from "../../artifact/index.js";
import { prepareFolder } from "../../files/index.js";
import { assertLimitable, compileModel, limitCache } from "../../compile/index.js";
import { badOption } from "../../../schedules/diagnostics.js";
import { compileFigures, cudaText, joinedText, limitText, memoryText } from "../compile-text.js";
import { formatQuantity, formatRatio, planSavesNothing } from "../../words/index.js";
import { savesNothing, type Schedule } from "../../../schedules/index.js";
import { openJob, planFor, readPlan, type RecipeOverrides, warningsOf } from "../../job/index.js";
import { MODEL_OPTIONS, variantOverrides, runtimeOptions } from "../options.js";
import type { Command } from "../command.js";

export default {
  name: "compile",
  summary: "compile a model and a plan into one static model of the whole run",
  argument: "MODEL",
  options: [
    ...MODEL_OPTIONS,
    "variant",
    "input",
    "plan",
    "cache",
    "cacheMemory",
    "form",
    "passes",
    "segments",
    "stopAt",
    "pixels",
    "latent",
    "output",
    "force",
  ],
  required: ["output"],
  async run(argument, options, host) {
    const { output = "", force = false, plan: planFile, cache = true } = options;
    if (cache && planFile === undefined) throw badOption("--plan", "name a plan, or compile without caching: --no-cache");
    if (!cache && planFile !== undefined) throw badOption("--no-cache", "a plan has no effect without caching; leave one of the two out");
    prepareFolder(output, ARTIFACT, force);
    assertLimitable(options);
    const started = performance.now();
    const runtime = runtimeOptions(options, host.signal);
    const chosen = cache && planFile !== undefined ? readPlan(planFile) : undefined;
    const overrides = variantOverrides(argument, options);
    if (overrides.cut !== undefined && chosen?.cut !== undefined && chosen.cut !== overrides.cut)
      throw badOption("--cut", `is ${overrides.cut}, but the plan is for a network cut at ${chosen.cut}; leave it out`);
    const job = await openJob(argument, { ...overrides, ...(chosen && takenFrom(chosen, overrides)) }, runtime);
    for (const warning of warningsOf(job)) host.warn(warning);
    if (chosen && !chosen.of) host.note("The plan does not say what it is of: that it is of this model could not be checked.");
    const { schedule, computed } = limitCache(job, chosen ?? { steps: job.run.rows.length, cells: new Map() }, options.cacheMemory);
    const plan = planFor(job, schedule);
    if (chosen && savesNothing(plan)) throw planSavesNothing();
    const compiled = await compileModel(job, plan, { form: options.form, without: options.passes, segments: options.segments });
    const written = await writeArtifact(output, { job, schedule, compiled }, force, host.signal);
    const seconds = (performance.now() - started) / 1000;
    const { nodes, macs } = compiled;
    return {
      json: { artifact: output, ...compileFigures(compiled, computed), bytes: written, seconds },
      text: [
        `${output}: ${nodes.emitted} nodes (one step ${nodes.step}, uncached ${nodes.uncached}), model ${formatQuantity(written.model, "B")}, data ${formatQuantity(written.data, "B")}`,
        `${formatQuantity(macs.emitted, "MAC")} of ${formatQuantity(macs.uncached, "MAC")}: at most ${formatRatio(macs.bound)} faster`,
        ...joinedText(compiled),
        memoryText(compiled),
        ...limitText(computed),
        cudaText(compiled),
        `compiled in ${seconds.toFixed(1)} s`,
      ].join("\n"),
    };
  },
} satisfies Command;

/** The cut, steps and guidance scale of a plan's run, unless the command line, or a variant, gives them. */
function takenFrom({ of, cut }: Schedule, { steps, guidance }: RecipeOverrides): RecipeOverrides {
  const scale = of?.guidance.scale;
  return {
    ...(cut !== undefined && { cut }),
    ...(steps === undefined && of?.steps !== undefined && { steps: of.steps }),
    ...(guidance === undefined && typeof scale === "number" && { guidance: scale }),
  };
}
