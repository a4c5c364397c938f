/** `bench DIR`: the artifact against the uncached artifact and against the step-by-step loop. */
import { openArtifact } from "../artifact.js";
import { bench } from "../bench.js";
import { runtimeOptions } from "../options.js";
import { bytes, table } from "../text.js";
import type { Command } from "./index.js";

export default {
  name: "bench",
  summary: "time an artifact against the same run without caching and against the loop",
  argument: "DIR",
  options: ["device", "runs", "threads"],
  async run(argument, options, host) {
    const runtime = runtimeOptions(options, host.signal);
    const figures = await bench(await openArtifact(argument, runtime), { ...runtime, runs: options.runs ?? 5, progress: host.progress });
    const { artifact, uncached, loop, speedup } = figures;
    const row = (name: string, t: typeof artifact): string[] => [
      name,
      `${t.medianMs.toFixed(0)} ms`,
      `${t.iqrMs.toFixed(0)} ms`,
      `${t.loadMs.toFixed(0)} ms`,
      bytes(t.rssBytes),
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
        `${speedup.measured.toFixed(2)}× faster than uncached, ${(100 * speedup.ofBound).toFixed(0)} % of the ${speedup.macBound.toFixed(2)}× that MACs allow; ${(loop.medianMs / artifact.medianMs).toFixed(2)}× faster than the loop`,
      ].join("\n"),
    };
  },
} satisfies Command;
