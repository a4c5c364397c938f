/** Sampler tables against trajectories recorded from diffusers: the rows, replayed or emitted as a graph, must give the recorded latents. */
import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { Builder } from "../ir/build.js";
import { constant, inputValue, type Model, type Value } from "../ir/graph.js";
import { tensorNumbers, tensorOf } from "../ir/tensor.js";
import { RUN_PASSES } from "../passes/index.js";
import { runPasses } from "../passes/pass.js";
import { type SamplerOptions, samplers, samplerTable, type SamplerTable, type Term, unknownKeys } from "../schedules/index.js";
import { Session } from "../src/runtime/session.js";
import { codeOf, thrownBy } from "./support/thrown.js";
import { BARE, runOver } from "./support/runs.js";

const folder = new URL("fixtures/samplers/", import.meta.url);
const vector = z.array(z.number().nullable());
const caseSchema = z.object({
  class: z.string(),
  scheduler_config: z.record(z.string(), z.unknown()),
  num_inference_steps: z.int(),
  set_timesteps: z.object({
    mu: z.number().optional(),
    sigmas: z.array(z.number()).optional(),
    timesteps: z.array(z.number()).optional(),
  }),
  step_args: z.object({ eta: z.number().optional() }),
  refuse: z.string().nullable(),
  timesteps: z.array(z.number()),
  timesteps_f64: z.array(z.number()).optional(),
  /** The library's, in float32; the last is where the run ends. */
  sigmas: z.array(z.number()).optional(),
  model: z.object({
    a: z.array(z.number()),
    b: z.array(z.number()),
    v: z.array(z.number()),
    extra_channels: z.array(z.number()).optional(),
  }),
  initial: z.object({ unit: z.array(z.number()), scale_f64: z.number() }),
  noise_draws: z.array(z.object({ evaluation: z.int(), values: z.array(z.number()), weight: z.number().nullable().optional() })),
  latents_f64: z.array(vector),
});
type Case = z.infer<typeof caseSchema>;

const cases = readdirSync(folder).map((file) => ({
  file,
  ...caseSchema.parse(JSON.parse(readFileSync(new URL(file, folder), "utf8"))),
}));

function optionsOf({ num_inference_steps: steps, set_timesteps, step_args }: Case): SamplerOptions {
  return { steps, ...set_timesteps, ...step_args };
}

/** Where a sampler draws twice in an evaluation, the last draw counts. */
function drawAt({ noise_draws }: Case, evaluation: number): Case["noise_draws"][number] | undefined {
  return noise_draws.findLast((draw) => draw.evaluation === evaluation);
}

/** The latents after every row, with the case's linear model in place of a network. */
function replay(table: SamplerTable, recorded: Case): number[][] {
  const { model, initial } = recorded;
  const latents = [initial.unit.map((value) => value * table.initialScale)];
  const outs: number[][] = [];
  const samples: number[][] = [];
  for (const [k, { inputScale, m, next }] of table.rows.entries()) {
    const x = latents[k] ?? [];
    const out = x.map((value, i) => (model.a[k] ?? NaN) * inputScale * value + (model.b[k] ?? NaN) * (model.v[i] ?? NaN));
    const limit = m.clip ?? Infinity;
    outs.push(out);
    samples.push(x.map((value, i) => Math.min(limit, Math.max(-limit, m.x * value + m.out * (out[i] ?? NaN)))));
    const noise = drawAt(recorded, k);
    latents.push(
      x.map((_, i) => {
        const sum = (terms: readonly Term[] | undefined, values: number[][]): number =>
          (terms ?? []).reduce((total, { step, weight }) => total + weight * (values[step]?.[i] ?? NaN), 0);
        const share = ((model.extra_channels?.[i] ?? NaN) + 1) / 2;
        const std = next.learned ? Math.exp((share * next.learned.max + (1 - share) * next.learned.min) / 2) : 1;
        const drawn = next.noise === 0 ? 0 : next.noise * std * (noise?.values[i] ?? NaN);
        return sum(next.x, latents) + sum(next.m, samples) + sum(next.out, outs) + drawn;
      }),
    );
  }
  return latents.slice(1);
}

