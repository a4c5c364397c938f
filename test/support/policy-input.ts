/** What policies choose from, made up for tests. */
import {
  chooseSchedule,
  type ErrorBands,
  policies,
  type PolicyInput,
  type PolicySite,
  type Runs,
  type ScheduleCell,
  type SiteStatistics,
} from "../../schedules/index.js";
import { readTorchFile } from "../../src/files/torch-file.js";

/** What the named policy chooses. */
export async function choose(name: string, options: unknown, input: PolicyInput): ReturnType<typeof chooseSchedule> {
  const policy = policies.get(name);
  if (!policy) throw new Error(`there is no policy ${name}`);
  return chooseSchedule(policy, options, input);
}

/** The row that it chooses for a key, its terms left out. */
export async function rowOf(name: string, options: unknown, input: PolicyInput, key = "attn"): Promise<string> {
  return rowText((await choose(name, options, input)).schedule.cells.get(key));
}

/** A row as text, `100110`, with cells in full that are neither. */
export function rowText(row: readonly ScheduleCell[] = []): string {
  return row.map((cell) => JSON.stringify(cell)).join("");
}

/** A branch whose site tells its kind and block (`mlp-3`), in the only stream. */
export function siteOf(site: string, share: number, statistics?: SiteStatistics): PolicySite {
  const [, kind, block] = /^(attn|cross_attn|mlp)-(\d+)$/.exec(site) ?? [];
  if (kind !== "attn" && kind !== "cross_attn" && kind !== "mlp") throw new Error(`${site} is no site`);
  return { site, half: "cond", name: site, kind, block: Number(block), stream: "image", halves: ["cond", "uncond"], share, statistics };
}

export function inputOf(steps: number, sites: readonly PolicySite[]): PolicyInput {
  return {
    steps,
    cacheable: 1,
    timesteps: Array.from({ length: steps }, (_, k) => Math.round((1000 * (steps - 1 - k)) / steps) + 1),
    sites,
    progress: () => undefined,
    readJson: (file) => {
      throw new Error(`nothing is read here, not even ${file}`);
    },
    readTensors: readTorchFile,
  };
}

/** One branch; with bands, both kinds of error curves are these. */
export function single(steps: number, bands?: ErrorBands): PolicyInput {
  return inputOf(steps, [siteOf("attn-0", 1, bands && statisticsWith(steps, bands))]);
}

/** Statistics with these error curves; inner products as of values that never change. */
export function statisticsWith(steps: number, mean: ErrorBands, pooled = mean): SiteStatistics {
  const ones = new Array<number>(steps).fill(1);
  return { norm: ones, diff: pooled, ratio: [mean], gram: ones.map(() => ones), gain: ones };
}

/** Statistics of the rows of a matrix, as if each were what a branch returned at one step: written here a second time. */
export function statisticsOfValues(samples: readonly (readonly (readonly number[])[])[], lags = 8): SiteStatistics {
  const steps = samples[0]?.length ?? 0;
  const sum = (of: (values: readonly (readonly number[])[]) => number): number => samples.reduce((total, values) => total + of(values), 0);
  const at = (values: readonly (readonly number[])[], step: number): readonly number[] => values[step] ?? [];
  const l1 = (a: readonly number[], b?: readonly number[]): number => a.reduce((total, x, i) => total + Math.abs(x - (b?.[i] ?? 0)), 0);
  const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((total, x, i) => total + x * (b[i] ?? 0), 0);
  const rows = <T>(of: (step: number) => T): T[] => Array.from({ length: steps }, (_, step) => of(step));
  const band = <T>(count: number, of: (lag: number) => T): T[] => Array.from({ length: count }, (_, i) => of(i));
  const shortLags = Math.min(lags, steps - 1);
  return {
    norm: rows((s) => sum((v) => l1(at(v, s)))),
    diff: band(shortLags, (i) => rows((s) => (s > i ? sum((v) => l1(at(v, s), at(v, s - i - 1))) : 0))),
    ratio: samples.map((v) => band(shortLags, (i) => rows((s) => (s > i ? l1(at(v, s), at(v, s - i - 1)) / l1(at(v, s)) : 0)))),
    gram: band(steps, (lag) => rows((s) => (s >= lag ? sum((v) => dot(at(v, s), at(v, s - lag))) : 0))),
    gain: rows((s) => (s > 0 ? sum((v) => Math.sqrt(dot(at(v, s), at(v, s)) / dot(at(v, s - 1), at(v, s - 1)))) : 0)),
  };
}

/** A model of one branch and one number: the final latent is the sum of what each step computes or reuses, `values[step]`. */
export function summingRuns(values: readonly number[], samples: readonly number[] = [0]): Runs {
  return runsWith({
    samples,
    run(sample, schedule) {
      const [row = values.map((): ScheduleCell => 1)] = schedule?.cells.values() ?? [];
      const used = values.map((_, step) => values[row.lastIndexOf(1, step)] ?? NaN);
      return Promise.resolve(Float32Array.of(used.reduce((sum, value) => sum + value, 0) * (sample + 1)));
    },
  });
}

/** Runs of which a policy uses only these. */
export function runsWith(own: Pick<Runs, "samples" | "run">): Runs {
  const unexpected = (): Promise<never> => Promise.reject(new Error("the policy asks for nothing of the kind"));
  return { ...own, evaluations: () => 0, fits: unexpected, seconds: unexpected, latents: unexpected, walk: unexpected };
}

/** Uniform numbers in [0, 1) by a linear congruence (Numerical Recipes). */
export function generator(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
}

/** Noisy errors that grow with the lag, `[lag − 1][step]`. */
export function randomBands(steps: number, lags: number, random: () => number): number[][] {
  return Array.from({ length: lags }, (_, lag) =>
    Array.from({ length: steps }, (_, step) => (step > lag ? (lag + 1) * 0.1 * random() + 0.001 : NaN)),
  );
}
