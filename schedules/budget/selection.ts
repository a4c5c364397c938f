/** Selects between plans by the error of the final latent on calibration samples. */
import { entryAt } from "../../ir/entries.js";
import { relativeL2 } from "../fidelity.js";
import type { Schedule } from "../plan.js";
import type { Runs } from "../policy.js";
import type { Measured } from "../predicted.js";
import { halfWidth, mean, standardError } from "../planning/statistics.js";

/** A plan that takes part in a selection. */
export interface Entry {
  readonly name: string;
  readonly schedule: Schedule;
  /** Whether the plan is a published method. */
  readonly isPublished: boolean;
}

/** The relative L2 error of a sample's final latent under a schedule. */
export async function errorOf(runs: Runs, sample: number, schedule: Schedule): Promise<number> {
  const exact = await runs.latents(sample);
  return relativeL2(await runs.run(sample, schedule), entryAt(exact, exact.length - 1));
}

/** Relative L2 errors of the final latent, by sample number. */
export type Errors = ReadonlyMap<number, number>;

/** Measures the errors of plans, each plan and sample once. */
export class Trials {
  private readonly errors = new Map<Entry, Map<number, number>>();

  /** `onRun` is called after every run. */
  constructor(
    private readonly runs: Runs,
    private readonly onRun: () => void = () => undefined,
  ) {}

  /** The errors of a plan on at least these samples: runs those that are missing. */
  async measure(entry: Entry, samples: readonly number[]): Promise<Errors> {
    const known = this.errors.get(entry) ?? new Map<number, number>();
    this.errors.set(entry, known);
    for (const sample of samples) {
      if (known.has(sample)) continue;
      known.set(sample, await errorOf(this.runs, sample, entry.schedule));
      this.onRun();
    }
    return known;
  }

  /**
   * All measured plans, those with the most samples first, with their errors on the given samples. A plan that did not run on all of
   * these has all the errors that there are.
   */
  measured(samples: readonly number[]): readonly (readonly [Entry, readonly number[]])[] {
    const of = (errors: Errors): readonly number[] =>
      samples.every((sample) => errors.has(sample)) ? samples.map((sample) => errors.get(sample) ?? NaN) : [...errors.values()];
    const all = [...this.errors].sort(([, a], [, b]) => b.size - a.size);
    return all.map(([entry, errors]) => [entry, of(errors)]);
  }

  /**
   * The entries sorted by the geometric mean of their errors on the samples, the best first. An arithmetic mean would be dominated by a
   * few samples with much larger errors.
   */
  async ranked<E extends Entry>(entries: readonly E[], samples: readonly number[]): Promise<readonly E[]> {
    const means = new Map<Entry, number>();
    for (const entry of entries) means.set(entry, mean(await this.logErrors(entry, samples)));
    return [...entries].sort((a, b) => (means.get(a) ?? NaN) - (means.get(b) ?? NaN));
  }

  /**
   * The first entry that is worse than the best one by no more than the standard error of the difference. Entries come in order of
   * preference. This is the one-standard-error rule (Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, §7.10),
   * applied to the logarithms of errors on the same samples.
   */
  async simplest<E extends Entry>(entries: readonly E[], samples: readonly number[]): Promise<E> {
    const best = await this.logErrors(entryAt(await this.ranked(entries, samples), 0), samples);
    for (const entry of entries) {
      const behind = (await this.logErrors(entry, samples)).map((error, i) => error - entryAt(best, i));
      if (mean(behind) <= (standardError(behind) ?? 0)) return entry;
    }
    return entryAt(entries, 0);
  }

  private async logErrors(entry: Entry, samples: readonly number[]): Promise<readonly number[]> {
    const errors = await this.measure(entry, samples);
    return samples.map((sample) => Math.log(errors.get(sample) ?? NaN));
  }

  /**
   * The best entry by successive halving (arXiv 1502.07943): all entries run on one sample, the better half on twice as many, and so on
   * until one is left.
   */
  async best<E extends Entry>(entries: readonly E[], samples: readonly number[]): Promise<E> {
    let left: readonly E[] = entries;
    for (let count = 1; left.length > 1; count *= 2)
      left = (await this.ranked(left, samples.slice(0, count))).slice(0, Math.ceil(left.length / 2));
    return entryAt(left, 0);
  }
}

/** The mean, and the half-width of its 95 % confidence interval; no interval for one sample. */
export function meanWithin(errors: readonly number[]): Measured {
  return { error: mean(errors), interval: halfWidth(errors) };
}
