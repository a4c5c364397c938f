/** The noise level of each row's latent, against what diffusers' own `scale_noise` and `add_noise` leave of sample and noise. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { levelsBehind, type SamplerTable, samplers, samplerTable, startLevel } from "../schedules/index.js";

const fixtures = new URL("fixtures/", import.meta.url);
const read = (path: string): unknown => JSON.parse(readFileSync(new URL(path, fixtures), "utf8"));
const recorded = z.record(z.string(), z.array(z.tuple([z.number(), z.number()]))).parse(read("levels/recorded.json"));
const caseSchema = z.object({
  class: z.string(),
  scheduler_config: z.record(z.string(), z.unknown()),
  num_inference_steps: z.int(),
  set_timesteps: z.object({ mu: z.number().optional(), sigmas: z.array(z.number()).optional(), timesteps: z.array(z.number()).optional() }),
  step_args: z.object({ eta: z.number().optional() }),
});

/** Where the library says another level than its own steps are at, and so than rows do. */
const OTHERWISE: Readonly<Record<string, string>> = {
  "flow-karras-inverted-9": "inverted sigmas are shares of signal, which scale_noise takes for shares of noise",
  "sasolver-1-3-flow-7": "add_noise knows no flow",
  "sasolver-noise-karras-7": "add_noise takes the level at the time, which is rounded",
};

/** Evaluations in the middle of a step, at whose times the library has the level of its end. */
function isBetween({ class: name }: z.output<typeof caseSchema>, k: number): boolean {
  return /^KDPM2|^DPMSolverSDE/.test(name) && k % 2 === 1;
}

describe("rows are at the level that the library brings an image to", () => {
  it.each(Object.keys(recorded).filter((name) => !(name in OTHERWISE)))("%s", (name) => {
    const recording = caseSchema.parse(read(`samplers/${name}.json`));
    const { scheduler_config, num_inference_steps: steps, set_timesteps, step_args } = recording;
    const { rows } = samplerTable(scheduler_config, { steps, ...set_timesteps, ...step_args, nonlinear: true });
    const levels = recorded[name] ?? [];
    expect(rows.length).toBe(levels.length);
    for (const [k, [signal, noise]] of levels.entries()) {
      if (isBetween(recording, k)) continue;
      // The library's grids are of floats.
      expect(Math.abs((rows[k]?.level?.signal ?? NaN) - signal), `signal of ${k}`).toBeLessThan(1e-4);
      expect(Math.abs((rows[k]?.level?.noise ?? NaN) - noise) / Math.max(1, noise), `noise of ${k}`).toBeLessThan(1e-4);
    }
  });
});

it("every class says the level of its rows, and that behind the last is the sample alone", () => {
  for (const { className } of samplers.values()) {
    const counts = { num_train_timesteps: 1000, timestep_respacing: "6", skip_prk_steps: true };
    const table: SamplerTable = samplerTable({ _class_name: className, ...counts }, { steps: 6, nonlinear: true });
    expect(startLevel(table), className).toBeDefined();
    const behind = levelsBehind(table);
    if (table.corrects) expect(behind).toBeUndefined();
    else expect(behind, className).toEqual([...table.rows.slice(1).map(({ level }) => level), { signal: 1, noise: 0 }]);
  }
});

it("a table that does not say all levels says none of them, and one that starts late begins at its own", () => {
  const table = samplerTable({ _class_name: "FlowMatchEulerDiscreteScheduler" }, { steps: 4 });
  const rows = table.rows.map((row, k) => (k === 2 ? { ...row, level: undefined } : row));
  expect(levelsBehind({ ...table, rows })).toBeUndefined();
  const late = samplerTable({ _class_name: "FlowMatchEulerDiscreteScheduler" }, { steps: 4, start: 2 });
  expect(startLevel(late)).toEqual(table.rows[2]?.level);
});
