/** Uniform schedules: what is counted from where. */
import { describe, expect, it } from "vitest";
import { uniformSteps } from "../schedules/index.js";

const shown = (...args: Parameters<typeof uniformSteps>): string =>
  uniformSteps(...args)
    .map(Number)
    .join("");

describe("uniform schedules", () => {
  it.each([
    ["smoothcache", "11110010010011"],
    ["fora", "11101001001001"],
    ["taylorseer", "11100100100100"],
    ["ab-cache", "11110010010010"],
  ] as const)("%s, every third of 14 steps after a warm-up of 3", (phase, want) => {
    expect(shown(14, { interval: 3, warmup: 3, phase })).toBe(want);
  });
});
