/** `sampler SCHEDULER --steps N`: the coefficient table. */
import { samplerTable, unknownKeys, type LearnedVariance } from "../../schedules/index.js";
import { readJson } from "../files.js";
import { table } from "../text.js";
import type { Command } from "./index.js";

export default {
  name: "sampler",
  summary: "print the coefficient table of a scheduler",
  argument: "SCHEDULER",
  options: ["steps"],
  run(argument, { steps = 50 }, host) {
    const config = readJson(argument);
    for (const key of unknownKeys(config)) host.warn(`${argument}: '${key}' is not known here and has no effect`);
    const { name, prediction, initialScale, rows } = samplerTable(config, { steps, nonlinear: true });
    const number = (value: number): string => String(Number(value.toPrecision(7)));
    const terms = (sum: readonly { readonly step: number; readonly weight: number }[], letter: string): string[] =>
      sum.map(({ step, weight }) => `${number(weight)}·${letter}${step}`);
    const spread = (learned: LearnedVariance | undefined): string =>
      learned ? `·exp(½(f·${number(learned.max)} + (1−f)·${number(learned.min)}))` : "";
    const lines = rows.map(({ timestep, inputScale, m, next }, k) => [
      String(k),
      number(timestep),
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
      table([["step", "timestep", "input scale", "m", "next x"], ...lines]),
    ].join("\n");
    return Promise.resolve({ json: { name, prediction, initialScale, rows }, text });
  },
} satisfies Command;
