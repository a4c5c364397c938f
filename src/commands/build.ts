/** `build MODEL -o DIR`: the main job, from a model to a verified artifact with a report. */
import { build } from "../build.js";
import { MODEL_OPTIONS, policyOptionsOf, recipeOverrides, runtimeOptions, sampleOptions } from "../options.js";
import { bytes, count } from "../text.js";
import { DEFAULT_SAMPLES } from "./calibrate.js";
import { compileFigures, cudaText, limitText, memoryText } from "./compile.js";
import type { Command } from "./index.js";

export default {
  name: "build",
  summary: "calibrate, plan, compile, verify and report: the main job",
  argument: "MODEL",
  options: [
    ...MODEL_OPTIONS,
    "cacheMemory",
    "precision",
    "device",
    "form",
    "input",
    "noise",
    "policy",
    "policyOption",
    "runs",
    "samples",
    "seed",
    "output",
    "force",
  ],
  required: ["output"],
  plans: true,
  async run(argument, options, host) {
    const { output = "", force = false, policy = "smoothcache", samples = DEFAULT_SAMPLES, runs = 3 } = options;
    const given = policyOptionsOf(options);
    const policyOptions =
      policy === "smoothcache" && given["alpha"] === undefined && given["share"] === undefined ? { ...given, share: "0.5" } : given;
    const started = performance.now();
    const built = await build(argument, {
      ...runtimeOptions(options, host.signal),
      overrides: recipeOverrides(options),
      ...sampleOptions(options),
      ...{ output, force, policy, policyOptions, samples, runs, cacheMemory: options.cacheMemory, form: options.form },
      progress: host.progress,
      warn: host.warn,
      onCompiled: (compiled) => {
        host.note(memoryText(compiled));
      },
    });
    const seconds = (performance.now() - started) / 1000;
    const { plan, compiled, computed, bytes: sizes, verification, bench, report } = built;
    const { ok, checks, fidelity } = verification;
    const { nodes, macs } = compiled;
    const [failed] = checks.filter((check) => !check.ok);
    const worst = Math.max(...checks.map(({ relL2 }) => relL2));
    return {
      json: {
        artifact: output,
        plan,
        compile: { ...compileFigures(compiled, computed), bytes: sizes },
        verify: { ok, checks, fidelity },
        bench,
        report,
        seconds,
      },
      text: [
        `artifact  ${output}: ${bytes(sizes.model)} model, ${bytes(sizes.data)} weights, ${nodes.emitted} nodes`,
        `plan      ${Object.entries(plan.computed)
          .map(([kind, n]) => `${kind} ${n}`)
          .join(", ")} of ${plan.steps} steps computed`,
        `compute   ${count(macs.emitted)} of ${count(macs.uncached)} MACs: at most ${macs.bound.toFixed(2)}× faster`,
        `memory    ${memoryText(compiled)}`,
        ...limitText(computed).map((text) => `limit     ${text}`),
        `devices   ${cudaText(compiled)}`,
        ...(bench
          ? [
              `measured  ${bench.artifact.medianMs.toFixed(0)} ms a run; uncached ${bench.uncached.medianMs.toFixed(0)} ms (${bench.speedup.measured.toFixed(2)}×), step loop ${bench.loop.medianMs.toFixed(0)} ms (${(bench.loop.medianMs / bench.artifact.medianMs).toFixed(2)}×)`,
            ]
          : []),
        failed
          ? `FAILED    ${failed.name}: relative L2 ${failed.relL2.toExponential(1)}, limit ${failed.limit.toExponential(0)}`
          : `verified  artifact = plan-aware loop (relative L2 ${worst.toExponential(1)})`,
        `fidelity  relative L2 ${fidelity.relL2.toFixed(4)}, PSNR ${fidelity.psnr.toFixed(1)} dB against the uncached result`,
        `report    ${report}`,
        `built in  ${seconds.toFixed(1)} s`,
      ].join("\n"),
      exitCode: ok ? 0 : 1,
    };
  },
} satisfies Command;
