/** `verify DIR`: checks that the artifact computes what its plan says, and measures the difference from the uncached result. */
import { type Check, checkFiles, membersOf, openArtifact, type Verification, verify } from "../../artifact/index.js";
import { type Options, runtimeOptions, sampleOptions } from "../options.js";
import { counted, table } from "../../words/index.js";
import type { Command, CommandResult, Host } from "../command.js";
import { eachOf } from "../each-variant.js";

export default {
  name: "verify",
  summary: "check an artifact, or all those of a folder, against the plan-aware loop over the original step",
  argument: "DIR",
  options: ["device", "extension", "input", "noise", "samples", "seed", "threads", "variant"],
  async run(argument, options, host) {
    return eachOf(membersOf(argument, options.variant), (folder) => verified(folder, options, host));
  },
} satisfies Command;

async function verified(folder: string, options: Options, host: Host): Promise<CommandResult> {
  const runtime = runtimeOptions(options, host.signal);
  const files = await checkFiles(folder);
  // Damaged files are not run: reading them may already fail.
  if (!files.ok) return outcome([files]);
  const artifact = await openArtifact(folder, { ...runtime, extensions: options.extension, check: false });
  const sampling = { ...runtime, ...sampleOptions(options), samples: options.samples, files, progress: host.progress };
  const { checks, fidelity } = await verify(artifact, sampling);
  return outcome(checks, fidelity);
}

function outcome(checks: readonly Check[], fidelity?: Verification["fidelity"]): CommandResult {
  const ok = checks.every((check) => check.ok);
  const rows = checks.map(({ name, relL2, limit, ok, problem, note }) => {
    const why = [problem, note].filter((sentence) => sentence !== undefined).join("; ");
    return [name, relL2.toExponential(1), limit.toExponential(0), `${ok ? "ok" : "FAILED"}${why && `: ${why}`}`];
  });
  const distance =
    fidelity &&
    `against the uncached result: relative L2 ${fidelity.relL2.toFixed(4)}, PSNR ${fidelity.psnr.toFixed(1)} dB (${counted(fidelity.samples, "sample")})`;
  return {
    json: { ok, checks, fidelity },
    text: [table([["check", "relative L2", "limit", ""], ...rows]), ...(distance === undefined ? [] : [distance])].join("\n"),
    exitCode: ok ? 0 : 1,
  };
}
