/** `verify DIR`: is the artifact what its plan says, and how far from the uncached result? */
import { openArtifact } from "../artifact.js";
import { runtimeOptions, sampleOptions } from "../options.js";
import { counted, table } from "../text.js";
import { verify } from "../verify.js";
import type { Command } from "./index.js";

export default {
  name: "verify",
  summary: "check an artifact against the plan-aware loop over the original step",
  argument: "DIR",
  options: ["device", "input", "noise", "samples", "seed", "threads"],
  async run(argument, options, host) {
    const { samples = 1 } = options;
    const runtime = runtimeOptions(options, host.signal);
    const artifact = await openArtifact(argument, runtime);
    const { ok, checks, fidelity } = await verify(artifact, { ...runtime, ...sampleOptions(options), samples, progress: host.progress });
    return {
      json: { ok, checks, fidelity },
      text: [
        table([
          ["check", "relative L2", "limit", ""],
          ...checks.map((c) => [c.name, c.relL2.toExponential(1), c.limit.toExponential(0), c.ok ? "ok" : "FAILED"]),
        ]),
        `against the uncached result: relative L2 ${fidelity.relL2.toFixed(4)}, PSNR ${fidelity.psnr.toFixed(1)} dB (${counted(fidelity.samples, "sample")})`,
      ].join("\n"),
      exitCode: ok ? 0 : 1,
    };
  },
} satisfies Command;