function expectRecorded(table: SamplerTable, recorded: Case): void {
  const times = recorded.timesteps_f64 ?? recorded.timesteps;
  expect(table.rows).toHaveLength(times.length);
  // Fractional times were recorded in float32; a whole time that is wrong is so by 1.
  for (const [k, time] of times.entries())
    expect(Math.abs((table.rows[k]?.timestep ?? NaN) - time)).toBeLessThan(1e-6 * Math.max(1, Math.abs(time)));
  // The library works in float32, where the smallest trained sigma, √(1/ᾱ − 1), is what cancellation leaves.
  for (const [k, sigma] of recorded.sigmas?.slice(0, -1).entries() ?? [])
    expect(Math.abs((table.rows[k]?.sigma ?? NaN) - sigma) / (sigma || 1)).toBeLessThan(5e-4);
  expect(table.initialScale / recorded.initial.scale_f64).toBeCloseTo(1, 12);
  const latents = replay(table, recorded);
  expect(latents).toHaveLength(recorded.latents_f64.length);
  for (const [k, want] of recorded.latents_f64.entries()) {
    const size = Math.max(...want.map((value) => Math.abs(value ?? NaN)));
    for (const [i, value] of want.entries()) expect(Math.abs((latents[k]?.[i] ?? NaN) - (value ?? NaN)) / size).toBeLessThan(1e-9);
  }
}

/** The case's linear model as one step: a[t] · x + b[t] · v, told as time which evaluation it is. */
function stepOf({ model: { a, b, v, extra_channels: extra } }: Case): Model {
  const build = new Builder();
  const latent = { elem: "float", shape: [1, v.length] } as const;
  const [x, t] = [inputValue("x", latent), inputValue("t", { elem: "int64", shape: [1] })];
  const list = (name: string, values: readonly number[]): Value => constant(name, tensorOf("float", [values.length], values));
  const row = (name: string, values: readonly number[]): Value => constant(name, tensorOf("float", [1, values.length], values));
  const at = (name: string, values: readonly number[]): Value =>
    build.op("Gather", [list(name, values), t], `${name}_t`, { elem: "float", shape: [1] });
  const products = [build.op("Mul", [x, at("a", a)], "ax", latent), build.op("Mul", [row("v", v), at("b", b)], "bv", latent)];
  const prediction = build.op("Add", products, "prediction", latent);
  const value = extra ? build.concat([prediction, row("extra", extra)], 1, "out") : prediction;
  return {
    graph: { name: "linear", inputs: [x, t], outputs: [{ name: "out", value }], nodes: build.nodes, marks: [] },
    opsets: new Map([["", 20]]),
    irVersion: 10,
    metadata: new Map(),
    dit: {
      recogniser: "",
      latent: "x",
      timestep: "t",
      conditions: [],
      prediction: "out",
      branches: [],
      constant: [],
      guesses: [],
      warnings: [],
    },
  };
}

/** The last latent by the graph that is emitted for the table. */
async function emitted(table: SamplerTable, recorded: Case): Promise<number[]> {
  const { unit } = recorded.initial;
  const size = unit.length;
  const counted = { ...table, rows: table.rows.map((row, k) => ({ ...row, timestep: k })) };
  const step = stepOf(recorded);
  const prediction = { channels: recorded.model.extra_channels && ([0, size] as const), channelAxis: 1, sign: 1 } as const;
  const model = await runPasses(step, RUN_PASSES, { ...BARE, run: runOver(step, counted, { prediction }) });
  const draws = table.rows.flatMap(({ next }, k) => (next.noise === 0 ? [] : (drawAt(recorded, k)?.values ?? [])));
  const feeds = new Map([["x", tensorOf("float", [1, size], unit)]]);
  if (draws.length > 0) feeds.set("noise", tensorOf("float", [draws.length / size, 1, size], draws));
  const session = await Session.open(model, { optimise: "disabled", threads: 1 });
  try {
    const latent = (await session.run(feeds)).get("latent");
    return latent ? tensorNumbers(latent) : [];
  } finally {
    await session.close();
  }
}

