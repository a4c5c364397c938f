/** `calibrate MODEL -o TRACE`: error curves and Gram matrices from uncached runs. */
import { calibrate } from "../calibrate.js";
import { assertFree, jsonText, writeWhole } from "../files.js";
import { openJob, warningsOf } from "../job.js";
import { inputSpecs, MODEL_OPTIONS, recipeOverrides, runtimeOptions } from "../options.js";
import type { Command } from "./index.js";

export const DEFAULT_SAMPLES = 10;

export default {
  name: "calibrate",
  summary: "run uncached samples and record how much every branch changes",
  argument: "MODEL",
  options: [...MODEL_OPTIONS, "device", "input", "samples", "seed", "output", "force"],
  required: ["output"],
  async run(argument, options, host) {
    const { output = "", force = false, samples = DEFAULT_SAMPLES, seed = 0 } = options;
    assertFree(output, force);
    const runtime = runtimeOptions(options, host.signal);
    const started = performance.now();
    const job = await openJob(argument, recipeOverrides(options), runtime);
    for (const warning of warningsOf(job)) host.warn(warning);
    const trace = await calibrate(job, { ...runtime, samples, seed, inputs: inputSpecs(options), progress: host.progress });
    await writeWhole(output, jsonText(trace), force);
    const seconds = (performance.now() - started) / 1000;
    const { steps, sites } = trace;
    const summary = { trace: output, samples, steps, evaluations: samples * steps, sites: Object.keys(sites).length, seconds };
    return { json: summary, text: `${output}: ${samples} samples × ${steps} steps, ${summary.sites} branches, ${seconds.toFixed(1)} s` };
  },
} satisfies Command;
