/** A sampling run made of numbers, to plan with: two branches (or one, of both, where it is cut at the stack), latents of a few numbers, and nothing of the product's loop. */
import { type Attempt, type PolicyInput, type Runs, type Schedule, type ScheduleCell, type Term, termsOf, type SteppedRun } from "../../schedules/index.js"; // prettier-ignore
import { generator, inputOf, siteOf, statisticsOfValues } from "./policy-input.js";

const SITES = ["attn-0", "mlp-0"];

/**
 * What a policy chooses from, for x_{k+1} = x_k + f_attn + f_mlp, where f = amplitude · sin(rate · k + phase) − 0.02 · x with numbers of
 * their own for every sample and element.
 */
export async function toyInput(steps: number, samples: readonly number[], size = 6): Promise<PolicyInput & { readonly runs: Runs }> {
  let evaluations = 0;
  const exactly = new Map<number, readonly Float32Array[]>();
  const noise = (sample: number): Float32Array => Float32Array.from({ length: size }, generator(sample + 1));
  const branch = (sample: number, site: number, k: number, x: Float32Array): readonly number[] => {
    const random = generator(1000 * sample + site);
    return Array.from(x, (value) => (0.5 + random()) * Math.sin((0.1 + 0.3 * random()) * k + 6 * random()) - 0.02 * value);
  };
  const begin = (
    sample: number,
    schedule?: Schedule,
  ): SteppedRun & { readonly latents: Float32Array[]; readonly values: (readonly number[])[][] } => {
    const latents = [noise(sample)];
    const isWhole = schedule?.cut === "stack";
    const sites = isWhole ? ["*"] : SITES;
    const values: (readonly number[])[][] = sites.map(() => []);
    const computed = (i: number, k: number, x: Float32Array): readonly number[] => {
      if (!isWhole) return branch(sample, i, k, x);
      const [first = [], second = []] = SITES.map((_, site) => branch(sample, site, k, x));
      return first.map((value, j) => value + (second[j] ?? NaN));
    };
    const attempt = (terms?: ReadonlyMap<string, readonly Term[]>): Promise<Attempt> => {
      evaluations++;
      const k = latents.length - 1;
      const x = latents[k] ?? new Float32Array();
      const now = sites.map((site, i) => {
        const row = schedule?.cells.get(site) ?? schedule?.cells.get(site.replace("-0", "")) ?? [];
        const cell = row[k] ?? 1;
        if (cell === 1) return computed(i, k, x);
        const sum = terms?.get(site) ?? terms?.get(site.replace("-0", "")) ?? termsIn(cell, row, k);
        return Array.from(x, (_, j) => sum.reduce((total, { step, weight }) => total + weight * (values[i]?.[step]?.[j] ?? NaN), 0));
      });
      const latent = x.map((value, j) => now.reduce((sum, own) => sum + (own[j] ?? NaN), value));
      const advance = (): Promise<void> => {
        for (const [i, value] of now.entries()) values[i]?.push(value);
        latents.push(latent);
        return Promise.resolve();
      };
      const exact = exactly.get(sample)?.[k + 1];
      return Promise.resolve({ latent, deviation: () => Float64Array.from(latent, (value, j) => value - (exact?.[j] ?? NaN)), advance });
    };
    return { attempt, latents, values };
  };
  const whole = async (sample: number, schedule?: Schedule, until = steps): Promise<ReturnType<typeof begin>> => {
    const run = begin(sample, schedule);
    for (let k = 0; k < until; k++) await (await run.attempt()).advance();
    return run;
  };
  const traced: (readonly (readonly number[])[])[][] = SITES.map(() => []);
  for (const sample of samples) {
    const { latents, values } = await whole(sample);
    exactly.set(sample, latents);
    for (const [i, own] of values.entries()) traced[i]?.push(own);
  }
  evaluations = 0;
  const runs = {
    samples,
    evaluations: () => evaluations,
    seconds: () => Promise.resolve(1),
    fits: (cut: string) => Promise.resolve(cut === "stack"),
    run: async (sample: number, schedule?: Schedule) => (await whole(sample, schedule)).latents.at(-1) ?? new Float32Array(),
    latents: async (sample: number) => (await whole(sample)).latents,
    walk: (sample: number, schedule: Schedule, from = 0) => whole(sample, schedule, from),
  };
  const sites = SITES.map((site, i) => siteOf(site, 1 / SITES.length, statisticsOfValues(traced[i] ?? [], steps)));
  return { ...inputOf(steps, sites), runs };
}

function termsIn(cell: Exclude<ScheduleCell, 1>, row: readonly ScheduleCell[], step: number): readonly Term[] {
  return termsOf(cell, row.lastIndexOf(1, step));
}