async function expectEmitted(table: SamplerTable, recorded: Case): Promise<void> {
  const latent = await emitted(table, recorded);
  const want = recorded.latents_f64.at(-1) ?? [];
  const size = Math.max(...want.map((value) => Math.abs(value ?? NaN)));
  expect(latent).toHaveLength(want.length);
  for (const [i, value] of want.entries()) expect(Math.abs((latent[i] ?? NaN) - (value ?? NaN)) / size).toBeLessThan(1e-5);
}

describe("recorded trajectories", () => {
  it.each(cases.filter(({ refuse }) => refuse === null))("$file", async (recorded) => {
    const table = samplerTable(recorded.scheduler_config, optionsOf(recorded));
    expectRecorded(table, recorded);
    await expectEmitted(table, recorded);
    for (const { evaluation, weight } of recorded.noise_draws)
      if (typeof weight === "number") expect(table.rows[evaluation]?.next.noise).toBeCloseTo(weight, 12);
  });

  it.each(cases.filter(({ refuse }) => refuse !== null))("$file is refused", (recorded) => {
    expect(codeOf(() => samplerTable(recorded.scheduler_config, optionsOf(recorded)))).toBe("UNSUPPORTED_SCHEDULER");
  });

  it.each(cases.filter(({ refuse }) => refuse?.match(/^(clip_sample|variance_type)/)))("$file is taken as nodes", async (recorded) => {
    const table = samplerTable(recorded.scheduler_config, { ...optionsOf(recorded), nonlinear: true });
    expectRecorded(table, recorded);
    await expectEmitted(table, recorded);
  });

  it("notices a wrong coefficient", () => {
    const recorded = cases.find(({ file }) => file === "ddim-dit-50.json");
    if (!recorded) throw new Error("the case is missing");
    const wrong = samplerTable({ ...recorded.scheduler_config, beta_end: 0.0200001 }, optionsOf(recorded));
    const last = replay(wrong, recorded).at(-1)?.[0] ?? NaN;
    const want = recorded.latents_f64.at(-1)?.[0] ?? NaN;
    expect(Math.abs(last - want) / Math.abs(want)).toBeGreaterThan(1e-9);
  });
});

it("takes the class that alone knows all keys where none is named", () => {
  const config = { solver_order: 3, use_lu_lambdas: true };
  expect(samplerTable(config, { steps: 7 })).toEqual(samplerTable({ ...config, _class_name: "DPMSolverMultistepScheduler" }, { steps: 7 }));
});

const ddim = { _class_name: "DDIMScheduler", clip_sample: false };
const lcm = { _class_name: "LCMScheduler" };
const flow = { _class_name: "FlowMatchEulerDiscreteScheduler" };
const dpm = { _class_name: "DPMSolverMultistepScheduler" };
const unipc = { _class_name: "UniPCMultistepScheduler" };

