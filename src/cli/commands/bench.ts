/** `bench DIR`: the artifact against the uncached artifact and against the step-by-step loop. */
import { bench, openArtifact } from "../../artifact/index.js";
import { formatPercent, formatQuantity, formatRatio, table } from "../../words/index.js";
import { runtimeOptions } from "../options.js";
import type { Command } from "../command.js";

export default {
  name: "bench",
  summary: "time an artifact against the same run without caching and against the loop",
  argument: "DIR",
  options: ["check", "device", "extension", "runs", "threads"],
  async run(argument, options, host) {
    const runtime = runtimeOptions(options, host.signal);
    const figures = await bench(await openArtifact(argument, { ...runtime, extensions: options.extension, check: options.check }), {
      ...runtime,
      runs: options.runs,
      progress: host.progress,
    });
    const { artifact, uncached, loop, speedup } = figures;
    const row = (name: string, t: typeof artifact): string[] => [
      name,
      `${t.medianMs.toFixed(0)} ms`,
      `${t.iqrMs.toFixed(0)} ms`,
      `${t.loadMs.toFixed(0)} ms`,
      formatQuantity(t.rssBytes, "B"),
    ];
    return {
      json: figures,
      text: [
        table([
          ["", "median", "IQR", "load", "memory"],
          row("artifact", artifact),
          row("uncached artifact", uncached),
          row("step-by-step loop", loop),
        ]),
        `${formatRatio(speedup.measured)} faster than uncached, ${formatPercent(speedup.ofBound)} of the ${formatRatio(speedup.macBound)} that MACs allow; ${formatRatio(loop.medianMs / artifact.medianMs)} faster than the loop`,
      ].join("\n"),
    };
  },
} satisfies Command;
