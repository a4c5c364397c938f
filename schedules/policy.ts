/** The interface of policies, which choose a schedule from calibration statistics or from runs of the model. */
import { z } from "zod";
import type { Named } from "../ir/registry.js";
import type { TensorData } from "../ir/tensor.js";
import type { Adjustments } from "./adjustment.js";
import { computedSteps, type Schedule, type ScheduleCell, valueFor, type PlannedCache } from "./plan.js";
import type { RunIdentity } from "./run.js";
import type { Predicted } from "./predicted.js";
import type { Term } from "./sampler.js";
import type { SiteStatistics } from "./planning/statistics.js";

/** A branch that a policy may cache. */
export interface PolicySite extends PlannedCache {
  /** Its share of the cacheable compute of one step; the shares of all sites add up to 1. */
  readonly share: number;
  /** Absent if nothing was measured. */
  readonly statistics?: SiteStatistics | undefined;
}

/** The input of a policy. */
export interface PolicyInput {
  readonly steps: number;
  /** The time that the network gets at each step, from the sampler's table. */
  readonly timesteps: readonly number[];
  /** `Run.borders`. A cell that would read a step across one of them computes instead (`bind`). */
  readonly borders?: readonly number[] | undefined;
  /** In execution order. */
  readonly sites: readonly PolicySite[];
  /** The share of a run's MACs that its branches take. */
  readonly cacheable: number;
  /** Reads a JSON file that an option names. Throws FILE_MISSING, BAD_JSON. */
  readonly readJson: (file: string) => unknown;
  /** Reads the tensors of a `torch.save` file that an option names, by name. Throws FILE_MISSING, BAD_TORCH_FILE. */
  readonly readTensors: (file: string) => ReadonlyMap<string, TensorData>;
  /** Absent if there is no model to run. */
  readonly runs?: Runs | undefined;
  /** Reports how much of a long search is done. */
  readonly progress: (done: number, total: number) => void;
}

/** Runs of the model, for policies that need more than the trace. */
export interface Runs {
  /** The numbers of the calibration's samples. */
  readonly samples: readonly number[];
  /** Whether the network can be cut there (`cutSchema`), and its branches then take no smaller share of the compute. */
  fits(cut: string): Promise<boolean>;
  /**
   * The final latent of a sample, following the schedule or computing everything. After every step, `observe` gets the values of the
   * computed branches by the names of their caches.
   */
  run(
    sample: number,
    schedule?: Schedule,
    observe?: (step: number, values: ReadonlyMap<string, TensorData>) => void,
  ): Promise<Float32Array>;
  /** The number of network evaluations so far. An evaluation with cached branches counts as the share of the MACs that it computes. */
  evaluations(): number;
  /** The duration of a run without caching on this machine, in seconds. */
  seconds(): Promise<number>;
  /** The latents of a sample without caching: the initial one, and the one after every step. */
  latents(sample: number): Promise<readonly Float32Array[]>;
  /**
   * Starts a run that follows the schedule step by step.
   * Up to the step `from` it is the run without caching, whose branches it must not read.
   */
  walk(sample: number, schedule: Schedule, from?: number): Promise<SteppedRun>;
}

/** A run under the control of the policy, step by step. */
export interface SteppedRun {
  /**
   * Computes the next step without taking it. For branches under the given plan keys, `terms` replaces the sums of the schedule. The
   * terms may only read computed steps that the schedule reads somewhere. A branch that the schedule computes here stays computed.
   */
  attempt(terms?: ReadonlyMap<string, readonly Term[]>): Promise<Attempt>;
}

export interface Attempt {
  readonly latent: Float32Array;
  /**
   * The difference of a latent from the run without caching, if everything after this step were exact. It is taken at the next latent;
   * with a multistep sampler, at the latent of the last row that reads the output of this step.
   */
  deviation(): Float64Array;
  /** Takes the step with this result. */
  advance(): Promise<void>;
}

/** The result of a policy: rows of cells by plan keys. A branch without a key is always computed. */
export interface Choice {
  /** The run that it was made for, if the policy is an existing plan. */
  readonly of?: RunIdentity | undefined;
  /** Where the network must be cut. Default: the cut of the recipe. */
  readonly cut?: string | undefined;
  /** Whether cells may read values of another network, which an existing plan may say. */
  readonly across?: boolean | undefined;
  readonly cells: ReadonlyMap<string, readonly ScheduleCell[]>;
  /** Scales and shifts of cached values, under the same keys as the cells. */
  readonly adjustments?: Adjustments | undefined;
  readonly predicted?: Predicted | undefined;
  /** Sentences for the user. */
  readonly warnings?: readonly string[] | undefined;
}

