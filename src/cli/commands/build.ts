/** `build MODEL -o DIR`: the main job, from a model to a verified artifact with a report. */
import { build, buildSet, type Built } from "../../build.js";
import { variantsOf } from "../../job/index.js";
import type { Compiled } from "../../compile/index.js";
import { formatQuantity, formatRatio } from "../../words/index.js";
import { MODEL_OPTIONS, policyOptionsOf, recipeOverrides, runtimeOptions, sampleOptions } from "../options.js";
import { compileFigures, cudaText, joinedText, limitText, memoryText } from "../compile-text.js";
import type { Command } from "../command.js";

export default {
  name: "build",
  summary: "calibrate, plan, compile, verify and report: the main job",
  argument: "MODEL",
  options: [
    ...MODEL_OPTIONS,
    "cacheMemory",
    "device",
    "form",
    "input",
    "noise",
    "policy",
    "policyOption",
    "runs",
    "samples",
    "seed",
    "segments",
    "stopAt",
    "pixels",
    "latent",
    "tiers",
    "variant",
    "output",
    "force",
  ],
  required: ["output"],
  plans: true,
  async run(argument, options, host) {
    const { output = "", force, tiers, variant: variants, samples, runs, policy } = options;
    const policyOptions = policyOptionsOf(options);
    const started = performance.now();
    const settings = {
      ...runtimeOptions(options, host.signal),
      overrides: recipeOverrides(options),
      ...sampleOptions(options),
      ...{
        output,
        force,
        policy,
        policyOptions,
        samples,
        runs,
        cacheMemory: options.cacheMemory,
        form: options.form,
        segments: options.segments,
      },
      progress: host.progress,
      warn: host.warn,
      onCompiled: (compiled: Compiled) => {
        host.note(memoryText(compiled));
      },
    };
    const secondsSince = (): number => (performance.now() - started) / 1000;
    const hasVariants = variantsOf(argument, settings, variants).length > 0;
    if (!tiers && !hasVariants) {
      const built = await build(argument, settings);
      const seconds = secondsSince();
      return {
        json: { ...figures(built), seconds },
        text: [...lines(built), `built in  ${seconds.toFixed(1)} s`].join("\n"),
        exitCode: built.verification.ok ? 0 : 1,
      };
    }
    const { artifacts, dataBytes: data, report } = await buildSet(argument, settings, { variants, tiers });
    const seconds = secondsSince();
    const all = [...artifacts.values()];
    const model = all.reduce((sum, { bytes }) => sum + bytes.model, 0);
    return {
      json: {
        [hasVariants ? "variants" : "tiers"]: Object.fromEntries([...artifacts].map(([name, built]) => [name, figures(built)])),
        ...{ bytes: { model, data }, report, seconds },
      },
      text: [
        ...all.map((built) => `${lines(built).join("\n")}\n`),
        `weights   ${formatQuantity(data, "B")} for all; models ${formatQuantity(model, "B")}`,
        `compared  ${report}`,
        `built in  ${seconds.toFixed(1)} s`,
      ].join("\n"),
      exitCode: all.every(({ verification }) => verification.ok) ? 0 : 1,
    };
  },
} satisfies Command;

/** The result as JSON. */
function figures({ artifact, plan, compiled, computed, bytes: sizes, sharesWeights, verification, bench, report }: Built): object {
  const { ok, checks, fidelity } = verification;
  return {
    artifact,
    plan,
    compile: { ...compileFigures(compiled, computed), bytes: sizes, sharesWeights },
    verify: { ok, checks, fidelity },
    bench,
    report,
  };
}

/** The result as text. */
function lines({ artifact, plan, compiled, computed, bytes: sizes, sharesWeights, verification, bench, report }: Built): readonly string[] {
  const { checks, fidelity } = verification;
  const { nodes, macs } = compiled;
  const [failed] = checks.filter((check) => !check.ok);
  const worst = Math.max(...checks.map(({ relL2 }) => relL2));
  const notes = checks.flatMap(({ note }) => note ?? []);
  return [
    `artifact  ${artifact}: ${formatQuantity(sizes.model, "B")} model, ${formatQuantity(sizes.data, "B")} weights${sharesWeights ? " (shared)" : ""}, ${nodes.emitted} nodes`,
    ...joinedText(compiled).map((text) => `networks  ${text}`),
    `plan      ${Object.entries(plan.computed)
      .map(([kind, n]) => `${kind} ${n}`)
      .join(", ")} of ${plan.steps} steps computed`,
    `compute   ${formatQuantity(macs.emitted, "MAC")} of ${formatQuantity(macs.uncached, "MAC")}: at most ${formatRatio(macs.bound)} faster`,
    `memory    ${memoryText(compiled)}`,
    ...limitText(computed).map((text) => `limit     ${text}`),
    `devices   ${cudaText(compiled)}`,
    ...(bench
      ? [
          `measured  ${bench.artifact.medianMs.toFixed(0)} ms a run; uncached ${bench.uncached.medianMs.toFixed(0)} ms (${bench.speedup.measured.toFixed(2)}×), step loop ${bench.loop.medianMs.toFixed(0)} ms (${(bench.loop.medianMs / bench.artifact.medianMs).toFixed(2)}×)`,
        ]
      : []),
    failed
      ? `FAILED    ${failed.name}: ${failed.problem ?? `relative L2 ${failed.relL2.toExponential(1)}, limit ${failed.limit.toExponential(0)}`}`
      : `verified  artifact = plan-aware loop (relative L2 ${worst.toExponential(1)}${notes.map((note) => `; ${note}`).join("")})`,
    `fidelity  relative L2 ${fidelity.relL2.toFixed(4)}, PSNR ${fidelity.psnr.toFixed(1)} dB against the uncached result`,
    `report    ${report}`,
  ];
}
