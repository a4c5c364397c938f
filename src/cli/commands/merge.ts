/** `merge TRACE… -o TRACE`: the trace of all samples, as if one machine had run them. */
import { prepareFile, jsonText, writeWhole } from "../../files/index.js";
import { mergeTraces, readTrace } from "../../calibration/index.js";
import type { Command } from "../command.js";

export default {
  name: "merge",
  summary: "add traces of different samples, such as those of shards",
  argument: "TRACE...",
  options: ["output", "force"],
  required: ["output"],
  async run(first, options, _host, others) {
    const { output = "", force = false } = options;
    prepareFile(output, force);
    const trace = others.reduce((sum, file) => mergeTraces(sum, readTrace(file), file), readTrace(first));
    await writeWhole(output, jsonText(trace), force);
    const { samples, steps, lags, sites } = trace;
    const summary = { trace: output, samples, steps, lags, sites: Object.keys(sites).length };
    return { json: summary, text: `${output}: samples ${samples.join(", ")} × ${steps} steps, ${summary.sites} branches` };
  },
} satisfies Command;