/** What a policy needs. `trace`: statistics of every site; `runs`: a model that can be run. */
export type PolicyNeed = "trace" | "runs";

/** A policy: a file of `policies/`. */
export interface Policy<Options extends z.ZodObject = z.ZodObject> extends Named {
  readonly summary: string;
  /** What it needs, or a function if that depends on its options. */
  readonly needs: readonly PolicyNeed[] | ((options: z.output<Options>) => readonly PolicyNeed[]);
  /** Its options, each with a description. Numbers may be given as text. */
  readonly options: Options;
  /** The options that set a budget, of which only one may be given. A policy with such options must fill `predicted.compared`. */
  readonly budgets?: readonly string[];
  /** The option, or the field of `predicted`, that is the threshold below which a measured change is reused. */
  readonly threshold?: string;
  /** Whether a plan that caches nothing is intended. */
  readonly cachesNothing?: boolean;
  choose(input: PolicyInput, options: z.output<Options>): Choice | Promise<Choice>;
}

/** The name of an option on the command line: `max-error` for maxError. */
export function optionWord(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The option of such a name. */
export function optionNamed(word: string): string {
  return word.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** Branches that share one decision. */
export interface BranchGroup {
  /** The plan key that applies to exactly these branches: `attn`, `temporal_attn`, `attn-3`. */
  readonly key: string;
  readonly sites: readonly PolicySite[];
}

/**
 * Which branches share a decision. `stream`: branches of one kind in one stream (SmoothCache's paper); `kind`: branches of one kind
 * (SmoothCache's code, by the last name of the module path); `site`: every branch decides alone.
 */
const GROUPINGS = ["stream", "kind", "site"] as const;
export type Grouping = (typeof GROUPINGS)[number];

/** The option `group` of policies that support every grouping. */
export const groupOption = (otherwise: Grouping): z.ZodType<Grouping> =>
  z
    .enum(GROUPINGS)
    .default(otherwise)
    .describe("what decides together: branches of one kind in one stream, of one kind in all streams, or each site alone");

/** The branches in groups, in the order of each group's first branch. */
export function groupBranches<Site extends Pick<PolicySite, "name" | "stream" | "kind">>(
  sites: readonly Site[],
  by: Grouping = "stream",
): readonly { readonly key: string; readonly sites: readonly Site[] }[] {
  const severalStreams = new Set(sites.map(({ stream }) => stream)).size > 1;
  const keyOf = ({ name, stream, kind }: Site): string => {
    if (by === "site") return name;
    return by === "stream" && severalStreams ? `${stream}_${kind}` : kind;
  };
  const groups = new Map<string, Site[]>();
  for (const site of sites) groups.set(keyOf(site), [...(groups.get(keyOf(site)) ?? []), site]);
  return [...groups].map(([key, members]) => ({ key, sites: members }));
}

/** The branches sorted by group, each with the key of its group. */
export function withGroups<Site extends Pick<PolicySite, "name" | "stream" | "kind">>(
  sites: readonly Site[],
): readonly (Site & { readonly group: string })[] {
  return groupBranches(sites).flatMap(({ key, sites: members }) => members.map((site) => ({ ...site, group: key })));
}

/** The same row for all branches, under the keys of their groups. */
export function everywhere(sites: readonly PolicySite[], row: readonly ScheduleCell[]): Choice["cells"] {
  return new Map(groupBranches(sites).map(({ key }) => [key, row]));
}

/** The statistics of branches that must all have been measured. */
export function statisticsOf(sites: readonly PolicySite[]): readonly SiteStatistics[] {
  return sites.flatMap(({ statistics }) => statistics ?? []);
}

/** The share of the branches' compute over all steps that the rows still compute, from 0 to 1. */
export function computedShare({ steps, sites, borders }: PolicyInput, cells: Choice["cells"]): number {
  let computed = 0;
  let total = 0;
  for (const site of sites) {
    total += site.share * steps;
    const row = valueFor(cells, site);
    computed += site.share * (row ? computedSteps(row, borders, site.tokens) : steps);
  }
  return total > 0 ? computed / total : 1;
}
