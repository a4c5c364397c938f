/** Which of several plans is taken: the one with the least error of the final latent on samples of the calibration. */
import { relativeL2 } from "../fidelity.js";
import { at } from "../levels.js";
import type { Schedule, ScheduleCell } from "../plan.js";
import type { Runs } from "../policy.js";
import { halfWidth, mean } from "../statistics.js";

/** A plan that may be taken. */
export interface Entry {
  readonly name: string;
  readonly schedule: Schedule;
  /** Its row where all branches have the same. */
  readonly row?: readonly ScheduleCell[] | undefined;
  /** Whether the literature has it: the best of these stays to the end, so that nothing is taken that is worse. */
  readonly isPublished: boolean;
}

/** The relative L2 error of a sample's final latent under a schedule. */
export async function errorOf(runs: Runs, sample: number, schedule: Schedule): Promise<number> {
  const exact = await runs.latents(sample);
  return relativeL2(await runs.run(sample, schedule), at(exact, exact.length - 1));
}

/** Relative L2 errors of the final latent, by number of the sample. */
export type Errors = ReadonlyMap<number, number>;

/** Plans that stay to the end, the best published one apart. */
const FINALISTS = 2;

/** The errors of plans, measured once. */
export class Trials {
  private readonly errors = new Map<Entry, Map<number, number>>();

  /** `told` is called after every run. */
  constructor(
    private readonly runs: Runs,
    private readonly told: () => void = () => undefined,
  ) {}

  /** On each of the samples. */
  async measure(entry: Entry, samples: readonly number[]): Promise<Errors> {
    const known = this.errors.get(entry) ?? new Map<number, number>();
    this.errors.set(entry, known);
    for (const sample of samples) {
      if (known.has(sample)) continue;
      known.set(sample, await errorOf(this.runs, sample, entry.schedule));
      this.told();
    }
    return known;
  }

  /**
   * The entries by the geometric mean of their errors on the samples, the best first: a few samples with errors many times those of
   * the others would decide alone by the arithmetic one.
   */
  async ranked(entries: readonly Entry[], samples: readonly number[]): Promise<readonly Entry[]> {
    const means = new Map<Entry, number>();
    for (const entry of entries) {
      const errors = await this.measure(entry, samples);
      means.set(entry, mean(samples.map((sample) => Math.log(errors.get(sample) ?? NaN))));
    }
    return [...entries].sort((a, b) => (means.get(a) ?? NaN) - (means.get(b) ?? NaN));
  }

  /** Those that are left, the best first, when each of the samples from the second on has cut their number to a third. */
  async finalists(entries: readonly Entry[], samples: readonly number[]): Promise<readonly Entry[]> {
    let left = entries;
    for (let count = Math.min(2, samples.length); count <= samples.length; count++) {
      const ranked = await this.ranked(left, samples.slice(0, count));
      const most = Math.max(FINALISTS, Math.ceil(ranked.length / 3));
      const published = ranked.find(({ isPublished }) => isPublished);
      left = ranked.filter((entry, i) => i < most || entry === published);
      if (most === FINALISTS) break;
    }
    return left;
  }
}

/** The mean, and the half-width of its 95 % confidence interval; no interval for one sample. */
export function meanWithin(errors: readonly number[]): { readonly error: number; readonly interval?: number | undefined } {
  return { error: mean(errors), interval: halfWidth(errors) };
}