describe("configurations", () => {
  it.each([
    ["absent clip_sample, which means true", { _class_name: "DDIMScheduler" }, { steps: 20 }, "UNSUPPORTED_SCHEDULER"],
    [
      "coefficients that are not finite",
      { ...ddim, rescale_betas_zero_snr: true, timestep_spacing: "trailing" },
      { steps: 20 },
      "UNSUPPORTED_SCHEDULER",
    ],
    [
      "a repeated last sigma under heun",
      { ...dpm, solver_type: "heun", use_karras_sigmas: true, final_sigmas_type: "sigma_min" },
      { steps: 20 },
      "UNSUPPORTED_SCHEDULER",
    ],
    ["a class nobody knows", { _class_name: "DDIMSheduler" }, { steps: 20 }, "UNKNOWN_SCHEDULER"],
    ["no class, and keys that several have", { beta_schedule: "linear" }, { steps: 20 }, "BAD_JSON_FIELD"],
    ["no class, and keys of none", { solver_order: 2, clip_sample: false }, { steps: 20 }, "BAD_JSON_FIELD"],
    ["no object", 3, { steps: 20 }, "BAD_JSON_FIELD"],
    ["a wrong value", { ...ddim, beta_schedule: "cubic" }, { steps: 20 }, "BAD_JSON_FIELD"],
    ["no steps", ddim, { steps: 0 }, "SAMPLER_OPTION"],
    ["half a step", ddim, { steps: 2.5 }, "SAMPLER_OPTION"],
    ["more steps than training times", ddim, { steps: 1001 }, "SAMPLER_OPTION"],
    ["sigmas for DDIM", ddim, { steps: 2, sigmas: [1, 0.5] }, "SAMPLER_OPTION"],
    ["a negative eta", ddim, { steps: 20, eta: -0.5 }, "SAMPLER_OPTION"],
    ["eta for DPM-Solver", dpm, { steps: 20, eta: 0.5 }, "SAMPLER_OPTION"],
    ["mu without dynamic shifting", dpm, { steps: 20, mu: 1 }, "SAMPLER_OPTION"],
    ["fewer timesteps than steps", dpm, { steps: 3, timesteps: [900, 500] }, "SAMPLER_OPTION"],
    ["timesteps beside Karras sigmas", { ...dpm, use_karras_sigmas: true }, { steps: 2, timesteps: [900, 500] }, "SAMPLER_OPTION"],
    ["two sigma grids", { ...dpm, use_karras_sigmas: true, use_beta_sigmas: true }, { steps: 20 }, "UNSUPPORTED_SCHEDULER"],
    ["trailing times that end at -1", { ...ddim, timestep_spacing: "trailing" }, { steps: 61 }, "DEGENERATE_TIMES"],
    ["trailing times of the right count that end at -1", { ...ddim, timestep_spacing: "trailing" }, { steps: 995 }, "DEGENERATE_TIMES"],
    ["leading times that are all 0", { ...dpm, timestep_spacing: "leading" }, { steps: 1000 }, "DEGENERATE_TIMES"],
    ["dynamic shifting without mu", { ...flow, use_dynamic_shifting: true }, { steps: 4 }, "SAMPLER_OPTION"],
    ["fewer sigmas than steps", flow, { steps: 3, sigmas: [1, 0.5] }, "SAMPLER_OPTION"],
    ["a terminal shift of one step", { ...flow, shift_terminal: 0.1 }, { steps: 1 }, "UNSUPPORTED_SCHEDULER"],
    [
      "two sigma grids of a flow",
      { ...flow, use_karras_sigmas: true, use_exponential_sigmas: true },
      { steps: 4 },
      "UNSUPPORTED_SCHEDULER",
    ],
    ["a latent that grows", { _class_name: "FlowMatchLCMScheduler", scale_factors: [1, 2] }, { steps: 3 }, "UNSUPPORTED_SCHEDULER"],
    ["more steps than were distilled", lcm, { steps: 51 }, "SAMPLER_OPTION"],
    ["more distilled steps than training times", { ...lcm, original_inference_steps: 1001 }, { steps: 4 }, "BAD_JSON_FIELD"],
    ["timesteps that do not fall", lcm, { steps: 2, timesteps: [500, 500] }, "SAMPLER_OPTION"],
    ["clipping in LCM", { ...lcm, clip_sample: true }, { steps: 4 }, "UNSUPPORTED_SCHEDULER"],
    ["more noise than there is", { _class_name: "TCDScheduler" }, { steps: 4, eta: 1.1 }, "SAMPLER_OPTION"],
    ["angles without the end", { _class_name: "SCMScheduler" }, { steps: 2, timesteps: [1.5, 1] }, "SAMPLER_OPTION"],
    ["betas of another number of steps", { _class_name: "IPNDMScheduler", trained_betas: [1, 0.5, 0] }, { steps: 3 }, "SAMPLER_OPTION"],
    ["a prediction that EDM lacks", { _class_name: "EDMEulerScheduler", prediction_type: "sample" }, { steps: 4 }, "UNSUPPORTED_SCHEDULER"],
    [
      "an EDM solver that is not defined",
      { _class_name: "EDMDPMSolverMultistepScheduler", algorithm_type: "sde-dpmsolver++", solver_order: 3 },
      { steps: 20 },
      "UNSUPPORTED_SCHEDULER",
    ],
    [
      "a cosine solver that is not defined",
      { _class_name: "CosineDPMSolverMultistepScheduler", solver_order: 3 },
      { steps: 20 },
      "UNSUPPORTED_SCHEDULER",
    ],
    ["more steps than CogVideoX has times", { _class_name: "CogVideoXDPMScheduler" }, { steps: 1001 }, "SAMPLER_OPTION"],
    ["UniPC's bh1 down to zero", { ...unipc, solver_type: "bh1" }, { steps: 9 }, "UNSUPPORTED_SCHEDULER"],
    ["full order down to zero", { ...unipc, lower_order_final: false }, { steps: 9 }, "UNSUPPORTED_SCHEDULER"],
    ["dynamic shifting without mu", { ...unipc, use_flow_sigmas: true, use_dynamic_shifting: true }, { steps: 9 }, "SAMPLER_OPTION"],
    ["sigmas without a flow", unipc, { steps: 2, sigmas: [1, 0.5] }, "SAMPLER_OPTION"],
    ["noise solvers down to zero", { ...dpm, algorithm_type: "dpmsolver" }, { steps: 9 }, "UNSUPPORTED_SCHEDULER"],
    [
      "an order that diffusers does not define",
      { ...dpm, algorithm_type: "sde-dpmsolver", solver_order: 3, final_sigmas_type: "sigma_min" },
      { steps: 9 },
      "UNSUPPORTED_SCHEDULER",
    ],
    ["too few steps for Runge–Kutta", { _class_name: "PNDMScheduler" }, { steps: 3 }, "SAMPLER_OPTION"],
    ["sigmas that rise", { _class_name: "FlowMatchEulerDiscreteScheduler" }, { steps: 2, sigmas: [0.1, 0.5] }, "SAMPLER_OPTION"],
    ["sigmas below 0", { _class_name: "FlowMatchEulerDiscreteScheduler" }, { steps: 2, sigmas: [-1, -2] }, "SAMPLER_OPTION"],
    ["no shift at all", { _class_name: "FlowMatchEulerDiscreteScheduler", shift: 0 }, { steps: 2 }, "BAD_JSON_FIELD"],
    ["a grid that no machine holds", { _class_name: "FlowMatchEulerDiscreteScheduler" }, { steps: 1e9 }, "SAMPLER_OPTION"],
    ["times that rise", { _class_name: "DDPMScheduler" }, { steps: 2, timesteps: [10, 20] }, "SAMPLER_OPTION"],
    ["a variance that is the model's", { _class_name: "DDPMScheduler", variance_type: "learned" }, { steps: 2 }, "UNSUPPORTED_SCHEDULER"],
    ["sigmas without their end", { _class_name: "EulerDiscreteScheduler" }, { steps: 2, sigmas: [9, 3] }, "SAMPLER_OPTION"],
    ["other steps than the respacing has", { _class_name: "SpacedDiffusion", timestep_respacing: "250" }, { steps: 50 }, "SAMPLER_OPTION"],
    [
      "a stride that does not exist",
      { _class_name: "SpacedDiffusion", timestep_respacing: "ddim600" },
      { steps: 600 },
      "UNSUPPORTED_SCHEDULER",
    ],
    ["a time after the last", { ...ddim, steps_offset: 1 }, { steps: 1000 }, "DEGENERATE_TIMES"],
  ])("refuses %s", (_, config, options, code) => {
    expect(codeOf(() => samplerTable(config, options))).toBe(code);
  });

  it("suggests the nearest class and lists all", () => {
    const error = thrownBy(() => samplerTable({ _class_name: "DDIMSheduler" }, { steps: 2 }));
    expect(error?.exitCode).toBe(3);
    expect(error?.message).toContain("DPMSolverMultistepScheduler");
    expect(error?.hint).toContain("'DDIMScheduler'");
  });

  it("takes unknown keys and lists them", () => {
    const config = { ...ddim, variance_type: "fixed_small", _use_default_values: [] };
    expect(samplerTable(config, { steps: 4 })).toEqual(samplerTable(ddim, { steps: 4 }));
    expect(unknownKeys(config)).toEqual(["variance_type"]);
  });

  it.each([-Infinity, "-Infinity"])("takes lambda_min_clipped %j", (lambda_min_clipped) => {
    expect(samplerTable({ ...dpm, lambda_min_clipped }, { steps: 20 })).toEqual(samplerTable(dpm, { steps: 20 }));
  });

  it("keeps no history in DDIM and leaves out terms of weight 0", () => {
    for (const [k, row] of samplerTable(ddim, { steps: 20 }).rows.entries()) {
      expect(row.m).toEqual({ x: 0, out: 1 });
      expect([...row.next.x, ...row.next.m].map(({ step }) => step)).toEqual([k, k]);
    }
    expect(samplerTable(dpm, { steps: 20 }).rows.at(-1)?.next.x).toEqual([]);
  });

  it("keeps to the library where it has clipping keys and does not clip", () => {
    for (const className of ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "TCDScheduler"]) {
      const config = { _class_name: className, prediction_type: "v_prediction" };
      const table = samplerTable({ ...config, clip_sample: true, thresholding: true }, { steps: 8 });
      expect(table).toEqual(samplerTable({ ...config, clip_sample: false }, { steps: 8 }));
    }
  });

  it("lets mu be where a flow does not shift by it", () => {
    expect(samplerTable(flow, { steps: 4, mu: 1.15 })).toEqual(samplerTable(flow, { steps: 4 }));
  });

  it("registers one sampler a file, each with a table of finite numbers at any sensible step count", () => {
    expect([...samplers.keys()]).toEqual(
      readdirSync(new URL("../schedules/samplers/", import.meta.url))
        .filter((file) => file !== "index.ts")
        .map((file) => file.replace(/\.ts$/, ""))
        .sort(),
    );
    for (const { className } of samplers.values()) {
      for (const steps of [1, 2, 3, 7, 14, 15, 50, 250]) {
        // Each key is of one class or two, and has no effect on the others.
        const linear = { clip_sample: false, clip_denoised: false, learn_sigma: false, skip_prk_steps: true };
        const counts = { num_train_timesteps: 1000, original_inference_steps: 250, timestep_respacing: String(steps) };
        const table = samplerTable({ _class_name: className, ...linear, ...counts }, { steps });
        expect(table.rows.length).toBeGreaterThanOrEqual(steps);
        expect(JSON.stringify(table)).not.toContain("null");
      }
    }
  });
});

