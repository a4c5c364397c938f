/** `sampler SCHEDULER --steps N`: the coefficient table, and a picture of it. */
import { z } from "zod";
import { badOption } from "../../../schedules/diagnostics.js";
import { type LearnedVariance, samplerTable, unknownKeys } from "../../../schedules/index.js";
import { loadExtensions } from "../../job/index.js";
import { prepareFile, readJson } from "../../files/index.js";
import { samplerPlot, writeDrawing } from "../../report/index.js";
import { table as textTable } from "../../words/index.js";
import type { Command } from "../command.js";

/** Configurations of schedulers that use mu. Others accept it, as pipelines pass it to all. */
const dynamic = z.looseObject({ use_dynamic_shifting: z.literal(true) });

export default {
  name: "sampler",
  summary: "print the coefficient table of a scheduler",
  argument: "SCHEDULER",
  options: ["eta", "extension", "force", "mu", "plot", "sigmas", "steps", "timesteps"],
  async run(argument, { eta, extension = [], force = false, mu, plot, sigmas, steps = sigmas?.length ?? 50, timesteps }, host) {
    if (plot !== undefined) prepareFile(plot, force);
    const config = readJson(argument);
    const { samplers } = await loadExtensions(extension);
    for (const key of unknownKeys(config, samplers)) host.warn(`${argument}: '${key}' is not known here and has no effect`);
    const table = samplerTable(config, { steps, sigmas, timesteps, mu, eta, nonlinear: true }, samplers);
    if (mu !== undefined && !dynamic.safeParse(config).success)
      throw badOption("--mu", 'has no effect here, as the configuration does not have "use_dynamic_shifting": true');
    if (plot !== undefined) await writeDrawing(plot, samplerPlot(table), force);
    const { name, prediction, initialScale, rows } = table;
    const number = (value: number): string => String(Number(value.toPrecision(7)));
    const terms = (sum: readonly { readonly step: number; readonly weight: number }[], letter: string): string[] =>
      sum.map(({ step, weight }) => `${number(weight)}·${letter}${step}`);
    const spread = (learned: LearnedVariance | undefined): string =>
      learned ? `·exp(½(f·${number(learned.max)} + (1−f)·${number(learned.min)}))` : "";
    const hasSigmas = rows.some(({ sigma }) => sigma !== undefined);
    const lines = rows.map(({ timestep, sigma, inputScale, m, next }, k) => [
      String(k),
      number(timestep),
      ...(hasSigmas ? [sigma === undefined ? "" : number(sigma)] : []),
      number(inputScale),
      `${number(m.x)}·x + ${number(m.out)}·out${m.clip === undefined ? "" : `, within ±${number(m.clip)}`}`,
      [
        ...terms(next.x, "x"),
        ...terms(next.m, "m"),
        ...terms(next.out ?? [], "out"),
        ...(next.noise === 0 ? [] : [`${number(next.noise)}${spread(next.learned)}·z`]),
      ].join(" + "),
    ]);
    const text = [
      `${name}, ${prediction}, initial scale ${number(initialScale)}`,
      textTable([["step", "timestep", ...(hasSigmas ? ["sigma"] : []), "input scale", "m", "next x"], ...lines]),
    ].join("\n");
    return { json: { name, prediction, initialScale, rows }, text };
  },
} satisfies Command;
