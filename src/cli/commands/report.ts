/** `report DIR`: the artifact's report, made again. */
import { basename, join, resolve } from "node:path";
import { bench, FILES, openArtifact, verify } from "../../artifact/index.js";
import { writeSummed } from "../../files/index.js";
import { runtimeOptions, sampleOptions } from "../options.js";
import { renderReport, reportOf } from "../../report/index.js";
import type { Command } from "../command.js";

export default {
  name: "report",
  summary: "verify and time an artifact again and write its report.html",
  argument: "DIR",
  options: ["check", "device", "extension", "input", "noise", "runs", "seed", "threads"],
  async run(argument, options, host) {
    const { runs = 3 } = options;
    const runtime = { ...runtimeOptions(options, host.signal), progress: host.progress };
    const artifact = await openArtifact(argument, { ...runtime, extensions: options.extension, check: options.check });
    const verification = await verify(artifact, { ...runtime, ...sampleOptions(options), samples: 1 });
    const timed = await bench(artifact, { ...runtime, runs });
    const report = join(argument, FILES.report);
    const title = basename(resolve(argument));
    await writeSummed(argument, FILES.report, renderReport(reportOf({ title, artifact, verification, bench: timed })));
    const { ok, checks, fidelity } = verification;
    return { json: { report, verify: { ok, checks, fidelity }, bench: timed }, text: report, exitCode: ok ? 0 : 1 };
  },
} satisfies Command;