it.each([...samplers.values()].map(({ className }) => className))("builds a thousand steps of %s in less than a second", (className) => {
  const orders = { solver_order: className.startsWith("Cosine") ? 2 : 3, predictor_order: 3, corrector_order: 4 };
  const config = {
    _class_name: className,
    ...orders,
    original_inference_steps: 1000,
    num_train_timesteps: 1000,
    timestep_spacing: "trailing",
    use_beta_sigmas: true,
  };
  const from = performance.now();
  samplerTable(config, { steps: 1000, nonlinear: true });
  expect(performance.now() - from).toBeLessThan(1000);
});

describe("a table given as it is", () => {
  const table = samplerTable(dpm, { steps: 4 });
  const json: unknown = JSON.parse(JSON.stringify(table));

  it("is taken", () => {
    expect(samplerTable(json, { steps: 4 })).toEqual(table);
    expect(unknownKeys(json)).toEqual([]);
  });

  it.each([
    ["another number of steps", json, { steps: 5 }, "SAMPLER_OPTION"],
    ["settings", json, { steps: 4, eta: 1 }, "SAMPLER_OPTION"],
    ["a missing field", { ...table, rows: [{ timestep: 3 }] }, { steps: 1 }, "BAD_JSON_FIELD"],
    ["an unknown field", { ...table, extra: 1 }, { steps: 4 }, "BAD_JSON_FIELD"],
    ["a number that is not finite", { ...table, initialScale: NaN }, { steps: 4 }, "BAD_JSON_FIELD"],
    ["a term from the future", { ...table, rows: [...table.rows].reverse() }, { steps: 4 }, "BAD_SAMPLER_TABLE"],
  ])("is refused with %s", (_, config, options, code) => {
    expect(codeOf(() => samplerTable(config, options))).toBe(code);
  });
});

