/** `compile MODEL --plan PLAN -o DIR`: the emitted model. */
import { writeArtifact, assertReplaceable } from "../artifact.js";
import { assertLimitable, limitCache, type Limited } from "../cache-limit.js";
import { compileModel, type Compiled } from "../compile.js";
import { badOption, planSavesNothing } from "../../ir/diagnostics.js";
import { savesNothing, type Schedule } from "../../schedules/index.js";
import type { OffDevice } from "../cuda.js";
import { formatQuantity, formatRatio } from "../format.js";
import { jobFor, openJob, planFor, warningsOf } from "../job.js";
import { MODEL_OPTIONS, recipeOverrides, runtimeOptions } from "../options.js";
import { readPlan } from "../plan-file.js";
import type { Command } from "./index.js";

export default {
  name: "compile",
  summary: "compile a model and a plan into one static model of the whole run",
  argument: "MODEL",
  options: [...MODEL_OPTIONS, "precision", "input", "plan", "cache", "cacheMemory", "form", "passes", "output", "force"],
  required: ["output"],
  async run(argument, options, host) {
    const { output = "", force = false, plan: planFile, cache = true } = options;
    if (cache && planFile === undefined) throw badOption("--plan", "name a plan, or compile without caching: --no-cache");
    if (!cache && planFile !== undefined) throw badOption("--no-cache", "a plan has no effect without caching; leave one of the two out");
    assertReplaceable(output, force);
    assertLimitable(options);
    const started = performance.now();
    const runtime = runtimeOptions(options, host.signal);
    const opened = await openJob(argument, recipeOverrides(options), runtime);
    for (const warning of warningsOf(opened)) host.warn(warning);
    const chosen: Schedule = cache && planFile !== undefined ? readPlan(planFile) : { steps: opened.table.rows.length, cells: new Map() };
    if (options.cut !== undefined && chosen.cut !== undefined && chosen.cut !== options.cut)
      throw badOption("--cut", `is ${options.cut}, but the plan is for a network cut at ${chosen.cut}; leave it out`);
    const job = await jobFor(opened, chosen, runtime);
    const { schedule, computed } = limitCache(job, chosen, options.cacheMemory);
    const plan = planFor(job, schedule);
    if (cache && savesNothing(plan)) throw planSavesNothing();
    const compiled = await compileModel(job, plan, { form: options.form, without: options.passes });
    const written = await writeArtifact(output, { job, schedule, compiled }, force, host.signal);
    const seconds = (performance.now() - started) / 1000;
    const { nodes, macs } = compiled;
    return {
      json: { artifact: output, ...compileFigures(compiled, computed), bytes: written, seconds },
      text: [
        `${output}: ${nodes.emitted} nodes (one step ${nodes.step}, uncached ${nodes.uncached}), model ${formatQuantity(written.model, "B")}, data ${formatQuantity(written.data, "B")}`,
        `${formatQuantity(macs.emitted, "MAC")} of ${formatQuantity(macs.uncached, "MAC")}: at most ${formatRatio(macs.bound)} faster`,
        memoryText(compiled),
        ...limitText(computed),
        cudaText(compiled),
        `compiled in ${seconds.toFixed(1)} s`,
      ].join("\n"),
    };
  },
} satisfies Command;

/** What is told of a compilation as JSON. */
export function compileFigures(
  { form, nodes, macs, passes, memory, cuda }: Compiled,
  computed: Limited["computed"],
): Record<string, unknown> {
  return { form, nodes, macs, passes, cache: { peakBytes: memory.cache, computed }, memory, cuda };
}

/** What a run will need, for people. */
export function memoryText({ memory: { activations, cache, weights } }: Compiled): string {
  return `a run takes ${formatQuantity(activations, "B")} at most beside ${formatQuantity(weights, "B")} of weights; ${formatQuantity(cache, "B")} of it for caching`;
}

/** What `--cache-memory` did, for people. */
export function limitText(computed: Limited["computed"]): readonly string[] {
  return computed.length === 0 ? [] : [`computed at every step, as their caches were over the limit: ${computed.join(", ")}`];
}

/** Where the model runs on CUDA, for people. */
export function cudaText({ cuda: { kernels, missing, copies } }: Compiled): string {
  const lines = [...offDevice("no CUDA kernel", missing), ...offDevice("waits for the host under CUDA", copies)];
  return lines.length > 0 ? lines.join("\n") : `CUDA has a kernel for each of the ${kernels} nodes, and none waits for the host`;
}

/** `no CUDA kernel: 12 × Mish (opset 22: float, float), as /blocks.0/act`; a line for each operator and its types. */
function offDevice(problem: string, nodes: readonly OffDevice[]): readonly string[] {
  const alike = new Map<string, OffDevice[]>();
  for (const node of nodes) {
    const what = `${node.op} (opset ${node.opset}: ${node.types.join(", ")})`;
    alike.set(what, [...(alike.get(what) ?? []), node]);
  }
  return Array.from(alike, ([what, same]) => `${problem}: ${same.length} × ${what}, as ${same[0]?.node ?? ""}`);
}
