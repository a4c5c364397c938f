/** `bench DIR`: the artifact against the uncached artifact and against the step-by-step loop. */
import { artifactOf, bench, openArtifact } from "../../artifact/index.js";
import { formatPercent, formatQuantity, formatRatio, table } from "../../words/index.js";
import { oneVariant, runtimeOptions } from "../options.js";
import type { Command } from "../command.js";

export default {
  name: "bench",
  summary: "time an artifact against the same run without caching and against the loop",
  argument: "DIR",
  options: ["check", "device", "extension", "runs", "threads", "variant"],
  async run(argument, options, host) {
    const runtime = runtimeOptions(options, host.signal);
    const folder = artifactOf(argument, oneVariant(options));
    const opened = await openArtifact(folder, { ...runtime, extensions: options.extension, check: options.check });
    const figures = await bench(opened, { ...runtime, runs: options.runs, progress: host.progress });
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