/** Values of a configuration's key: mostly sensible ones, and the ends of what its schema lets through. */
function valuesOf(schema: unknown): fc.Arbitrary<unknown> {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) return valuesOf(schema.unwrap());
  if (schema instanceof z.ZodNullable) return fc.oneof(fc.constant(null), valuesOf(schema.unwrap()));
  if (schema instanceof z.ZodBoolean) return fc.boolean();
  if (schema instanceof z.ZodEnum) return fc.constantFrom(...schema.options);
  if (schema instanceof z.ZodLiteral) return fc.constantFrom(...schema.values);
  if (schema instanceof z.ZodUnion) return fc.oneof(...schema.options.map(valuesOf));
  if (schema instanceof z.ZodArray) return fc.array(valuesOf(schema.element), { minLength: 1, maxLength: 12 });
  const ends = [0, 1, -1, 2, 3, 10, 0.5, 0.02, 1e-3, 1e-12, 5e-324, 999, 1000, 1001, 1e5, 1e9, 1e39, 1e308, -1e308];
  return fc.oneof(fc.constantFrom(...ends), fc.nat(12), fc.double({ min: 0, max: 1, noNaN: true }));
}

describe("any configuration", () => {
  const numbersIn = (value: unknown): readonly number[] =>
    typeof value === "number" ? [value] : typeof value === "object" && value !== null ? Object.values(value).flatMap(numbersIn) : [];

  it.each([...samplers.values()].map((sampler) => [sampler.className, sampler] as const))(
    "of %s makes a table of finite numbers, or a diagnostic",
    (className, { config, takes }) => {
      const keys = Object.fromEntries(Object.entries(config.shape).map(([key, schema]) => [key, valuesOf(schema)]));
      const settings = fc.record(
        {
          sigmas: fc.array(fc.double({ min: 0, max: 100, noNaN: true }), { maxLength: 4 }),
          timesteps: fc.array(valuesOf(undefined), { maxLength: 4 }),
          mu: valuesOf(undefined),
          eta: valuesOf(undefined),
        },
        { requiredKeys: [] },
      );
      const steps = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constantFrom(50, 999, 1000));
      fc.assert(
        fc.property(
          fc.record(keys, { requiredKeys: [] }),
          fc.record({ given: settings, steps, start: fc.nat(1) }),
          (json, { given, steps, start }) => {
            const own = Object.fromEntries(Object.entries(given).filter(([key]) => takes.some((name) => name === key)));
            let table: SamplerTable | undefined;
            const code = codeOf(() => {
              table = samplerTable({ _class_name: className, ...json }, { ...own, steps, start, nonlinear: true });
            });
            expect([undefined, "BAD_JSON_FIELD", "SAMPLER_OPTION", "UNSUPPORTED_SCHEDULER", "DEGENERATE_TIMES"]).toContain(code);
            expect(numbersIn(table).every((number) => Number.isFinite(Math.fround(number)))).toBe(true);
          },
        ),
        { numRuns: 150, seed: 1 },
      );
    },
  );
});
