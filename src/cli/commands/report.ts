/** `report DIR`: the artifact's report, made again. */
import { basename, join, resolve } from "node:path";
import { type Bench, bench, FILES, membersOf, openArtifact, type Verification, verify } from "../../artifact/index.js";
import { writeSummed } from "../../files/index.js";
import { type Options, runtimeOptions, sampleOptions } from "../options.js";
import { renderReport, renderVariants, reportOf, variantsReportOf } from "../../report/index.js";
import type { Command, Host } from "../command.js";
import { eachOf } from "../each-variant.js";

export default {
  name: "report",
  summary: "verify and time an artifact, or all those of a folder, again and write report.html",
  argument: "DIR",
  options: ["check", "device", "extension", "input", "noise", "runs", "seed", "threads", "variant"],
  async run(argument, options, host) {
    const members = membersOf(argument, options.variant);
    const found = new Map<string, Reported>();
    const result = await eachOf(members, async (folder, name = "") => {
      const reported = await reportedOn(folder, name, options, host);
      found.set(name, reported);
      const { report, verification, bench } = reported;
      const { ok, checks, fidelity } = verification;
      return { json: { report, verify: { ok, checks, fidelity }, bench }, text: report, exitCode: ok ? 0 : 1 };
    });
    // The page that compares them is of all.
    if (found.has("") || options.variant) return result;
    const report = join(argument, FILES.report);
    await writeSummed(argument, FILES.report, renderVariants(variantsReportOf(basename(resolve(argument)), argument, found)));
    return { ...result, json: { report, ...result.json }, text: `${report}\n\n${result.text}` };
  },
} satisfies Command;

interface Reported {
  readonly report: string;
  readonly verification: Verification;
  readonly bench: Bench;
}

async function reportedOn(folder: string, name: string, options: Options, host: Host): Promise<Reported> {
  const { runs = 3 } = options;
  const runtime = { ...runtimeOptions(options, host.signal), progress: host.progress };
  const artifact = await openArtifact(folder, { ...runtime, extensions: options.extension, check: options.check });
  const verification = await verify(artifact, { ...runtime, ...sampleOptions(options), samples: 1 });
  const timed = await bench(artifact, { ...runtime, runs });
  const report = join(folder, FILES.report);
  const title = name === "" ? basename(resolve(folder)) : name;
  await writeSummed(folder, FILES.report, renderReport(reportOf({ title, artifact, verification, bench: timed })));
  return { report, verification, bench: timed };
}
