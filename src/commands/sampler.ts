/** `sampler SCHEDULER --steps N`: the coefficient table. */
import { samplerTable, unknownKeys } from "../../schedules/index.js";
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
    const { name, prediction, initialScale, rows } = samplerTable(config, { steps });
    const number = (value: number): string => String(Number(value.toPrecision(7)));
    const terms = (sum: readonly { readonly step: number; readonly weight: number }[], letter: string): string[] =>
      sum.map(({ step, weight }) => `${number(weight)}·${letter}${step}`);
    const lines = rows.map((row, k) => [
      String(k),
      number(row.timestep),
      number(row.inputScale),
      `${number(row.m.x)}·x + ${number(row.m.out)}·out`,
      [...terms(row.next.x, "x"), ...terms(row.next.m, "m"), ...(row.next.noise === 0 ? [] : [`${number(row.next.noise)}·z`])].join(" + "),
    ]);
    const text = [
      `${name}, ${prediction}, initial scale ${number(initialScale)}`,
      table([["step", "timestep", "input scale", "m", "next x"], ...lines]),
    ].join("\n");
    return Promise.resolve({ json: { name, prediction, initialScale, rows }, text });
  },
} satisfies Command;
