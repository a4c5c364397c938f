/** `calibrate MODEL -o TRACE`: error curves and inner products from uncached runs. */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { calibrate, readTrace, windowOf } from "../../calibration/index.js";
import { prepareFile, jsonText, writeWhole } from "../../files/index.js";
import { openJob, warningsOf } from "../../job/index.js";
import { inputSpecs, MODEL_OPTIONS, variantOverrides, runtimeOptions } from "../options.js";
import { fewSteps } from "../../../schedules/index.js";
import { counted } from "../../words/index.js";
import type { Command } from "../command.js";

export default {
  name: "calibrate",
  summary: "run uncached samples and record how much every branch changes",
  argument: "MODEL",
  options: [...MODEL_OPTIONS, "variant", "device", "input", "samples", "shard", "seed", "memory", "resume", "output", "force"],
  required: ["output"],
  async run(argument, options, host) {
    const { output = "", force = false, resume = false, samples, shard, seed, memory } = options;
    const partial = `${output}.partial`;
    for (const file of [output, partial]) prepareFile(file, force || resume);
    const runtime = runtimeOptions(options, host.signal);
    const started = performance.now();
    const job = await openJob(argument, variantOverrides(argument, options), runtime);
    for (const warning of [...warningsOf(job), ...fewSteps(job.run.rows.length)]) host.warn(warning);
    const { groups } = windowOf(job, memory);
    const file = resume ? [partial, output].find((file) => existsSync(file)) : undefined;
    const trace = await calibrate(job, {
      ...{ ...runtime, samples, shard, seed, memory, inputs: inputSpecs(options), progress: host.progress },
      found: file === undefined ? undefined : { file, trace: readTrace(file) },
      checkpoint: (trace) => writeWhole(partial, jsonText(trace), true),
    });
    await writeWhole(output, jsonText(trace), true);
    await rm(partial, { force: true });
    const seconds = (performance.now() - started) / 1000;
    const { steps, lags, sites } = trace;
    const numbers = trace.samples;
    const summary = {
      trace: output,
      samples: numbers.length,
      numbers,
      steps,
      lags,
      passes: groups.length,
      sites: Object.keys(sites).length,
    };
    const repeated = groups.length === 1 ? "" : `, in ${groups.length} passes each to fit the memory`;
    const back = lags === steps - 1 ? "" : `, inner products ${lags} steps back to fit the memory`;
    return {
      json: { ...summary, seconds },
      text: `${output}: ${counted(numbers.length, "sample")} (${numbers.join(", ")}) × ${steps} steps, ${summary.sites} branches${repeated}${back}, ${seconds.toFixed(1)} s`,
    };
  },
} satisfies Command;
